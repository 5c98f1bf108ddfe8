"""What it costs the daemon to read 50,000 events a second: the programs' own ring buffer, filled by dropped packets.

Shares of a core, of the reading thread's time: while nobody watches, with a reader that filters by pod, address, port
and verdict, with four of those, and with one whose lines are added up besides.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Final

from scapy.layers.l2 import Ether

from datapath.events.aggregate import Aggregator
from datapath.events.filters import Filter, compile_filter
from datapath.events.hub import EventHub
from datapath.events.testing import FakeNames
from datapath.loader.programs import SkbContext
from tests.bench.report import Row
from tests.datapath.programs.bed import HOST_MAC, A, B, ProgramBed
from tests.datapath.programs.packets import ip, tcp

RATE: Final = 50_000
# What the ring of 4 MiB holds at once.
AT_ONCE: Final = 15_000


def main(argv: list[str]) -> list[Row]:
    parser = argparse.ArgumentParser(prog="tests.bench events")
    parser.add_argument("--rounds", type=int, default=9, help="each measurement's, of which the median counts")
    options = parser.parse_args(argv)
    if os.geteuid() != 0:
        return []
    with ProgramBed() as bed:
        bed.set_runtime(drop_events_per_tick=1_000_000)
        bench = _Bench(bed)
        return [
            _row("while nobody watches", bench.share(0, options.rounds)),
            _row("one reader with four kinds of filter", bench.share(1, options.rounds), "<= 0.5"),
            _row("four such readers", bench.share(4, options.rounds)),
            _row("one such reader, alike events added up", bench.share(1, options.rounds, added_up=True), "<= 0.5"),
        ]


def _row(name: str, value: float, target: str = "") -> Row:
    return Row(f"events: {RATE:,} a second, {name}", value, "cores", target=target)


class _Bench:
    def __init__(self, bed: ProgramBed) -> None:
        self._bed = bed
        # The MAC is another pod's: every packet is dropped and told of.
        self._frame = bytes(Ether(src=B.mac, dst=HOST_MAC) / ip(A.address4, B.address4) / tcp(4000, 80, "S"))
        self._context = SkbContext(ifindex=bed.ifindex["plma"]).pack()
        names = FakeNames({A.address4: "shop/a"}, {bed.ifindex["plma"]: ("plma", "shop/a")})
        wanted = Filter(pods=("shop/a",), verdicts=("dropped",), ports=(80,), addresses=("10.0.0.0/8",))
        self._test = compile_filter(wanted, names)

    def share(self, readers: int, rounds: int, *, added_up: bool = False) -> float:
        """Cores that RATE events a second take."""
        hub = EventHub(self._bed.ring)
        with ExitStack() as stack:
            subscriptions = [stack.enter_context(hub.subscribe(self._test, capacity=AT_ONCE)) for _ in range(readers)]
            found = []
            for _ in range(rounds):
                self._bed.programs["from_pod"].test_run(self._frame, context=self._context, repeat=AT_ONCE)
                began_s, read = time.thread_time(), 0
                while count := hub.read_once():
                    read += count
                if added_up:
                    _consume(Aggregator(1.0).add(subscriptions[0].take(AT_ONCE).events, 0.0))
                took_s = time.thread_time() - began_s
                assert read == AT_ONCE, f"{read} of {AT_ONCE} events were read"
                for one in subscriptions:
                    one.take(AT_ONCE)
                found.append(took_s / read * RATE)
        return statistics.median(found)


def _consume(lines: Iterable[object]) -> None:
    for _ in lines:
        pass
