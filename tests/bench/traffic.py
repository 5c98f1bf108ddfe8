"""Real packets from pod to pod: by our programs, by the kernel's own routing over the same pairs of veth, and between
two namespaces joined by one veth, in turns.

Streams are iperf3's, one TCP connection. Requests and responses are a byte each way with both ends on one CPU, so the
rate tells what a packet costs and not how fast another CPU wakes. Frames are made by a program in the pod (live frames)
and counted where they arrive, so generating, forwarding and counting share one CPU.

    python -m tests.bench traffic -- --rounds 3          quick
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable
from contextlib import ExitStack

from tests.bench.packet import transfers
from tests.bench.packet.frames import Frames
from tests.bench.packet.node import Node
from tests.bench.packet.world import BARE, A, B, World
from tests.bench.report import Row

Measure = Callable[[str], float]  # destination address -> rate


def main(argv: list[str]) -> list[Row]:
    parser = argparse.ArgumentParser(prog="tests.bench traffic")
    parser.add_argument("--rounds", type=int, default=5, help="each way, of which the median counts")
    parser.add_argument("--seconds", type=int, default=2, help="each round takes; iperf3 knows whole ones only")
    options = parser.parse_args(argv)
    if os.geteuid() != 0:
        return []
    with World() as world:
        ends = world.name("b"), world.name("a")
        rows = []
        for name, unit, measure in (
            ("TCP stream", "Gbit/s", lambda to: transfers.gbit_per_s(*ends, to, options.seconds)),
            ("TCP requests and responses", "1/s", lambda to: transfers.requests_per_s(*ends, to, options.seconds)),
        ):
            rows += _three_ways(world, name, unit, measure, options.rounds)
        return rows + _frames(world, options.rounds)


def _three_ways(world: World, name: str, unit: str, measure: Measure, rounds: int) -> list[Row]:
    ours, plain, bare = [], [], []
    for _ in range(rounds):
        bare.append(measure(BARE[1]))
        plain.append(measure(B.address))
        with Node(world) as node:
            node.attach()
            ours.append(measure(B.address))
    median = statistics.median
    return [
        Row(
            f"traffic: {name}, pod to pod, against plain routing",
            median(ours),
            unit,
            median(plain),
            target="ratio >= 1",
        ),
        Row(f"traffic: {name}, pod to pod, against one veth", median(ours), unit, median(bare), target="ratio >= 0.9"),
    ]


def _frames(world: World, rounds: int) -> list[Row]:
    """Frames a second that arrive, one CPU doing all."""
    rows = []
    with Frames(world) as frames:
        for flows, label in ((1, "1 flow"), (4096, "4k flows")):
            ours, plain = [], []
            for _ in range(rounds):
                plain.append(frames.mpps(A, B, flows))
                with ExitStack() as stack:
                    stack.enter_context(Node(world)).attach()
                    frames.mpps(A, B, flows)  # opens the flows
                    ours.append(frames.mpps(A, B, flows))
            name = f"traffic: live frames, pod to pod, {label}, against ip_forward"
            rows.append(Row(name, statistics.median(ours), "Mpps", statistics.median(plain), target="ratio >= 1"))
    return rows
