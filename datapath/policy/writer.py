"""Endpoints' policies brought into the kernel: one LPM map each, whole before any packet asks it.

A changed policy is a new map that takes the old one's place: packets see the one or the other, never a half. An
update of the outer map makes the kernel wait until no program uses what was there (some 8 ms), once for a call: so
all endpoints that changed go in one.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

from datapath.errors import DatapathError, InvalidPolicy
from datapath.maps import InnerMap, MapLike, slices
from datapath.policy.compile import entries
from datapath.policy.model import EndpointPolicy, Rule

_BATCH = 4096


@dataclass(frozen=True, slots=True)
class PolicyReport:
    """What an `apply` did.

    :ivar replaced: endpoints whose rules are now others. :ivar removed: endpoints that have no map any more.
    :ivar entries: of the maps that were written.
    :ivar problems: endpoints whose rules could not be put in force, with the reason; what was there stays in force.
    """

    replaced: tuple[int, ...] = ()
    removed: tuple[int, ...] = ()
    entries: int = 0
    problems: Mapping[int, str] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        """Cached decisions may be wrong: raise the generation."""
        return bool(self.replaced or self.removed)


class PolicyWriter:
    """Thread-safe; one at a time.

    :param outer: map `policies`. :param new_inner: makes an empty map of the kind that it holds.
    """

    def __init__(self, outer: MapLike, new_inner: Callable[[], InnerMap]) -> None:
        self._outer = outer
        self._new_inner = new_inner
        self._lock = threading.Lock()
        # What the kernel holds, as far as we have written it; None: not known, a daemon before us wrote it.
        self._held: dict[int, frozenset[Rule] | None] | None = None

    def apply(self, policies: Mapping[int, EndpointPolicy]) -> PolicyReport:
        """Makes the kernel hold the policies of these endpoints (by number) and no others.

        An endpoint without rules has no map: where a direction is enforced, that denies. Raises BpfRefused if the
        kernel takes none of it; what was in force stays so, and the next call tries again."""
        with self._lock:
            if self._held is None:
                self._held = dict.fromkeys(self._read())
            wanted = {number: policy.rules for number, policy in policies.items() if policy.rules}
            removed = sorted(self._held.keys() - wanted.keys())
            changed = {number: rules for number, rules in wanted.items() if self._held.get(number) != rules}
            problems: dict[int, str] = {}
            written, count = self._put(changed, problems)
            if removed:
                self._outer.delete_batch(b"".join(map(_number, removed)), len(removed))
                for number in removed:
                    del self._held[number]
            for number in written:
                self._held[number] = changed[number]
            return PolicyReport(tuple(written), tuple(removed), count, problems)

    def _put(self, changed: Mapping[int, frozenset[Rule]], problems: dict[int, str]) -> tuple[list[int], int]:
        written: dict[int, int] = {}
        count = 0
        with ExitStack() as descriptors:
            for number, rules in sorted(changed.items()):
                inner = self._new_inner()
                descriptors.callback(inner.close)
                try:
                    count += _fill(inner, rules)
                except DatapathError as error:
                    problems[number] = error.message
                else:
                    written[number] = inner.fd
            if written:
                keys = b"".join(map(_number, written))
                self._outer.update_batch(keys, b"".join(map(_number, written.values())), len(written))
        return list(written), count

    def _read(self) -> list[int]:
        return [
            int.from_bytes(key, sys.byteorder)
            for keys, _, count in self._outer.keys_batches()
            for key in slices(keys, 4, count)
        ]


def _fill(inner: MapLike, rules: frozenset[Rule]) -> int:
    found = list(entries(rules).items())
    if len(found) > inner.max_entries:
        raise InvalidPolicy(
            f"{len(rules)} rules make {len(found)} entries, {inner.max_entries} are possible",
            field="rules",
            remedy="join ranges of ports, or name identities that share labels as one",
        )
    for start in range(0, len(found), _BATCH):
        part = found[start : start + _BATCH]
        keys, values = b"".join(key.pack() for key, _ in part), b"".join(entry.pack() for _, entry in part)
        inner.update_batch(keys, values, len(part))
    return len(found)


def _number(value: int) -> bytes:
    return value.to_bytes(4, sys.byteorder)
