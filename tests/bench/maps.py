"""100,000 entries brought into the kernel's maps: addresses in batches beside one call for each, and by the address
book.

The book's rows are what the daemon does after a restart and for one pod that comes.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Final

from datapath import layout
from datapath.identities.addresses import NODES, AddressBook
from datapath.identities.cidrs import CidrTable
from datapath.identities.model import Change, ClusterEndpoint, ClusterNode, ClusterState
from datapath.layout import Target, address_bytes
from datapath.loader import maps
from datapath.loader.maps import Map
from datapath.maps import MapLike
from datapath.policy.model import Direction, EndpointPolicy, Rule, Verdict
from datapath.policy.writer import PolicyWriter
from tests.bench.report import Row

_NODES: Final = 200
_ENDPOINTS: Final = 100


def main(argv: list[str]) -> list[Row]:
    parser = argparse.ArgumentParser(prog="tests.bench maps")
    parser.add_argument("--count", type=int, default=100_000, help="addresses")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(argv)
    count: int = options.count
    keys, values = _entries(count)
    state = _cluster(count)
    rounds = [_round(count, keys, values, state) for _ in range(options.rounds)]
    batch, plain, first, again, one, policies, one_by_one = (
        statistics.median(column) for column in zip(*rounds, strict=True)
    )
    return [
        Row(f"maps: {count:,} addresses updated in batches", batch, "s", plain, target="<= 0.3"),
        Row(f"maps: {count:,} addresses of a cluster brought in", first, "s"),
        Row("maps: the same after a restart, all there already", again, "s"),
        Row(f"maps: one pod among {count:,}", one * 1e6, "us"),
        Row(f"maps: policies of {_ENDPOINTS} pods, 10 rules each", policies * 1e3, "ms", one_by_one * 1e3),
    ]


def _round(count: int, keys: list[bytes], values: list[bytes], state: ClusterState) -> tuple[float, ...]:
    """Everything once, in turns with the baselines, so that the machine's other work strikes all alike."""
    with _addresses(count) as addresses:
        batch = _timed(lambda: addresses.update_batch(b"".join(keys), b"".join(values), count))
    with _addresses(count) as addresses:
        plain = _timed(lambda: _each(addresses, keys, values))
    with (
        _addresses(count) as held,
        Map.create(maps.LPM_TRIE, layout.CIDR_KEY_SIZE, Target.SIZE, 1024, flags=maps.NO_PREALLOC) as cidrs,
        Map.create(maps.ARRAY, 4, layout.NODE_SIZE, 16384) as nodes,
    ):
        first = _timed(lambda: _book(held, cidrs, nodes).take(state))
        again = _timed(lambda: _book(held, cidrs, nodes).take(state))
        book = _book(held, cidrs, nodes)
        book.take(state)
        one = _timed(lambda: book.take(_one_pod(state)))
    at_once, one_by_one = _timed(lambda: _policies(at_once=True)), _timed(lambda: _policies(at_once=False))
    return batch, plain, first, again, one, at_once, one_by_one


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _addresses(count: int) -> Map:
    return Map.create(maps.HASH, 16, Target.SIZE, count + 4096, flags=maps.NO_PREALLOC, name="addresses")


def _address(number: int) -> str:
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"


def _entries(count: int) -> tuple[list[bytes], list[bytes]]:
    keys = [address_bytes(_address(number)) for number in range(count)]
    values = [Target(layout.TARGET_REMOTE_POD, identity=256 + number % 1000).pack() for number in range(count)]
    return keys, values


def _each(addresses: Map, keys: list[bytes], values: list[bytes]) -> None:
    for key, value in zip(keys, values, strict=True):
        addresses.update(key, value)


def _cluster(count: int) -> ClusterState:
    nodes = {
        name: ClusterNode(name, (f"192.168.{number >> 8}.{number & 255}",), routing_mode="tunnel")
        for number, name in ((number, f"node-{number}") for number in range(_NODES))
    }
    endpoints = {}
    for number in range(count):
        pod = ClusterEndpoint(f"node-{number % _NODES}", f"{number}/eth0", (_address(number),), 256 + number % 1000)
        endpoints[pod.key] = pod
    return ClusterState(nodes, endpoints, whole=True)


def _one_pod(state: ClusterState) -> ClusterState:
    pod = ClusterEndpoint("node-1", "new/eth0", ("10.200.0.1",), 300)
    return ClusterState(state.nodes, state.endpoints, {}, {pod.key: Change(None, pod)})


def _book(addresses: MapLike, cidrs: MapLike, nodes: MapLike) -> AddressBook:
    return AddressBook(addresses, CidrTable(cidrs, (NODES,)), nodes, "none of them", "tunnel")


def _policies(*, at_once: bool) -> None:
    rules = frozenset(
        Rule(number, Direction.INGRESS, Verdict.ALLOW, 256 + number, 6, 8000 + number, 8000 + number)
        for number in range(1, 11)
    )
    wanted = {number: EndpointPolicy(rules) for number in range(1, _ENDPOINTS + 1)}
    with (
        _inner() as template,
        Map.create(maps.HASH_OF_MAPS, 4, 4, 4096, flags=maps.NO_PREALLOC, name="policies", inner=template) as outer,
    ):
        writer = PolicyWriter(outer, _inner)
        if at_once:
            writer.apply(wanted)
            return
        for number in wanted:
            writer.apply({known: policy for known, policy in wanted.items() if known <= number})


def _inner() -> Map:
    return Map.create(
        maps.LPM_TRIE, layout.POLICY_KEY_SIZE, layout.POLICY_SIZE, 16384, flags=maps.NO_PREALLOC, name="policy"
    )
