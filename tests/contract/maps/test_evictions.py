"""What full maps push out is told by nobody, and reckoned from what is known."""

from __future__ import annotations

from collections import Counter

import pytest

from datapath.conntrack.evictions import Evictions
from datapath.conntrack.gc import Collector
from datapath.layout import Flow as FlowValue
from datapath.layout import FlowKey, NatKey, address_bytes
from datapath.layout import Nat as NatValue
from tests.contract.maps.conftest import MakeMap

SIZE = 1024
NOW, SOON, OVER = 100_000, 100_500, 99_000
POD, WEB = address_bytes("10.0.0.5"), address_bytes("192.0.2.80")


class World:
    def __init__(self, make_map: MakeMap) -> None:
        self.flows, self.nat = make_map("flows", SIZE), make_map("nat", SIZE)
        self.created: Counter[str] = Counter()
        self.collector = Collector(
            self.flows, self.nat, make_map("fragments", SIZE), now_j=lambda: NOW, fragment_j=1,
            created=lambda name: self.created[name],
        )  # fmt: skip
        self._serial = 0

    def flow(self, count: int, expires_j: int = SOON) -> None:
        for _ in range(count):
            self._serial += 1
            key = FlowKey(POD, WEB, self._serial % 65536, self._serial // 65536, 6).pack()
            self.flows.update(key, FlowValue(expires_j=expires_j, state=2).pack())
            self.created["flows"] += 1

    def translation(self, count: int) -> None:
        for _ in range(count):
            self._serial += 1
            key = NatKey(POD, WEB, self._serial % 65536, 443, 6, 1).pack()
            self.nat.update(key, NatValue(WEB, 1, SOON).pack())
            self.created["nat"] += 1


@pytest.fixture
def world(make_map: MakeMap) -> World:
    return World(make_map)


def test_what_a_full_map_pushed_out_is_counted(world: World) -> None:
    world.flow(100)
    assert world.collector.collect().tables["flows"].evicted == 0
    world.flow(3 * SIZE)
    done = world.collector.collect().tables["flows"]
    assert done.entries <= SIZE
    assert done.evicted == 100 + 3 * SIZE - done.entries
    assert world.collector.evicted["flows"] == done.evicted
    assert world.collector.collect().tables["flows"].evicted == 0, "counted once"
    world.flow(50)
    again = world.collector.collect().tables["flows"]
    assert world.collector.evicted["flows"] == 150 + 3 * SIZE - again.entries


def test_what_the_collector_takes_out_is_no_eviction(world: World) -> None:
    world.flow(SIZE * 7 // 8, expires_j=OVER)
    assert world.collector.collect().tables["flows"].evicted == 0
    world.flow(SIZE * 7 // 8)
    assert world.collector.collect().tables["flows"].evicted == 0


def test_what_others_took_out_is_no_eviction(world: World) -> None:
    world.translation(SIZE * 7 // 8)
    world.collector.collect()
    keys = [key for batch, _, count in world.nat.keys_batches() for key in _split(batch, count)][:100]
    world.collector.flushed("nat", sum(map(world.nat.delete, keys)))
    assert world.collector.collect().tables["nat"].evicted == 0


def test_a_daemon_that_starts_beside_a_full_map_counts_from_then_on(world: World) -> None:
    world.flow(3 * SIZE)
    assert world.collector.collect().tables["flows"].evicted == 0


def test_without_counts_nothing_is_told(make_map: MakeMap) -> None:
    flows = make_map("flows", SIZE)
    collector = Collector(flows, make_map("nat", 8), make_map("fragments", 8), now_j=lambda: NOW, fragment_j=1)
    for number in range(2 * SIZE):
        flows.update(FlowKey(POD, WEB, number, 1, 6).pack(), FlowValue(expires_j=SOON, state=2).pack())
        if number == SIZE:
            collector.collect()
    assert collector.collect().tables["flows"].evicted == 0
    assert not any(collector.evicted.values())


def test_counts_that_two_processors_made_of_one_entry_are_no_evictions_in_a_roomy_map() -> None:
    made = iter([0, 0, 500, 500])
    evictions = Evictions(lambda _: next(made), ("flows",), cpus=2)
    evictions.begin("flows")
    evictions.end("flows", seen=0, kept=0, max_entries=SIZE)
    evictions.begin("flows")
    assert evictions.end("flows", seen=490, kept=490, max_entries=SIZE) == 0


def _split(batch: bytes, count: int) -> list[bytes]:
    size = len(batch) // count
    return [batch[start : start + size] for start in range(0, len(batch), size)]
