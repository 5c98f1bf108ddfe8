"""bpf/xdp.bpf.c: frames through the program, and real packets on their way to a node.

client ── lan0 ─────── ens5 (XDP) node
192.0.2.9, 192.0.2.10             192.0.2.1
2001:db8::9                       2001:db8::1
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from datapath.errors import InvalidRange, OwnRange
from datapath.layout import DROP_PREFILTER, DROP_REASONS, HOOK_XDP, Counter, Event, Runtime, address_text
from datapath.loader.links import pinned
from datapath.loader.maps import Map
from datapath.loader.ringbuf import RingReader
from datapath.prefilter import layout
from datapath.prefilter.layout import PrefilterCidr4, PrefilterCidr6, PrefilterRule, PrefilterSettings
from datapath.prefilter.prefilter import Prefilter
from tests.datapath.compiled import ROOT, bpf_folder, build_programs
from tests.datapath.layouts import assert_alike
from tests.datapath.spaces import Spaces

pytestmark = [pytest.mark.root, pytest.mark.tool("clang-19", "bpftool", "make")]

PASS, DROP = 2, 1
MAC = "02:00:00:00:00:01"
# Named, or scapy asks the network for the destination's, and waits for a second.
LINK = Ether(src=MAC, dst=MAC)
SIZES = {"events": 1 << 16, "flows": 1024, "nat": 1024, "addresses": 1024}
OWN = ("192.0.2.1", "192.0.2.254", "2001:db8::1")
EVERYTHING = ["198.51.100.0/24", "198.51.0.0/16", "203.0.113.7", "2001:db8:bad::/48", "2001:db8:1::7"]


@pytest.fixture
def folder() -> Iterator[Path]:
    with bpf_folder() as one:
        yield one


@pytest.fixture
def prefilter(folder: Path) -> Iterator[Prefilter]:
    with opened(folder) as one:
        yield one


def opened(folder: Path) -> Prefilter:
    return Prefilter.opened(folder, lambda: OWN, object_path=build_programs() / "xdp.bpf.o", sizes=SIZES)


def run(prefilter: Prefilter, frame: Packet | bytes) -> int:
    """The verdict; the frame must be as it was."""
    data = bytes(frame)
    done = prefilter._loaded.programs["prefilter"].test_run(data)
    assert done.packet == data
    return done.retval


def counted(folder: Path, reason: int) -> Counter:
    with Map.pinned(folder / "maps" / "counters") as counters:
        index = HOOK_XDP * DROP_REASONS + reason
        each = list(Counter.unpack_all(counters.lookup(index.to_bytes(4, "little")) or b""))
    return Counter(sum(one.packets for one in each), sum(one.byte_count for one in each))


def four(source: str) -> Packet:
    return IP(src=source, dst="192.0.2.1") / UDP(sport=1000, dport=53) / Raw(b"x" * 40)


def six(source: str) -> Packet:
    return IPv6(src=source, dst="2001:db8::1") / TCP(sport=1000, dport=80) / Raw(b"x" * 40)


def test_mirrors_are_alike() -> None:
    path = build_programs() / "xdp.bpf.o"
    assert_alike(path, PrefilterCidr4, PrefilterCidr6, PrefilterRule, PrefilterSettings)
    header = (ROOT / "bpf/include/prefilter.h").read_text()
    assert dict(re.findall(r"#define (PREFILTER_\w+MAX) (\d+)", header)) == {
        "PREFILTER_RULES_MAX": str(layout.PREFILTER_RULES_MAX)
    }


@pytest.mark.parametrize(
    ("frame", "verdict"),
    [
        pytest.param(LINK / four("198.51.100.1"), DROP, id="in an IPv4 range"),
        pytest.param(LINK / four("198.51.200.1"), DROP, id="in the wider one"),
        pytest.param(LINK / four("198.52.0.1"), PASS, id="beside the range"),
        pytest.param(LINK / four("203.0.113.7"), DROP, id="a single address"),
        pytest.param(LINK / four("203.0.113.8"), PASS, id="the one beside it"),
        pytest.param(LINK / IP(src="192.0.2.9", dst="203.0.113.7") / UDP(), PASS, id="to it, not from it"),
        pytest.param(LINK / six("2001:db8:bad:1::1"), DROP, id="in an IPv6 range"),
        pytest.param(LINK / six("2001:db8:bae::1"), PASS, id="beside it"),
        pytest.param(LINK / six("2001:db8:1::7"), DROP, id="a single IPv6 address"),
        pytest.param(LINK / six("2001:db8:1::8"), PASS, id="the IPv6 one beside it"),
        pytest.param(LINK / Dot1Q(vlan=5) / four("203.0.113.7"), DROP, id="behind a VLAN tag"),
        pytest.param(LINK / Dot1AD(vlan=5) / Dot1Q(vlan=6) / six("2001:db8:bad::1"), DROP, id="behind two"),
        pytest.param(LINK / Dot1Q(vlan=5) / four("192.0.2.9"), PASS, id="behind a tag, not denied"),
        pytest.param(LINK / Dot1Q() / Dot1Q() / Dot1Q() / four("203.0.113.7"), PASS, id="behind three: not read"),
        pytest.param(LINK / IP(src="203.0.113.7", frag=100) / Raw(b"x" * 40), DROP, id="a later fragment"),
        pytest.param(LINK / IP(src="203.0.113.7", options=b"\x01" * 40) / TCP(), DROP, id="with IPv4 options"),
        pytest.param(LINK / IPv6(src="2001:db8:1::7") / IPv6ExtHdrFragment() / UDP(), DROP, id="an IPv6 fragment"),
        pytest.param(LINK / ARP(psrc="203.0.113.7"), PASS, id="ARP"),
        pytest.param(Ether(src=MAC, dst=MAC, type=0x88CC) / Raw(b"x" * 60), PASS, id="LLDP"),
        pytest.param(Ether(src=MAC, dst=MAC, type=0x0800) / Raw(b"\x65" + bytes(59)), PASS, id="IPv4 of version 6"),
        pytest.param(Ether(src=MAC, dst=MAC, type=0x86DD) / Raw(b"\x45" + bytes(59)), PASS, id="IPv6 of version 4"),
    ],
)
def test_frames(prefilter: Prefilter, frame: Packet, verdict: int) -> None:
    prefilter.add(EVERYTHING)
    assert run(prefilter, frame) == verdict


@pytest.mark.parametrize("frame", [LINK / four("203.0.113.7"), LINK / Dot1Q() / six("2001:db8:1::7")])
def test_a_truncated_frame_is_dropped_only_if_its_source_can_be_read(prefilter: Prefilter, frame: Packet) -> None:
    prefilter.add(EVERYTHING)
    data = bytes(frame)
    header_end = 14 + 20 if frame.haslayer(IP) else 18 + 40
    for length in range(14, len(data)):
        assert run(prefilter, data[:length]) == (DROP if length >= header_end else PASS), length


def test_random_frames_pass_or_are_dropped_and_are_never_changed(prefilter: Prefilter) -> None:
    prefilter.add(EVERYTHING)
    chance = random.Random(4)
    seeds = [bytes(LINK / four("203.0.113.7")), bytes(LINK / Dot1Q() / six("2001:db8:bad::1"))]
    for _ in range(3000):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randrange(4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if chance.random() < 0.3:
            data = bytearray(chance.randbytes(chance.randrange(14, 200)))
        if chance.random() < 0.3:
            data = data[: chance.randrange(14, len(data) + 1)]
        assert run(prefilter, bytes(data)) in (PASS, DROP)


def test_without_rules_everything_passes(prefilter: Prefilter) -> None:
    for frame in (four("203.0.113.7"), six("2001:db8:1::7")):
        assert run(prefilter, LINK / frame) == PASS
    prefilter.add(["203.0.113.7"])
    prefilter.delete(["203.0.113.7"])
    assert run(prefilter, LINK / four("203.0.113.7")) == PASS


def test_drops_are_counted_by_rule_and_by_hook(folder: Path, prefilter: Prefilter) -> None:
    prefilter.add(["198.51.100.0/24", "203.0.113.7"])
    frame = LINK / four("198.51.100.1")
    for _ in range(3):
        run(prefilter, frame)
    run(prefilter, LINK / four("192.0.2.9"))
    assert [(one.cidr, one.packets, one.byte_count) for one in prefilter.list()] == [
        ("198.51.100.0/24", 3, 3 * len(frame)), ("203.0.113.7/32", 0, 0),
    ]  # fmt: skip
    assert counted(folder, DROP_PREFILTER) == Counter(3, 3 * len(frame))
    assert counted(folder, 0).packets == 1


def test_drops_are_told_within_the_budget(folder: Path, prefilter: Prefilter) -> None:
    with Map.pinned(folder / "maps" / "runtime") as runtime:
        runtime.update(bytes(4), Runtime(generation=1, drop_events_per_tick=2).pack())
    prefilter.add(EVERYTHING)
    frame = bytes(LINK / Dot1Q() / IP(src="203.0.113.7", dst="192.0.2.1") / TCP(sport=1234, dport=443))
    prefilter._loaded.programs["prefilter"].test_run(frame, repeat=100000)
    with Map.pinned(folder / "maps" / "events") as ring:
        reader = RingReader(ring)
        events = [Event.unpack(data) for data in reader.read()]
        reader.close()
    [rule] = [one.number for one in prefilter.list() if one.cidr == "203.0.113.7/32"]
    first = events[0]
    assert (first.hook, first.reason, first.rule, first.protocol) == (HOOK_XDP, DROP_PREFILTER, rule, 6)
    assert (address_text(first.source), first.source_port) == ("203.0.113.7", 1234)
    assert (address_text(first.destination), first.destination_port) == ("192.0.2.1", 443)
    assert first.data[: first.data_length] == frame[:96]
    assert len(events) < 100, "two a tick"
    assert sum(one.suppressed for one in events) > 1000


def test_own_addresses_are_denied_by_force_only(prefilter: Prefilter) -> None:
    with pytest.raises(OwnRange, match=r"192\.0\.2\.0/24 holds 192\.0\.2\.1"):
        prefilter.add(["203.0.113.7", "192.0.2.0/24"])
    assert prefilter.list() == [], "all or none"
    prefilter.add(["192.0.2.0/24"], force=True)
    with pytest.raises(InvalidRange):
        prefilter.delete(["192.0.2.1/24"])


@pytest.fixture
def wire() -> Iterator[tuple[Spaces, str, str]]:
    with Spaces() as spaces:
        node, client = spaces.add("node"), spaces.add("client")
        spaces.cable(node, "ens5", client, "lan0")
        spaces.ip(node, "addr add 192.0.2.1/24 dev ens5", "addr add 2001:db8::1/64 dev ens5 nodad")
        spaces.ip(
            client, "addr add 192.0.2.9/24 dev lan0", "addr add 192.0.2.10/24 dev lan0",
            "addr add 2001:db8::9/64 dev lan0 nodad",
        )  # fmt: skip
        yield spaces, node, client


@pytest.mark.tool("ip", "ping")
def test_real_packets_and_a_daemon_that_is_away(folder: Path, wire: tuple[Spaces, str, str]) -> None:
    spaces, node, client = wire
    ifindex = spaces.index(node, "ens5")

    def reaches(source: str) -> bool:
        return spaces.ping(client, "2001:db8::1" if ":" in source else "192.0.2.1", "-I", source)

    with spaces.inside(node), opened(folder) as prefilter:
        prefilter.add(["192.0.2.9", "2001:db8::8/125"])
        assert prefilter.attach({"ens5": ifindex}) == {}
    assert not reaches("192.0.2.9"), "the daemon is gone, the rule is not"
    assert not reaches("2001:db8::9")
    assert reaches("192.0.2.10")
    with spaces.inside(node), opened(folder) as prefilter:
        assert [one.cidr for one in prefilter.list()] == ["192.0.2.9/32", "2001:db8::8/125"]
        assert prefilter.list()[0].packets > 0
        assert prefilter.attach({"ens5": ifindex}) == {}, "replaced in place"
        prefilter.delete(["192.0.2.9"])
        assert reaches("192.0.2.9")
        prefilter.detach()
        assert reaches("2001:db8::9")
    assert not list((folder / "links").iterdir())


@pytest.mark.tool("ip", "ping")
def test_devices_that_come_and_go(folder: Path, wire: tuple[Spaces, str, str]) -> None:
    spaces, node, client = wire
    with spaces.inside(node), opened(folder) as prefilter:
        prefilter.add(["192.0.2.9"])
        prefilter.attach({"ens5": spaces.index(node, "ens5")})
        spaces.ip(node, "link del ens5")
        problems = prefilter.attach({"ens5": 4242})
        assert list(problems) == ["ens5"]
        spaces.cable(node, "ens5", client, "lan0")
        spaces.ip(node, "addr add 192.0.2.1/24 dev ens5")
        spaces.ip(client, "addr add 192.0.2.9/24 dev lan0")
        assert prefilter.attach({"ens5": spaces.index(node, "ens5")}) == {}, "another device of the same name"
        assert not spaces.ping(client, "192.0.2.1")
        assert pinned(folder / "links" / "xdp-ens5").attached()
        assert prefilter.attach({}) == {}
        assert spaces.ping(client, "192.0.2.1")


def test_a_driver_without_xdp_gets_the_generic_mode(folder: Path, wire: tuple[Spaces, str, str]) -> None:
    spaces, node, _ = wire
    spaces.ip(node, "link add vxlan0 type vxlan id 5 dstport 4789", "link set vxlan0 up")
    with spaces.inside(node), opened(folder) as prefilter:
        assert prefilter.attach({"vxlan0": spaces.index(node, "vxlan0")}) == {}
        shown = spaces.show(node, "link", "show", "vxlan0")[0]
        assert shown["xdp"]["mode"] == 2, "generic"
        prefilter.detach()
