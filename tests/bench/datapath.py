"""The time each packet takes in the eBPF programs: BPF test runs on real maps and devices; traffic.py has real traffic.

The figures are net nanoseconds: a wrapper restores the packet and changes the flow each time, and what that costs is
taken off (packet/). Cilium's are those published for 1.19.4 on a machine of this kind, in the same cases with the same
method: maps of 512 k flows as ours are, but for new flows, where both have a full one of 8 k.

    python -m tests.bench datapath -- --rounds 3         quick
"""

from __future__ import annotations

import argparse
import os
import statistics
from dataclasses import replace

from tests.bench.packet.flows import Flows
from tests.bench.packet.node import Node
from tests.bench.packet.plan import EACH_NEW, SYN
from tests.bench.packet.runs import DROP, REDIRECT, Runs
from tests.bench.packet.world import OUTSIDE, REMOTE_POD, World
from tests.bench.report import Row

MANY_RULES, MANY_ADDRESSES = 1000, 10_000
# Cilium's programs at pods were measured with a connection table of this size, full.
CILIUMS_FLOWS = 8192
WITH_MANY = f"with {MANY_RULES:,} rules and {MANY_ADDRESSES:,} addresses"


def main(argv: list[str]) -> list[Row]:
    parser = argparse.ArgumentParser(prog="tests.bench datapath")
    parser.add_argument("--rounds", type=int, default=9, help="each measurement's, of which the median counts")
    options = parser.parse_args(argv)
    if os.geteuid() != 0:
        return []
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cpus)})
    try:
        return test_runs(options.rounds)
    finally:
        os.sched_setaffinity(0, cpus)


def test_runs(rounds: int) -> list[Row]:
    """Each part on maps of its own: flows that came and went leave entries scattered over memory (see `_worn`)."""
    rows: list[Row] = []
    with World() as world, world.inside("node"), Runs() as runs:
        with Node(world) as node:
            flows = Flows(world, node, runs)
            rows += _established(flows, runs, rounds)
            rows += _refused(flows, runs, rounds)
        with Node(world) as node:
            flows = Flows(world, node, runs)
            node.know_addresses(MANY_ADDRESSES)
            node.set_policies(MANY_RULES)
            rows += _with_many(flows, runs, rounds)
        with Node(world, flows=CILIUMS_FLOWS) as node:
            flows = Flows(world, node, runs)
            rows.append(_new(flows, runs, node, rounds, "", 1504, "<= 900"))
            node.know_addresses(MANY_ADDRESSES)
            node.set_policies(MANY_RULES)
            rows.append(_new(flows, runs, node, rounds, f" {WITH_MANY}", 1691))
        with Node(world) as node:
            flows = Flows(world, node, runs)
            rows.append(_new(flows, runs, node, rounds, ", 512k in the map"))
            rows.append(_worn(flows, runs, rounds))
    return rows


def _established(flows: Flows, runs: Runs, rounds: int) -> list[Row]:
    rows = []
    for count, label, cilium, target in ((1, "1 flow", 771, ""), (4096, "4k flows", 788, "<= 200")):
        plan = flows.between_pods(count)
        local = runs.time(flows.from_pod, plan, flows.a, rounds=rounds).only(REDIRECT)
        rows.append(_row(f"pod to pod, policy both ways, {label}", local, cilium, target))
    rows.append(_remote(flows, runs, rounds))
    for count, label, cilium, target in ((1, "1 flow", 396, ""), (4096, "4k flows", 420, "<= 200")):
        plan = flows.outwards(OUTSIDE, count)
        took = runs.time(flows.from_pod, plan, flows.a, rounds=rounds).only(REDIRECT)
        rows.append(_row(f"pod to outside, masqueraded, {label}", took, cilium, target))
    for count, ipv6, label in ((4096, True, "IPv6, 4k flows"), (262144, False, "policy both ways, 256k flows")):
        plan = flows.between_pods(count, ipv6=ipv6)
        took = runs.time(flows.from_pod, plan, flows.a, rounds=rounds).only(REDIRECT)
        rows.append(_row(f"pod to pod, {label}", took))
    return rows


def _remote(flows: Flows, runs: Runs, rounds: int) -> Row:
    """Both in turns: they differ by less than a machine does from minute to minute."""
    plans = flows.between_pods(4096), flows.outwards(REMOTE_POD, 4096)
    local, remote = zip(
        *([runs.time(flows.from_pod, plan, flows.a, rounds=1).only(REDIRECT) for plan in plans] for _ in range(rounds)),
        strict=True,
    )
    name = "datapath: pod to remote pod, 4k flows, against one on this node"
    return Row(name, statistics.median(remote), "ns", statistics.median(local), target="ratio <= 1")


def _refused(flows: Flows, runs: Runs, rounds: int) -> list[Row]:
    plan = flows.denied(4096)
    again = runs.time(flows.from_pod, plan, flows.a, rounds=rounds).only(DROP)
    first = runs.time(flows.from_pod, replace(plan, flags=SYN), flows.a, rounds=rounds).only(DROP)
    return [
        _row("denied, 4k flows", again, 276, "<= 150"),
        _row("denied, 4k flows, each packet a SYN", first),
    ]


def _with_many(flows: Flows, runs: Runs, rounds: int) -> list[Row]:
    rows = []
    for count, label, cilium, target in ((1, "1 flow", 875, ""), (4096, "4k flows", 902, "<= 220")):
        plan = flows.between_pods(count)
        took = runs.time(flows.from_pod, plan, flows.a, rounds=rounds).only(REDIRECT)
        rows.append(_row(f"pod to pod {WITH_MANY}, {label}", took, cilium, target))
    return rows


def _new(
    flows: Flows, runs: Runs, node: Node, rounds: int, what: str, cilium_ns: float | None = None, target: str = ""
) -> Row:
    """With the map of flows full, so that each new one evicts another."""
    plan = replace(flows.between_pods(EACH_NEW, opened=False), flags=SYN)
    runs.run(flows.from_pod, plan, flows.a, node.flows * 5 // 4)
    took = runs.time(flows.from_pod, plan, flows.a, rounds=rounds).only(REDIRECT)
    return _row(f"pod to pod{what}, each packet a new flow", took, cilium_ns, target)


def _worn(flows: Flows, runs: Runs, rounds: int) -> Row:
    """Established flows whose entries took the places of 512 k others, all over the map's memory."""
    took = runs.time(flows.from_pod, flows.between_pods(4096), flows.a, rounds=rounds).only(REDIRECT)
    return _row("pod to pod, 4k flows in a map that was full", took)


def _row(name: str, took_ns: float, cilium_ns: float | None = None, target: str = "") -> Row:
    beside = " (beside Cilium's)" if cilium_ns else ""
    return Row(f"datapath: {name}{beside}", took_ns, "ns", baseline=cilium_ns, target=target)
