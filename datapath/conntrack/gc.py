"""The collector: what has expired leaves the kernel's maps, and so does what belonged to pods that are gone.

The programs take an expired entry as if it were not there, so nothing goes wrong while one stays: it takes room, which
LRU maps would else find by throwing out what has not been used for long, alive or not. A pass reads each map in batches
and deletes what has expired in each before it reads the next.

A packet may bring an entry back to life between reading and deleting, after a silence of its whole lifetime and within
the milliseconds that a batch takes. A flow lost so is decided anew when its next packet comes: its counters begin at 0,
policy is asked again, and if that packet is an answer that policy would not let begin, it is dropped and sent again. A
masqueraded connection would get another port, which its other end would not understand: so masqueraded flows, and
entries of `nat`, are looked at once more, each right before it goes.

Translations go with their flow. By themselves they would hold their port for as long as an open connection may be
silent.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import compress
from typing import Final

from datapath.conntrack.evictions import Evictions
from datapath.conntrack.scan import Expiry, FlowKind, census, chosen, column, holders, kinds
from datapath.conntrack.translations import NAT_FLAG_AT, translations_of
from datapath.errors import BpfError
from datapath.layout import FLOW_NAT, Flow, Fragment, Nat
from datapath.maps import MapLike

BATCH: Final = 4096
SHORTEST_S: Final = 5.0
LONGEST_S: Final = 120.0
# Passes for pods that are gone wait for so long, so that many that end together cost one.
SETTLE_S: Final = 1.0
# Addresses looked for in one pass; each costs the time to search the keys for it.
_MOST_ADDRESSES: Final = 64
# A pass may take this part of a core at most, on average.
_DUTY: Final = 0.05
_FLOW_EXPIRES_AT: Final = Flow.OFFSETS["expires_j"]
_MAPS: Final = ("flows", "nat", "fragments")
_NAT_EXPIRES_AT: Final = Nat.OFFSETS["expires_j"]
_FRAGMENT_SEEN_AT: Final = Fragment.OFFSETS["seen_j"]


@dataclass(frozen=True, slots=True)
class Table:
    """What a pass found in one map.

    :ivar entries: that stay. :ivar expired, forgotten: that were deleted, because of their age or of their pod.
    :ivar revived: that had expired when they were read, and had not when they were to be deleted.
    :ivar evicted: that the full map pushed out since the pass before, at least.
    """

    entries: int = 0
    expired: int = 0
    forgotten: int = 0
    revived: int = 0
    max_entries: int = 0
    evicted: int = 0

    @property
    def deleted(self) -> int:
        return self.expired + self.forgotten

    @property
    def pressure(self) -> float:
        """0 empty; near 1 new entries push out old ones."""
        return self.entries / self.max_entries if self.max_entries else 0.0


@dataclass(frozen=True, slots=True)
class Pass:
    """One round through all maps.

    :ivar tables: by the map's name. :ivar alive, expired: flows by kind.
    :ivar seconds: how long it took. :ivar cpu_seconds: processor time of its thread, the kernel's part included.
    """

    tables: Mapping[str, Table] = field(default_factory=dict)
    alive: Mapping[FlowKind, int] = field(default_factory=dict)
    expired: Mapping[FlowKind, int] = field(default_factory=dict)
    seconds: float = 0.0
    cpu_seconds: float = 0.0


def next_interval(interval_s: float, done: Pass) -> float:
    """Seconds until the next pass: half as long as before where much had expired or a map is nearly full, half as long
    again where little had; such that passes take no more than a twentieth of a core."""
    tables = done.tables.values()
    expired = sum(table.expired for table in tables)
    share = expired / max(expired + sum(table.entries for table in tables), 1)
    if share >= 0.25 or any(table.pressure >= 0.9 for table in tables):
        interval_s /= 2
    elif share <= 0.05:
        interval_s *= 1.5
    shortest = min(max(SHORTEST_S, done.cpu_seconds / _DUTY), LONGEST_S)
    return min(max(interval_s, shortest), LONGEST_S)


class Collector:
    """`collect` is one pass, in whatever thread calls it; `run` makes passes for ever, in threads. Thread-safe.

    :param now_j: the kernel's jiffies, low 32 bits. :param fragment_j: how long ports of a datagram are remembered.
    :param told: called after each pass, in the thread of the pass.
    :param created: entries that programs ever put into a map, by its name.
    """

    def __init__(
        self,
        flows: MapLike,
        nat: MapLike,
        fragments: MapLike,
        *,
        now_j: Callable[[], int],
        fragment_j: int,
        told: Callable[[Pass], None] | None = None,
        created: Callable[[str], int] | None = None,
    ) -> None:
        self._flows = flows
        self._nat = nat
        self._fragments = fragments
        self._now_j = now_j
        self._fragment_j = fragment_j
        self._told = told
        self._turn = threading.Lock()  # one pass at a time
        self._lock = threading.Lock()  # of what follows
        self._gone: dict[bytes, None] = {}
        # Hears of flows that a pass found expired, key and value each; to be set before the first pass or never.
        self.ended: Callable[[Iterable[tuple[bytes, bytes]]], None] | None = None
        self._wake: Callable[[], None] = lambda: None
        self.interval_s = SHORTEST_S
        self.last = Pass()
        # Since the start, by map and reason; "released": translations that went with their flow. No key is added later:
        # others read it meanwhile.
        self.deleted: Counter[tuple[str, str]] = Counter(
            {(name, why): 0 for name in _MAPS for why in ("expired", "forgotten", "released")}
        )
        self._evictions = Evictions(created, _MAPS)
        self.passes = 0
        self.seconds = 0.0
        # Why the last pass failed; empty: it did not.
        self.problem = ""

    def forget_address(self, address: bytes) -> None:
        """Connections of this address (16 bytes) go with the next pass, which is made soon. Returns at once; call it
        when no packet of the pod can come any more, and not for an address that another pod may have by then."""
        with self._lock:
            self._gone[address] = None
            wake = self._wake
        wake()

    def collect(self) -> Pass:
        """One pass. Raises BpfRefused; addresses to forget are then kept for the next."""
        with self._turn:
            with self._lock:
                gone = list(self._gone)[:_MOST_ADDRESSES]
            began, cpu = time.perf_counter(), time.thread_time()
            now_j = self._now_j()
            tables = {}
            self._evictions.begin("flows")
            flows, alive, expired = self._collect_flows(now_j, gone)
            tables["flows"] = self._reckoned("flows", flows)
            for name, collect in (("nat", self._collect_nat), ("fragments", self._collect_fragments)):
                self._evictions.begin(name)
                tables[name] = self._reckoned(name, collect(now_j, gone))
            done = Pass(tables, alive, expired, time.perf_counter() - began, time.thread_time() - cpu)
            with self._lock:
                for address in gone:
                    self._gone.pop(address, None)
                self._count(done)
            return done

    @property
    def evicted(self) -> Mapping[str, int]:
        """Entries that full maps pushed out since the start, by map; at least so many."""
        return self._evictions.total

    def flushed(self, name: str, count: int) -> None:
        """Somebody else has deleted entries of that map."""
        with self._turn:
            self._evictions.took_out(name, count)

    def _reckoned(self, name: str, table: Table) -> Table:
        evicted = self._evictions.end(
            name, seen=table.entries + table.deleted, kept=table.entries, max_entries=table.max_entries
        )
        return replace(table, evicted=evicted)

    async def run(self) -> None:
        """Until cancelled; a pass that has begun then ends first. A pass that fails is told of by `problem`, and tried
        again after the interval."""
        loop, wanted = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(wanted.set)

        with self._lock:
            self._wake = wake
        try:
            while True:
                wanted.clear()
                await _to_its_end(self._attempt)
                with self._lock:
                    more = bool(self._gone)
                if not more:
                    try:
                        await asyncio.wait_for(wanted.wait(), self.interval_s)
                    except TimeoutError:
                        continue
                await asyncio.sleep(SETTLE_S)
        finally:
            with self._lock:
                self._wake = lambda: None

    def _attempt(self) -> None:
        try:
            done = self.collect()
        except BpfError as error:
            self.problem = error.message
            self.interval_s = LONGEST_S / 4
            return
        self.problem = ""
        if self._told is not None:
            self._told(done)

    def _count(self, done: Pass) -> None:
        for name, table in done.tables.items():
            self.deleted[name, "expired"] += table.expired
            self.deleted[name, "forgotten"] += table.forgotten
        self.passes += 1
        self.seconds += done.seconds
        self.last = done
        self.interval_s = next_interval(self.interval_s, done)

    def _collect_flows(
        self, now_j: int, gone: list[bytes]
    ) -> tuple[Table, Mapping[FlowKind, int], Mapping[FlowKind, int]]:
        flows, expiry = self._flows, Expiry(now_j)
        key_size, value_size = flows.key_size, flows.value_size
        seen: Counter[FlowKind] = Counter()
        dead: Counter[FlowKind] = Counter()
        entries = expired = forgotten = revived = 0
        for keys, values, count in flows.keys_batches(BATCH):
            mask = expiry.mask(column(values, value_size, _FLOW_EXPIRES_AT, count))
            of = kinds(keys, key_size, values, value_size, count)
            seen.update(census(of))
            entries += count
            if any(mask):
                plain, mask, awake = self._end_masqueraded(keys, values, mask, now_j)
                revived += awake
                dead.update(census(chosen(of, 1, mask)))
                if self.ended is not None:
                    self.ended(_entries(keys, key_size, values, value_size, mask))
                expired += len(mask) - mask.count(0) - (len(plain) - plain.count(0)) + _delete(flows, keys, plain)
            if gone:
                forgotten += _delete(flows, keys, _marked(count, mask, gone, ((keys, key_size, (0, 16)),)))
        seen.subtract(dead)
        table = Table(entries - expired - forgotten, expired, forgotten, revived, flows.max_entries)
        return table, +seen, +dead

    def _end_masqueraded(self, keys: bytes, values: bytes, mask: bytes, now_j: int) -> tuple[bytes, bytes, int]:
        """Deletes those of the expired flows that are masqueraded, with their translations.

        Returns masks of the others, and of all but those that have come back to life; and how many these are."""
        key_size, value_size = self._flows.key_size, self._flows.value_size
        numbers = [
            number
            for number in compress(range(len(mask)), mask)
            if values[number * value_size + NAT_FLAG_AT] & FLOW_NAT
        ]
        if not numbers:
            return mask, mask, 0
        plain, over = bytearray(mask), bytearray(mask)
        translations: list[bytes] = []
        revived = 0
        for number in numbers:
            plain[number] = 0
            key = keys[number * key_size : (number + 1) * key_size]
            value = self._flows.lookup(key)
            if value is not None and not _has_come(value, _FLOW_EXPIRES_AT, now_j):
                over[number] = 0
                revived += 1
            elif value is not None and self._flows.delete(key):
                translations += translations_of(key, value)
        if translations:
            released = self._nat.delete_batch(b"".join(translations), len(translations))
            self.deleted["nat", "released"] += released
            self._evictions.took_out("nat", released)
        return bytes(plain), bytes(over), revived

    def _collect_nat(self, now_j: int, gone: list[bytes]) -> Table:
        nat, expiry = self._nat, Expiry(now_j)
        key_size, value_size = nat.key_size, nat.value_size
        entries = expired = forgotten = revived = 0
        for keys, values, count in nat.keys_batches(BATCH):
            mask = expiry.mask(column(values, value_size, _NAT_EXPIRES_AT, count))
            entries += count
            for number in [number for number, over in enumerate(mask) if over] if any(mask) else ():
                key = keys[number * key_size : (number + 1) * key_size]
                value = nat.lookup(key)
                if value is None:
                    entries -= 1
                elif not _has_come(value, _NAT_EXPIRES_AT, now_j):
                    revived += 1
                elif nat.delete(key):
                    expired += 1
            if gone:  # the way out has the pod as its source, the way in as its new destination
                where = ((keys, key_size, (0,)), (values, value_size, (0,)))
                forgotten += _delete(nat, keys, _marked(count, mask, gone, where))
        return Table(entries - expired - forgotten, expired, forgotten, revived, nat.max_entries)

    def _collect_fragments(self, now_j: int, gone: list[bytes]) -> Table:
        fragments, expiry = self._fragments, Expiry(now_j - self._fragment_j)
        key_size, value_size = fragments.key_size, fragments.value_size
        entries = expired = forgotten = 0
        for keys, values, count in fragments.keys_batches(BATCH):
            mask = expiry.mask(column(values, value_size, _FRAGMENT_SEEN_AT, count))
            entries += count
            expired += _delete(fragments, keys, mask)
            if gone:
                forgotten += _delete(fragments, keys, _marked(count, mask, gone, ((keys, key_size, (0, 16)),)))
        return Table(entries - expired - forgotten, expired, forgotten, 0, fragments.max_entries)


async def _to_its_end(work: Callable[[], None]) -> None:
    """In a thread; a cancellation waits for it, so that nobody closes the maps under its hands."""
    thread = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        await asyncio.shield(thread)
    except asyncio.CancelledError:
        await thread
        raise


def _entries(keys: bytes, key_size: int, values: bytes, value_size: int, mask: bytes) -> Iterable[tuple[bytes, bytes]]:
    for number in compress(range(len(mask)), mask):
        at, of = number * key_size, number * value_size
        yield keys[at : at + key_size], values[of : of + value_size]


def _delete(table: MapLike, keys: bytes, mask: bytes) -> int:
    if not any(mask):
        return 0
    found = chosen(keys, table.key_size, mask)
    return table.delete_batch(found, len(found) // table.key_size)


def _marked(
    count: int, deleted: bytes, gone: list[bytes], where: tuple[tuple[bytes, int, tuple[int, ...]], ...]
) -> bytes:
    """A mask of the entries that hold one of the addresses and were not deleted before."""
    mask = bytearray(count)
    for address in gone:
        for data, size, offsets in where:
            for number in holders(data, size, offsets, address):
                mask[number] = not deleted[number]
    return bytes(mask)


def _has_come(value: bytes, offset: int, now_j: int) -> bool:
    return (int.from_bytes(value[offset : offset + 4], sys.byteorder) - now_j) & 0x80000000 != 0
