"""Writes of a resource that is written whole: read, changed, put back under its ETag.

Changes to one resource that are asked for while another write of it is on its way wait, and go together with the next:
an interface, or a virtual machine of a uniform scale set, is written one at a time, and Azure refuses the others.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ipam.errors import CloudError

Document = dict[str, Any]
Change = Callable[[Document], bool]  # changes the document in place; False: there was nothing to change


@dataclass(slots=True)
class _Waiting:
    change: Change
    done: bool = False
    error: BaseException | None = None
    answer: Document = field(default_factory=dict)


class _Line:
    """Who waits for one resource. `users` of it now; the last one takes it away."""

    def __init__(self) -> None:
        self.writing = threading.Lock()
        self.waiting: list[_Waiting] = []
        self.users = 0


class Writes:
    """Thread-safe, for all threads of a worker."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: dict[str, _Line] = {}

    def write(
        self, key: str, change: Change, read: Callable[[], Document], put: Callable[[Document], Document]
    ) -> Document:
        """The document as it is after a write with this change in it. Raises what change, read or put raised.

        :param key: names the resource.
        """
        mine = _Waiting(change)
        with self._lock:
            line = self._lines.setdefault(key, _Line())
            line.users += 1
            line.waiting.append(mine)
        try:
            with line.writing:
                if not mine.done:
                    with self._lock:
                        batch, line.waiting = line.waiting, []
                    _write(batch, read, put)
        finally:
            with self._lock:
                line.users -= 1
                if not line.users:
                    self._lines.pop(key, None)
        if mine.error is not None:
            raise mine.error
        return mine.answer


def _write(batch: list[_Waiting], read: Callable[[], Document], put: Callable[[Document], Document]) -> None:
    """A change that is refused leaves no trace, and the others go on."""
    try:
        document = read()
        changed = False
        for each in batch:
            draft = copy.deepcopy(document)
            try:
                if each.change(draft):
                    document, changed = draft, True
            except CloudError as error:
                each.error = error
        answer = put(document) if changed else document
        for each in batch:
            each.answer = answer
    except BaseException as error:
        for each in batch:
            each.error = each.error or error
        if not isinstance(error, Exception):
            raise
    finally:
        for each in batch:
            each.done = True
