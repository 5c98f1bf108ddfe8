"""Pods that were, out of CSV with a head line or JSON lines: node, pod, start_s and end_s of each.

Times are seconds, from whatever beginning: a full day's boundary before the earliest start becomes 0, so that hours of
the day stay what they were where times are epoch seconds. An empty end_s is a pod that has not ended.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from ipam.errors import InvalidInput
from ipam.simulation.fields import read_text
from ipam.simulation.model import DAY_S, RecordedPod

COLUMNS = ("node", "pod", "start_s", "end_s")


def read_recorded(path: Path) -> tuple[RecordedPod, ...]:
    """In the order of their starts. Raises InvalidInput with the line to blame."""
    text = read_text(path)
    match path.suffix:
        case ".csv":
            rows = _csv(text, path)
        case ".jsonl":
            rows = _json(text, path)
        case _:
            raise InvalidInput(
                f"{path} is neither .csv nor .jsonl", field="recorded", remedy="name it by what is in it"
            )
    pods = [_pod(row, f"{path}:{line}") for line, row in rows]
    if not pods:
        raise InvalidInput(f"{path} tells of no pod", field="recorded", remedy="record some, one a line")
    return _from_zero(pods)


def _from_zero(pods: list[RecordedPod]) -> tuple[RecordedPod, ...]:
    first = min(pod.start_s for pod in pods)
    zero = first // DAY_S * DAY_S
    last = max(max(pod.start_s, pod.end_s if math.isfinite(pod.end_s) else 0.0) for pod in pods)
    end = last - zero
    moved = (RecordedPod(pod.node, pod.pod, pod.start_s - zero, min(pod.end_s - zero, end)) for pod in pods)
    return tuple(sorted(moved, key=lambda pod: (pod.start_s, pod.node, pod.pod)))


def _csv(text: str, path: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    reader = csv.DictReader(io.StringIO(text))
    lacking = [each for each in COLUMNS if each not in (reader.fieldnames or ())]
    if lacking:
        raise InvalidInput(
            f"{path} has no column {', '.join(lacking)}", field="recorded", remedy=f"begin it with {','.join(COLUMNS)}"
        )
    for row in reader:
        yield reader.line_num, row


def _json(text: str, path: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InvalidInput(
                f"{path}:{number} is no JSON: {error}", field="recorded", remedy="write one object a line"
            ) from error
        if not isinstance(row, dict):
            raise InvalidInput(f"{path}:{number} is no object", field="recorded", remedy="write one object a line")
        yield number, row


def _pod(row: Mapping[str, object], where: str) -> RecordedPod:
    node, pod = row.get("node"), row.get("pod")
    if not isinstance(node, str) or not node or not isinstance(pod, str) or not pod:
        raise InvalidInput(f"{where} names no node or no pod", field="node", remedy="write both as texts")
    start_s = _seconds(row.get("start_s"), "start_s", where)
    end = row.get("end_s")
    end_s = math.inf if end in (None, "") else _seconds(end, "end_s", where)
    if end_s < start_s:
        raise InvalidInput(f"{where}: end_s {end_s:g} is before start_s {start_s:g}", field="end_s",
                           remedy="leave end_s empty for a pod that has not ended")  # fmt: skip
    return RecordedPod(node, pod, start_s, end_s)


def _seconds(value: object, field: str, where: str) -> float:
    try:
        seconds = math.nan if isinstance(value, bool) else float(str(value))
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds) or seconds < 0:
        raise InvalidInput(f"{where}: {field} is {value!r}", field=field, remedy="write seconds, 0 or more")
    return seconds
