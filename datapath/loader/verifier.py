"""The verifier's log, shortened to what tells why: the complaint, the source it is about, the last instructions.

A log has a line for every instruction that was looked at and for every state; a program that fails late writes
megabytes. What matters stands at its end.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_INSTRUCTION: Final = re.compile(r"^\d+: \([0-9a-f]{2}\)")
_SOURCE: Final = re.compile(r"^; ")
_STATE: Final = re.compile(
    r"^(\d+: R\d|from \d+|\d+: \(?R|R\d+(_\w+)?=|last_idx|regs=|parent |frame\d+: R|mark_precise|func#)"
)
_SUMMARY: Final = re.compile(r"^(processed \d+ insns|verification time|stack depth|insns processed)")
_REFUSED: Final = re.compile(r"prog '([^']+)': (?:BPF program load failed|failed to load)")
_INSTRUCTIONS_KEPT: Final = 12
_SOURCES_KEPT: Final = 4
_COMPLAINTS_KEPT: Final = 4
_LONGEST_LINE: Final = 200


def refused_program(messages: Sequence[str]) -> str:
    """Name of the program whose load libbpf says has failed; empty if it was something else."""
    for message in reversed(messages):
        hit = _REFUSED.search(message)
        if hit:
            return hit[1]
    return ""


def shorten(log: str) -> str:
    """At most some 25 lines: source and instructions up to the failure, then what the verifier says of it."""
    lines = [line for line in log[-200_000:].splitlines() if line.strip()]
    summary = [line for line in lines if _SUMMARY.match(line)][-1:]
    lines = [line for line in lines if not _SUMMARY.match(line)]
    complaints: list[str] = []
    while (
        lines and len(complaints) < _COMPLAINTS_KEPT and not (_INSTRUCTION.match(lines[-1]) or _SOURCE.match(lines[-1]))
    ):
        line = lines.pop()
        if not _STATE.match(line):
            complaints.insert(0, line)
    kept: list[str] = []
    instructions = sources = 0
    for line in reversed(lines):
        if _SOURCE.match(line):
            sources += 1
            kept.append(line)
        elif _INSTRUCTION.match(line) and instructions < _INSTRUCTIONS_KEPT:
            instructions += 1
            kept.append(line)
        if sources >= _SOURCES_KEPT or (sources and instructions >= _INSTRUCTIONS_KEPT):
            break
    return "\n".join(line[:_LONGEST_LINE] for line in [*reversed(kept), *complaints, *summary])


def shorten_lines(lines: Sequence[str]) -> list[str]:
    """The last lines that say something, each cut to a bearable length."""
    return [line[:_LONGEST_LINE] for line in lines if line.strip() and not _STATE.match(line)][-6:]
