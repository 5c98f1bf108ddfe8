"""The collector over a million connections in the kernel: one in twenty has expired, or none.

Beside it the plain way: walk the map key by key, look each entry up, compare its end.
"""

from __future__ import annotations

import argparse
import statistics
import struct
import sys
import time
from typing import Final

from datapath.conntrack.gc import Collector
from datapath.layout import Flow, FlowKey, Fragment, FragmentKey, Nat, NatKey, address_bytes
from datapath.loader.maps import LRU_HASH, Map
from tests.bench.report import Row

_BATCH: Final = 50_000
_FEW: Final = 50_000  # what the plain way is measured with; it takes as long for each entry whatever their number
_LATER: Final = 1 << 30
_ONE_IN: Final = 20


def main(argv: list[str]) -> list[Row]:
    parser = argparse.ArgumentParser(prog="tests.bench gc")
    parser.add_argument("--count", type=int, default=1_000_000, help="connections")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(argv)
    count: int = options.count
    # A fifth more than are put in: an LRU map gives up old entries a little before it is full.
    with (
        Map.create(LRU_HASH, FlowKey.SIZE, Flow.SIZE, count + count // 5, name="bench_flows") as flows,
        Map.create(LRU_HASH, FlowKey.SIZE, Flow.SIZE, 2 * _FEW, name="bench_few") as few,
        Map.create(LRU_HASH, NatKey.SIZE, Nat.SIZE, 1024, name="bench_nat") as nat,
        Map.create(LRU_HASH, FragmentKey.SIZE, Fragment.SIZE, 1024, name="bench_frags") as fragments,
    ):
        collector = Collector(flows, nat, fragments, now_j=lambda: 1000, fragment_j=1)
        _fill(few, _FEW, 0)
        idle, busy, plain = [], [], []
        for _ in range(options.rounds):
            _fill(flows, count, 0)
            idle.append(_pass(collector, count, 0))
            _fill(flows, count, _ONE_IN)
            busy.append(_pass(collector, count, count // _ONE_IN))
            plain.append(_walk(few) * count / _FEW)
    baseline = statistics.median(plain)
    name = f"ctgc: CPU of a pass over {count:,} flows"
    return [
        Row(f"{name}, 1 in {_ONE_IN} expired", statistics.median(busy), "s", baseline, target="<= 1"),
        Row(f"{name}, none expired", statistics.median(idle), "s", baseline, target="<= 1"),
    ]  # fmt: skip


def _pass(collector: Collector, count: int, expired: int) -> float:
    done = collector.collect()
    table = done.tables["flows"]
    if table.expired != expired or table.entries != count - expired:
        raise RuntimeError(f"the pass found {table}, not {count} flows of which {expired} have expired")
    return done.cpu_seconds


def _fill(flows: Map, count: int, one_in: int) -> None:
    """`one_in` 0: none has expired."""
    low, high = address_bytes("10.0.0.1")[:14], address_bytes("192.0.2.1")
    live, over = Flow(expires_j=1000 + _LATER, state=2).pack(), Flow(expires_j=999, state=2).pack()
    for start in range(0, count, _BATCH):
        numbers = range(start, min(start + _BATCH, count))
        keys = b"".join(
            low + struct.pack("!H", n >> 16) + high + struct.pack("!HHB3x", n & 0xFFFF, 443, 6 if n % 3 else 17)
            for n in numbers
        )
        values = b"".join(over if one_in and n % one_in == 0 else live for n in numbers)
        flows.update_batch(keys, values, len(numbers))


def _walk(flows: Map) -> float:
    began = time.process_time()
    found = 0
    key = flows.next_key(None)
    while key is not None:
        value = flows.lookup(key)
        if value is not None and (int.from_bytes(value[:4], sys.byteorder) - 1000) & 0x80000000:
            found += 1
        key = flows.next_key(key)
    if found:
        raise RuntimeError("entries expired by themselves")
    return time.process_time() - began
