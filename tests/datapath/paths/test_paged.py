"""Packets whose head is short and whose rest lies in pages: test runs cannot have them, kernels send little else."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from datapath.loader import links, objects
from datapath.model import HOST_MAC
from tests.datapath.compiled import compiled
from tests.datapath.paths.lab import A, B, Lab

pytestmark = [pytest.mark.root, pytest.mark.tool("ip", "clang-19", "make")]
FAMILIES = pytest.mark.parametrize("family", [4, 6])
VIRTIO_HEADER = struct.Struct("=BBHHHH")
SOL_PACKET, PACKET_VNET_HDR = 263, 15


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab("native", mtu=9000, outside_mtu=9000) as one:
        yield one


@FAMILIES
def test_a_small_segment_is_not_copied(lab: Lab, family: int) -> None:
    """TCP keeps a clone of what it sends. Whoever wants a byte of its data in the head has the kernel copy that."""
    with objects.load(compiled("paged"), pins=None) as loaded:
        with lab.spaces.inside(lab.space("b")):
            link = links.attach_tcx(loaded.programs["paged"], socket.if_nametoindex("eth0"), True)
        seen = loaded.maps["seen"]
        with (
            lab.serving("b", B.address(family), lambda connection: connection.sendall(connection.recv(1))) as port,
            lab.socket("a", family, socket.SOCK_STREAM) as one,
        ):
            one.connect((B.address(family), port))
            before = seen.lookup(bytes(4))
            one.sendall(b"x")
            assert one.recv(1) == b"x"
            after = seen.lookup(bytes(4))
        link.detach()
    assert (before, after) == (bytes(8), (1).to_bytes(8, "little"))


@FAMILIES
@pytest.mark.parametrize("head", [14, 34, 40, 54, 60])
def test_headers_in_pages(lab: Lab, family: int, head: int) -> None:
    """The sender makes so many bytes readable, and no more."""
    ip: type[IP | IPv6] = IPv6 if family == 6 else IP
    with lab.socket("b", family, socket.SOCK_DGRAM) as server:
        server.bind((B.address(family), 0))
        data = bytes(range(256)) * 24
        packet = Ether(src=A.mac, dst=HOST_MAC) / ip(src=A.address(family), dst=B.address(family))
        packet /= UDP(sport=4000 + head, dport=server.getsockname()[1]) / Raw(data)
        with lab.spaces.inside(lab.space("a")):
            sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        with sender:
            sender.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
            sender.bind(("eth0", 0))
            sender.send(VIRTIO_HEADER.pack(0, 0, head, 0, 0, 0) + bytes(packet))
        assert server.recv(1 << 14) == data
