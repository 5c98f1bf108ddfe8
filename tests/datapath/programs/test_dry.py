"""Dry runs of packets beyond those that `plimsoll datapath trace` makes: nothing is sent, written or counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest
from scapy.layers.inet import UDP
from scapy.layers.inet6 import ICMPv6ND_NS, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from datapath import layout
from datapath.loader import objects
from datapath.loader.programs import Program
from tests.datapath.compiled import build_programs
from tests.datapath.programs.bed import HOST_MAC, NODE4, WORLD4, A, B, ProgramBed, Run, forwarded, passed
from tests.datapath.programs.packets import ip, udp, unreachable
from tests.datapath.programs.test_reading import first_and_later

pytestmark = pytest.mark.root
PRIVATE = frozenset({"events", "lost_events", *objects.TRANSIENT})
KEPT = ("flows", "nat", "fragments", "counters")


@pytest.fixture(scope="module")
def programs(loaded: ProgramBed) -> Iterator[dict[str, Program]]:
    """Those of pods and devices, which only say what they would do."""
    config = replace(loaded.config, flags=loaded.config.flags | layout.CONFIG_TRACE)
    sizes = {name: one.max_entries for name, one in loaded.maps.items() if name not in PRIVATE}
    with ExitStack() as undo:
        yield {
            name: program
            for which in ("pod", "device")
            for name, program in undo.enter_context(
                objects.load(
                    objects.find(which, build_programs()), pins=loaded.folder, rodata={"config": config.pack()},
                    private=PRIVATE, sizes=sizes,
                )
            ).programs.items()
        }  # fmt: skip


Dry = Callable[..., Run]


@pytest.fixture
def dry(bed: ProgramBed, programs: dict[str, Program], monkeypatch: pytest.MonkeyPatch) -> Dry:
    """Runs a program so; fails if it has left anything behind."""

    def run(program: str, packet: Packet, *, device: str = "plma", source: str = A.mac) -> Run:
        before = {name: sorted(bed.maps[name].items()) for name in KEPT}
        with monkeypatch.context() as patch:
            patch.setattr(bed, "programs", programs)
            frame = packet if isinstance(packet, Ether) else Ether(src=source, dst=HOST_MAC) / packet
            done = bed.run(program, frame, device=device)
        assert {name: sorted(bed.maps[name].items()) for name in KEPT} == before
        assert (done.counted, done.events) == ({}, ())
        return done

    return run


def test_questions_to_neighbours(dry: Dry) -> None:
    asked = ARP(hwsrc=A.mac, psrc=A.address4, pdst="169.254.1.1")
    assert dry("from_pod", Ether(src=A.mac, dst="ff:ff:ff:ff:ff:ff") / asked).verdict == "drop"
    solicit = IPv6(src=A.address6, dst="ff02::1", hlim=255) / ICMPv6ND_NS(tgt="fe80::1")
    assert dry("from_pod", solicit).verdict == "drop"


def test_fragments(bed: ProgramBed, dry: Dry) -> None:
    first, later = first_and_later(A.address4, B.address4, udp(1000, 53, bytes(32)))
    assert dry("from_pod", first).verdict == "redirect"
    assert dry("from_pod", later).verdict == "drop", "the first was not there"
    forwarded(bed.from_pod(A, first), layout.ACTION_POD, bed, "plmb")
    assert dry("from_pod", later).verdict == "redirect"


def test_by_the_stack(bed: ProgramBed, dry: Dry) -> None:
    packet = ip(NODE4, A.address4) / udp(1000, 53)
    assert dry("to_pod", packet).verdict == "pass"
    passed(bed.to_pod(A, packet), layout.HOOK_TO_POD)
    assert dry("to_pod", packet).verdict == "pass"


def test_what_is_masqueraded_already(bed: ProgramBed, dry: Dry) -> None:
    packet = ip(A.address4, WORLD4) / udp(1000, 53)
    port = forwarded(bed.from_pod(A, packet), layout.ACTION_DEVICE, bed, "ens0").ip[UDP].sport
    assert dry("from_pod", packet).verdict == "redirect"
    [back] = [key for key in bed.nat() if key.direction == layout.NAT_IN]
    entry = bed.nat()[back]
    bed.maps["nat"].delete(back.pack())
    assert dry("from_pod", packet).verdict == "redirect", "the way back would be made again"
    bed.maps["nat"].update(back.pack(), entry.pack())
    answer = ip(WORLD4, NODE4) / udp(53, port)
    got = forwarded(bed.from_device(answer), layout.ACTION_POD, bed, "plma", layout.HOOK_FROM_DEVICE).ip
    assert dry("from_device", answer, device="ens0").verdict == "redirect"
    assert dry("from_device", ip(WORLD4, NODE4, ttl=1) / udp(53, port), device="ens0").verdict == "drop"
    error = ip(A.address4, WORLD4) / unreachable(got)
    assert dry("from_pod", error).verdict == "redirect"
