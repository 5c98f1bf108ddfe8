"""Real packets on every way that there is, in both families: between pods of a node, of two nodes, with nodes, with the
outside. lab.py draws the topology; each mode of routing is a lab of its own.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.layers.sctp import SCTP, SCTPChunkData
from scapy.layers.vxlan import VXLAN

from tests.datapath.paths.lab import OUTSIDE4, OUTSIDE6, SERVICE4, SERVICE6, VXLAN_PORT, A, B, C, Lab
from tests.datapath.paths.traffic import datagrams, transfer

pytestmark = [pytest.mark.root, pytest.mark.tool("ip", "ping")]
FAMILIES = pytest.mark.parametrize("family", [4, 6])

LABS: dict[str, dict[str, Any]] = {
    "native": {"mode": "native"},
    "direct": {"mode": "direct"},
    "tunnel": {"mode": "tunnel"},
    "tunnel6": {"mode": "tunnel6"},
    "endpoint-routes": {"mode": "native", "endpoint_routes": True},
    "clsact": {"mode": "native", "legacy": True},
}


@pytest.fixture(scope="module", params=LABS)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Lab(**LABS[request.param]) as one:
        yield one


@pytest.fixture(autouse=True)
def nothing_dropped(lab: Lab, request: pytest.FixtureRequest) -> Iterator[None]:
    before = lab.drops()
    yield
    if "tagged" not in request.node.name:
        assert lab.drops() == before


def ways(lab: Lab, family: int) -> Iterator[tuple[str, str, str]]:
    """(who, the other's space, its address)."""
    yield "a", "b", B.address(family)
    yield "b", "a", A.address(family)
    yield "a", "c", C.address(family)
    yield "c", "a", A.address(family)
    yield "a", "one", lab.one.address(family)
    yield "one", "a", A.address(family)
    yield "one", "c", C.address(family)
    yield "c", "one", lab.one.address(family)
    yield "a", "outside", OUTSIDE6 if family == 6 else OUTSIDE4


@FAMILIES
def test_ping(lab: Lab, family: int) -> None:
    for who, _, address in ways(lab, family):
        assert lab.ping(who, address), f"{who} to {address}: {lab.drops()}"
        assert lab.ping(who, address, "-s", str(lab.pod_mtu - (48 if family == 6 else 28))), f"{who} to {address}"
        assert lab.ping(who, address, "-s", "20000"), f"{who} to {address}, in fragments"


@FAMILIES
def test_tcp(lab: Lab, family: int) -> None:
    for who, other, address in ways(lab, family):
        seen = transfer(lab, who, other, address)
        pods = {"a": A, "b": B, "c": C}
        if other == "outside" or (who == "c" and other == "one"):
            assert seen == (lab.one if who == "a" else lab.two).address(family), "masqueraded"
        elif who in pods:
            assert seen == pods[who].address(family), "with its own address"


@FAMILIES
def test_udp(lab: Lab, family: int) -> None:
    for who, other, address in ways(lab, family):
        seen = datagrams(lab, who, other, address, (0, 1, 1000, lab.pod_mtu, 9000, 60000))
        if other == "outside":
            assert seen == lab.one.address(family)


@FAMILIES
def test_sctp(lab: Lab, family: int) -> None:
    """By raw packets: the kernel here has no sockets for it. The receivers see the very bytes."""
    for who, other, address in ways(lab, family):
        if who not in "abc":
            continue
        packet = bytes(SCTP(sport=5000, dport=3868, tag=9) / SCTPChunkData(data=b"hello"))
        with (
            lab.socket(other, family, socket.SOCK_RAW, 132) as receiver,
            lab.socket(who, family, socket.SOCK_RAW, 132) as sender,
        ):
            sender.sendto(packet, (address, 0))
            data, source = receiver.recvfrom(2000)
            assert data[20 if family == 4 else 0 :] == packet
            receiver.sendto(bytes(SCTP(sport=3868, dport=5000, tag=8) / SCTPChunkData(data=b"back")), source)
            answer, back = sender.recvfrom(2000)
            assert SCTP(answer[20 if family == 4 else 0 :]).dport == 5000
            assert back[0] == address


@FAMILIES
def test_checksums_that_software_computed(lab: Lab, family: int) -> None:
    """Offloaded ones are never looked at between namespaces: these are, by the receiver."""
    for space, device in (("a", "eth0"), ("c", "eth0"), ("outside", "eth0"), ("one", "ens0"), ("two", "ens0")):
        lab.software_checksums(space, device)
    for who, other, address in ways(lab, family):
        transfer(lab, who, other, address, 1 << 20)
        datagrams(lab, who, other, address, (1, 1000, 5000))


@FAMILIES
def test_services_that_the_nodes_stack_translates(lab: Lab, family: int) -> None:
    """As kube-proxy does: to a pod of this node and of the other one, and to itself by the service."""
    service, tables = (SERVICE6, "ip6tables-nft") if family == 6 else (SERVICE4, "iptables-nft")
    node = lab.space("one")
    for who, pod in (("a", B), ("b", A), ("a", C)):
        rule = [
            "PREROUTING",
            "-t",
            "nat",
            "-d",
            service,
            "-p",
            "tcp",
            "-j",
            "DNAT",
            "--to-destination",
            pod.address(family),
        ]
        done = lab.spaces.run(node, tables, "-A", *rule)
        if done.returncode:
            pytest.skip(f"{tables}: {done.stderr}")
        try:
            seen = transfer(lab, who, pod.name, pod.address(family), to=(service, 0))
            assert seen == {"a": A, "b": B}[who].address(family)
        finally:
            lab.spaces.run(node, tables, "-D", *rule)


def test_identities_on_the_wire(lab: Lab) -> None:
    """The tunnel's key is the identity of who sends: pods theirs, a node its own."""
    if not lab.mode.startswith("tunnel"):
        pytest.skip("no tunnel")
    for who, pod, identity in (("a", A, A.identity), ("b", B, B.identity), ("one", lab.one, 1)):
        with lab.spaces.inside(lab.space("two")):
            wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        with wire:
            wire.bind(("ens0", 0))
            wire.settimeout(3)
            assert lab.ping(who, C.address4)
            while True:
                frame = Ether(wire.recv(4000))
                if UDP in frame and frame[UDP].dport == VXLAN_PORT:
                    tunnel = VXLAN(bytes(frame[UDP].payload))
                    if IP in tunnel and tunnel[IP].src == pod.address4:
                        break
        assert tunnel.vni == identity, who


@FAMILIES
def test_a_tagged_frame_of_a_pod_reaches_no_vlan(lab: Lab, family: int) -> None:
    """Out of the pod goes a frame of VLAN 7; nobody sees it."""
    before = lab.drops()
    with lab.spaces.inside(lab.space("router")):
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    with wire, lab.socket("a", 4, socket.SOCK_DGRAM) as probe:
        wire.bind(("port1", 0))
        with lab.spaces.inside(lab.space("a")):
            out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        with out:
            out.bind(("eth0", 0))
            target = OUTSIDE6 if family == 6 else OUTSIDE4
            packet = (IPv6(src=A.address6, dst=target) if family == 6 else IP(src=A.address4, dst=target)) / UDP(
                sport=7777, dport=7777
            )
            tagged = Ether(src=A.mac, dst="0e:50:4c:4d:00:01", type=0x8100) / struct.pack(
                "!HH", 7, 0x86DD if family == 6 else 0x0800
            )
            out.send(bytes(tagged) + bytes(packet))
        probe.sendto(b"end", (OUTSIDE4, 7778))
        wire.settimeout(3)
        while True:
            frame = wire.recv(4000)
            assert struct.pack("!HH", 7777, 7777) not in frame
            if struct.pack("!H", 7778) in frame[20:60]:
                break
    word = "one from-pod: unsupported"
    assert lab.drops().get(word, 0) == before.get(word, 0) + 1
