"""What programs put into maps that push old entries out is counted, once each: so evictions are known."""

from __future__ import annotations

import pytest
from scapy.layers.l2 import Ether

from datapath import layout
from datapath.conntrack.evictions import created_of
from datapath.conntrack.gc import Collector
from datapath.loader.programs import SkbContext
from tests.datapath.programs.bed import HOST_MAC, REMOTE4, WORLD4, A, B, ProgramBed
from tests.datapath.programs.packets import ip, udp

pytestmark = pytest.mark.root


def test_each_entry_is_counted_once(bed: ProgramBed) -> None:
    created = created_of(bed.maps["created"], layout.CREATED)
    before = {name: created(name) for name in layout.CREATED}

    def new() -> dict[str, int]:
        return {name: created(name) - before[name] for name in layout.CREATED}

    for _ in range(3):
        bed.from_pod(A, ip(A.address4, B.address4) / udp(1, 2))
        bed.from_pod(B, ip(B.address4, A.address4) / udp(2, 1))
    assert new() == {"flows": 1, "nat": 0, "fragments": 0}
    for _ in range(2):
        bed.from_pod(A, ip(A.address4, WORLD4) / udp(1000, 53))
        bed.new_generation()
    assert new() == {"flows": 2, "nat": 2, "fragments": 0}, "the way out and the way back"
    bed.expire(ip(A.address4, B.address4) / udp(1, 2))
    bed.from_pod(A, ip(A.address4, B.address4) / udp(1, 2))
    assert new()["flows"] == 2, "one that takes the place of an expired one is no more"
    for number in (7, 7, 8):
        bed.from_pod(A, ip(A.address4, REMOTE4, flags="MF", id=number) / udp(5, 6))
    assert new()["fragments"] == 2


def test_what_a_full_table_of_flows_pushed_out_is_known() -> None:
    with ProgramBed(names=("pod",), sizes={"flows": 1024}) as bed:
        maps = bed.maps
        collector = Collector(
            maps["flows"], maps["nat"], maps["fragments"], now_j=bed.clock.now_j, fragment_j=1,
            created=created_of(maps["created"], layout.CREATED),
        )  # fmt: skip
        collector.collect()
        frame = bytearray(bytes(Ether(src=A.mac, dst=HOST_MAC) / ip(A.address4, B.address4) / udp(1, 2)))
        context = SkbContext(ifindex=bed.ifindex["plma"]).pack()
        for port in range(1, 2001):
            frame[34:36] = port.to_bytes(2, "big")
            bed.programs["from_pod"].test_run(bytes(frame), context=context)
        table = collector.collect().tables["flows"]
        present = table.entries + table.deleted
        assert present <= table.max_entries
        assert table.evicted == 2000 - present
