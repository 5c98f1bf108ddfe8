"""What the command line of this process asked for, known to all modules: one invocation is one process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(slots=True)
class Invocation:
    """`context`: the file given before the command. `json`: results and errors are for programs."""

    context: Path | None = None
    json: bool = False


this = Invocation()


def begin(context: Path | None) -> Path | None:
    """Callback of the root's first option: starts afresh."""
    this.context, this.json = context, False
    return context


def want_json(wanted: bool) -> bool:
    """Callback of --json."""
    this.json = wanted
    return wanted
