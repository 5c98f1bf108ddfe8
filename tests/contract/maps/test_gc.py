"""The collector of connections, on maps of memory and of the kernel."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass

import pytest

from datapath import layout
from datapath.conntrack.gc import LONGEST_S, SHORTEST_S, Collector, Pass, Table, next_interval
from datapath.conntrack.scan import FlowKind
from datapath.errors import BpfRefused
from datapath.layout import Flow, FlowKey, Fragment, FragmentKey, Nat, NatKey, Path, address_bytes
from datapath.maps import InnerMap
from tests.contract.maps.conftest import MakeMap

HZ = 250
NOW = 5  # jiffies have just wrapped
FRAGMENT_J = 5 * HZ
TCP, UDP = 6, 17
POD, OTHER, WEB = "10.0.0.5", "10.0.0.6", "192.0.2.80"


@dataclass
class World:
    flows: InnerMap
    nat: InnerMap
    fragments: InnerMap
    collector: Collector
    now_j: int = NOW

    def flow(self, low: str, high: str, port: int, ends_in: int, protocol: int = TCP, state: int = 2) -> bytes:
        key = FlowKey(address_bytes(low), address_bytes(high), port, 443, protocol).pack()
        self.flows.update(key, Flow(expires_j=(self.now_j + ends_in) & 0xFFFFFFFF, state=state).pack())
        return key

    def masqueraded(self, pod: str, port: int, ends_in: int) -> tuple[bytes, bytes]:
        node = address_bytes("198.51.100.1")
        ends = (self.now_j + ends_in) & 0xFFFFFFFF
        out = NatKey(address_bytes(pod), address_bytes(WEB), port, 443, TCP, layout.NAT_OUT).pack()
        self.nat.update(out, Nat(node, 40000 + port, ends).pack())
        back = NatKey(address_bytes(WEB), node, 443, 40000 + port, TCP, layout.NAT_IN).pack()
        self.nat.update(back, Nat(address_bytes(pod), port, ends).pack())
        return out, back

    def fragment(self, source: str, number: int, seen: int) -> bytes:
        key = FragmentKey(address_bytes(source), address_bytes(WEB), number, UDP).pack()
        self.fragments.update(key, Fragment(53, 53, (self.now_j + seen) & 0xFFFFFFFF).pack())
        return key


@pytest.fixture
def world(make_map: MakeMap) -> World:
    flows, nat, fragments = make_map("flows", 16384), make_map("nat", 16384), make_map("fragments", 1024)
    world: World
    collector = Collector(flows, nat, fragments, now_j=lambda: world.now_j, fragment_j=FRAGMENT_J)
    world = World(flows, nat, fragments, collector)
    return world


def test_what_has_expired_goes_and_what_lives_stays(world: World) -> None:
    alive = world.flow(POD, WEB, 1, ends_in=1)
    long_lived = world.flow("fd00::5", "fd00::6", 2, ends_in=HZ * 3600 * 24 * 20)
    just_over = world.flow(POD, WEB, 3, ends_in=-1, state=1)
    before_the_wrap = world.flow(POD, WEB, 4, ends_in=-HZ * 60, protocol=UDP, state=3)
    done = world.collector.collect()
    assert [world.flows.lookup(key) is not None for key in (alive, long_lived)] == [True, True]
    assert [world.flows.lookup(key) for key in (just_over, before_the_wrap)] == [None, None]
    assert done.tables["flows"] == Table(2, 2, 0, 0, 16384)
    assert done.alive == {FlowKind("tcp", 4, "open"): 1, FlowKind("tcp", 6, "open"): 1}
    assert done.expired == {FlowKind("tcp", 4, "opening"): 1, FlowKind("udp", 4, "closing"): 1}
    assert world.collector.deleted["flows", "expired"] == 2
    again = world.collector.collect()
    assert again.tables["flows"].deleted == 0
    assert world.collector.passes == 2
    assert world.collector.last is again


def test_many_batches(world: World) -> None:
    for number in range(10_000):
        world.flow(POD, WEB, number, ends_in=-1 if number % 3 == 0 else 100)
    done = world.collector.collect()
    assert done.tables["flows"] == Table(6666, 3334, 0, 0, 16384)
    assert done.alive == {FlowKind("tcp", 4, "open"): 6666}
    assert sum(count for _, _, count in world.flows.keys_batches()) == 6666


def test_masquerade_and_fragments_go_too(world: World) -> None:
    kept, gone = world.masqueraded(POD, 1, ends_in=5), world.masqueraded(POD, 2, ends_in=-5)
    recent, stale = world.fragment(POD, 1, seen=-FRAGMENT_J), world.fragment(POD, 2, seen=-FRAGMENT_J - 1)
    done = world.collector.collect()
    assert all(world.nat.lookup(key) for key in kept)
    assert not any(world.nat.lookup(key) for key in gone)
    assert world.fragments.lookup(recent) is not None
    assert world.fragments.lookup(stale) is None
    assert done.tables["nat"] == Table(2, 2, 0, 0, 16384)
    assert done.tables["fragments"] == Table(1, 1, 0, 0, 1024)


def test_connections_of_a_pod_that_is_gone(world: World) -> None:
    mine = [world.flow(POD, WEB, 1, 100), world.flow("10.0.0.4", POD, 2, 100), world.flow(POD, WEB, 3, -1)]
    others = [world.flow("10.0.0.4", OTHER, 4, 100), world.flow("10.0.0.55", WEB, 5, 100)]
    translated, foreign = world.masqueraded(POD, 6, 100), world.masqueraded(OTHER, 7, 100)
    fragment = world.fragment(POD, 1, seen=0)
    world.collector.forget_address(address_bytes(POD))
    done = world.collector.collect()
    assert not any(world.flows.lookup(key) for key in mine)
    assert all(world.flows.lookup(key) for key in others)
    assert not any(world.nat.lookup(key) for key in translated)
    assert all(world.nat.lookup(key) for key in foreign)
    assert world.fragments.lookup(fragment) is None
    assert done.tables["flows"] == Table(2, 1, 2, 0, 16384)
    world.flow(POD, WEB, 1, 100)
    assert world.collector.collect().tables["flows"].forgotten == 0, "asked once, done once"


def test_an_address_whose_bytes_lie_across_fields_is_not_mistaken(world: World) -> None:
    # The end of one address and the beginning of the next, read together, are the one that is to be forgotten.
    world.flow("fd00::a00:5", "::ffff:a00:5", 1, 100)
    key = FlowKey(bytes(8) + b"\1" * 8, b"\2" * 8 + bytes(8), 1, 2, TCP).pack()
    world.flows.update(key, Flow(expires_j=1000, state=2).pack())
    world.collector.forget_address(b"\1" * 8 + b"\2" * 8)
    assert world.collector.collect().tables["flows"].forgotten == 0


class Meddling:
    """A map in which something happens between reading a batch and what follows."""

    def __init__(self, inner: InnerMap, meddle: object) -> None:
        self._inner, self._meddle = inner, meddle

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def keys_batches(self, size: int = 4096):  # type: ignore[no-untyped-def]
        for batch in self._inner.keys_batches(size):
            self._meddle()  # type: ignore[operator]
            yield batch


def test_a_masqueraded_connection_that_wakes_up_in_between_is_kept(world: World) -> None:
    world.masqueraded(POD, 1, ends_in=-5)
    nat = Meddling(world.nat, lambda: world.masqueraded(POD, 1, ends_in=500))
    collector = Collector(world.flows, nat, world.fragments, now_j=lambda: NOW, fragment_j=1)  # type: ignore[arg-type]
    done = collector.collect()
    assert done.tables["nat"] == Table(2, 0, 0, 2, 16384)


def masqueraded_flow(world: World, pod: str, port: int, ends_in: int) -> bytes:
    """With translations that would live for hours."""
    world.masqueraded(pod, port, ends_in=HZ * 20000)
    key = FlowKey(address_bytes(pod), address_bytes(WEB), port, 443, TCP)
    path = Path(flags=layout.PATH_NAT, nat_address=address_bytes("198.51.100.1"), nat_port=40000 + port)
    flow = Flow((world.now_j + ends_in) & 0xFFFFFFFF, state=3, flags=layout.FLOW_NAT, from_low=path)
    world.flows.update(key.pack(), flow.pack())
    return key.pack()


def test_translations_go_with_their_flow(world: World) -> None:
    closed, alive = masqueraded_flow(world, POD, 1, -1), masqueraded_flow(world, POD, 2, 10)
    plain = world.flow(OTHER, WEB, 3, -1)
    done = world.collector.collect()
    assert [world.flows.lookup(key) is not None for key in (closed, alive, plain)] == [False, True, False]
    assert done.tables["flows"] == Table(1, 2, 0, 0, 16384)
    assert done.tables["nat"] == Table(2, 0, 0, 0, 16384)
    assert world.collector.deleted["nat", "released"] == 2
    assert done.expired == {FlowKind("tcp", 4, "closing"): 1, FlowKind("tcp", 4, "open"): 1}


def test_a_masqueraded_flow_that_wakes_up_in_between_is_kept_whole(world: World) -> None:
    key = masqueraded_flow(world, POD, 1, -1)
    lost = world.flow(OTHER, WEB, 3, -1)
    flows = Meddling(world.flows, lambda: (masqueraded_flow(world, POD, 1, 10), world.flow(OTHER, WEB, 3, 10)))
    collector = Collector(flows, world.nat, world.fragments, now_j=lambda: NOW, fragment_j=1)  # type: ignore[arg-type]
    done = collector.collect()
    assert world.flows.lookup(key) is not None
    assert done.tables["flows"].revived == 1
    assert done.tables["nat"].entries == 2
    assert done.alive == {FlowKind("tcp", 4, "closing"): 1}
    assert world.flows.lookup(lost) is None, "the harm that is put up with: it is decided anew"


def test_what_disappears_in_between_is_no_error(world: World) -> None:
    keys = [world.flow(POD, WEB, number, ends_in=-1) for number in range(10)]
    out, _ = world.masqueraded(POD, 1, ends_in=-5)
    flows = Meddling(world.flows, lambda: [world.flows.delete(key) for key in keys[:4]])
    nat = Meddling(world.nat, lambda: world.nat.delete(out))
    collector = Collector(flows, nat, world.fragments, now_j=lambda: NOW, fragment_j=1)  # type: ignore[arg-type]
    done = collector.collect()
    assert done.tables["flows"].expired == 6
    assert done.tables["nat"].expired == 1


def test_a_full_map_lets_old_connections_go_and_says_so(make_map: MakeMap) -> None:
    """What the programs rely on: a new flow always finds room; and people are told by the pressure."""
    flows, nat, fragments = make_map("flows", 2048), make_map("nat"), make_map("fragments")
    told: list[Pass] = []
    collector = Collector(flows, nat, fragments, now_j=lambda: NOW, fragment_j=1, told=told.append)
    world = World(flows, nat, fragments, collector)
    for number in range(6000):
        newest = world.flow(POD, WEB, number, ends_in=1000)
    assert flows.lookup(newest) is not None
    done = collector.collect()
    assert done.tables["flows"].entries <= 2048
    assert done.tables["flows"].pressure > 0.5
    assert collector.interval_s == SHORTEST_S


@pytest.mark.parametrize(
    ("what", "before", "entries", "expired", "cpu", "expected"),
    [
        ("nothing happens: seldom", 100, 1000, 0, 0.0, 120),
        ("and not for ever seldomer", LONGEST_S, 1000, 0, 0.0, LONGEST_S),
        ("an empty node", 10, 0, 0, 0.0, 15),
        ("some expire: as before", 40, 900, 100, 0.0, 40),
        ("many expire: more often", 40, 500, 500, 0.0, 20),
        ("the map is nearly full: more often", 40, 9500, 1, 0.0, 20),
        ("never too often", SHORTEST_S, 500, 500, 0.0, SHORTEST_S),
        ("a large map costs no more than a twentieth of a core", SHORTEST_S, 500, 500, 0.8, 16),
        ("whatever it costs, it is done", SHORTEST_S, 500, 500, 60.0, LONGEST_S),
    ],
)
def test_how_long_to_the_next_pass(
    what: str, before: float, entries: int, expired: int, cpu: float, expected: float
) -> None:
    done = Pass({"flows": Table(entries, expired, 0, 0, 10_000)}, {}, {}, cpu, cpu)
    assert next_interval(before, done) == pytest.approx(expected), what


async def test_it_runs_beside_the_event_loop(world: World) -> None:
    passes: list[tuple[Pass, int]] = []
    seen = asyncio.Event()
    loop = asyncio.get_running_loop()

    def told(done: Pass) -> None:
        passes.append((done, threading.get_ident()))
        loop.call_soon_threadsafe(seen.set)

    collector = Collector(world.flows, world.nat, world.fragments, now_j=lambda: NOW, fragment_j=1, told=told)
    world.flow(POD, WEB, 1, ends_in=-1)
    running = asyncio.create_task(collector.run())
    await asyncio.wait_for(seen.wait(), 10)
    seen.clear()
    assert passes[0][0].tables["flows"].expired == 1
    assert passes[0][1] != threading.get_ident(), "the loop is not blocked"
    world.flow(POD, WEB, 2, ends_in=100)
    collector.forget_address(address_bytes(POD))
    await asyncio.wait_for(seen.wait(), 10)
    assert passes[1][0].tables["flows"].forgotten == 1, "does not wait for the interval"
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    collector.forget_address(address_bytes(POD))


async def test_a_pass_that_fails_is_told_and_tried_again(world: World) -> None:
    def refuse() -> None:
        raise BpfRefused("read map flows", 1)

    flows = Meddling(world.flows, refuse)
    world.flow(POD, WEB, 1, ends_in=-1)
    collector = Collector(flows, world.nat, world.fragments, now_j=lambda: NOW, fragment_j=1)  # type: ignore[arg-type]
    running = asyncio.create_task(collector.run())
    async with asyncio.timeout(10):
        while not collector.problem:  # noqa: ASYNC110  it tells nobody
            await asyncio.sleep(0.01)
    assert "read map flows" in collector.problem
    assert not running.done()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
