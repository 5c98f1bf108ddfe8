"""Numbers of sets of labels: the same set has the same number on every node, for as long as any endpoint uses it.

    unknown ──take──▶ used ──last give_back──▶ resting ──rest_s──▶ unknown
                        ▲───────── take ─────────┘

A number goes to another set only after its rest, so that no node takes the new set for the old one; numbers are given
out upwards and begin anew at the end, which makes the rest longer still. Rests are measured on the monotonic clock and
begin anew when the registry starts.

No I/O and no locks: the registry writes what `unwritten` tells together with the endpoints that use it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Final

from services.registry.errors import IdentitiesExhausted
from services.registry.model import IDENTITY_FIRST, IDENTITY_MAX, Identity
from services.registry.ports import Clock

# What tells pods of one set of labels apart must not count: every pod would be a set of its own.
DEFAULT_PATTERNS: Final = (
    "*",
    "!io.kubernetes.pod.name",
    "!io.kubernetes.pod.uid",
    "!statefulset.kubernetes.io/pod-name",
    "!apps.kubernetes.io/pod-index",
    "!batch.kubernetes.io/job-completion-index",
    "!*controller-uid",
    "!controller-revision-hash",
    "!pod-template-hash",
    "!pod-template-generation",
    # What the node adds about the pod's interface at the cloud: many pods, few rules that ask for it.
    "!cloud.plimsoll/*",
)

_Labels = tuple[tuple[str, str], ...]


def counting(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Whether a label of a name counts: the last pattern that matches decides, "!" says no. None matches: no."""
    rules = [(pattern.removeprefix("!"), not pattern.startswith("!")) for pattern in reversed(patterns)]

    @lru_cache(maxsize=4096)
    def counts(name: str) -> bool:
        return next((yes for pattern, yes in rules if fnmatchcase(name, pattern)), False)

    return counts


def digest(labels: Mapping[str, str]) -> str:
    """Stands for a set of labels where its text would be too long for an index."""
    text = json.dumps(sorted(labels.items()), separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class Identities:
    """All numbers, those at rest included.

    :param patterns: which labels count, see `counting`.
    :param rest_s: how long a number that nobody uses is kept for its set.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        patterns: Sequence[str] = DEFAULT_PATTERNS,
        rest_s: float = 600.0,
        first: int = IDENTITY_FIRST,
        last: int = IDENTITY_MAX,
    ) -> None:
        self._clock = clock
        self._counts = counting(patterns)
        self._rest_s = rest_s
        self._first, self._last = first, last
        self._next = first
        self._known: dict[int, Identity] = {}
        self._numbers: dict[_Labels, int] = {}
        self._uses: dict[int, int] = {}
        # Monotonic seconds since when nobody uses a number, the longest first.
        self._resting: dict[int, float] = {}
        self._unwritten: set[int] = set()
        self.refusals = 0

    def __len__(self) -> int:
        return len(self._known)

    @property
    def all(self) -> Mapping[int, Identity]:
        return self._known

    @property
    def resting(self) -> int:
        return len(self._resting)

    @property
    def free(self) -> int:
        """How many more sets would get a number now."""
        return self._last - self._first + 1 - len(self._known)

    def uses(self, number: int) -> int:
        """How many endpoints use it."""
        return self._uses.get(number, 0)

    def load(self, stored: Iterable[Identity]) -> None:
        """What the store holds; all of it rests until it is taken."""
        now = self._clock.monotonic()
        for identity in stored:
            self._enter(identity)
            self._resting[identity.number] = now
        self._next = max(self._known, default=self._first - 1) + 1

    def take(self, labels: Mapping[str, str]) -> int:
        """The number of the labels that count, for one more endpoint. Raises IdentitiesExhausted."""
        key = tuple(sorted((name, value) for name, value in labels.items() if self._counts(name)))
        number = self._numbers.get(key)
        if number is None:
            number = self._unused()
            self._enter(Identity(number, dict(key)))
            self._unwritten.add(number)
        self._resting.pop(number, None)
        self._uses[number] = self._uses.get(number, 0) + 1
        return number

    def give_back(self, number: int) -> None:
        """One endpoint fewer uses `number`; numbers that are none of ours are passed over."""
        if number not in self._known:
            return
        self._uses[number] -= 1
        if not self._uses[number]:
            del self._uses[number]
            self._resting[number] = self._clock.monotonic()

    def unwritten(self, numbers: Iterable[int]) -> list[Identity]:
        """Those of `numbers` that the store may not have."""
        return [self._known[number] for number in sorted(self._unwritten.intersection(numbers))]

    def written(self, identities: Iterable[Identity]) -> None:
        self._unwritten.difference_update(identity.number for identity in identities)

    def rested(self) -> list[int]:
        """Numbers whose rest is over. They stay until `forget`, after the store has forgotten them."""
        over = self._clock.monotonic() - self._rest_s
        found = []
        for number, since in self._resting.items():
            if since > over:
                break
            found.append(number)
        return found

    def forget(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            identity = self._known.pop(number)
            del self._numbers[_key(identity)], self._resting[number]
            self._unwritten.discard(number)

    def _enter(self, identity: Identity) -> None:
        self._known[identity.number] = identity
        self._numbers[_key(identity)] = identity.number

    def _unused(self) -> int:
        if self.free <= 0:
            self.refusals += 1
            raise IdentitiesExhausted(
                f"all {len(self._known)} identities are given out, {self.resting} of them at rest",
                field="labels",
                remedy="let fewer labels count (identity_labels); plimsoll identities list shows which differ",
                retry_after_s=self._rest_s,
            )
        while True:
            if self._next > self._last:
                self._next = self._first
            number, self._next = self._next, self._next + 1
            if number not in self._known:
                return number


def _key(identity: Identity) -> _Labels:
    return tuple(sorted(identity.labels.items()))


__all__ = ["DEFAULT_PATTERNS", "Identities", "counting", "digest"]
