"""Packet files, read by somebody else's reader."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.utils import rdpcap

from datapath.events.pcap import PcapWriter, read_packets

PACKET = bytes(
    Ether(src="0e:58:0a:00:01:05", dst="0e:50:4c:4d:00:01") / IP(src="10.0.1.5", dst="10.0.1.6") / TCP(dport=80)
)
MOMENT_NS = 1_700_000_000_123_456_789


@pytest.fixture
def written() -> bytes:
    stream = io.BytesIO()
    writer = PcapWriter(stream)
    writer.write(MOMENT_NS, "plmweb", PACKET, 1514, "dropped from-pod policy-egress")
    writer.write(MOMENT_NS + 1, "ens5", PACKET[:41], 41)
    assert writer.packets == 2
    return stream.getvalue()


def test_scapy_reads_it(written: bytes, tmp_path: Path) -> None:
    path = tmp_path / "one.pcapng"
    path.write_bytes(written)
    first, second = rdpcap(str(path))
    assert (bytes(first), bytes(second)) == (PACKET, PACKET[:41])
    assert int(first.time * 10**9) == MOMENT_NS
    assert (first.wirelen, first.sniffed_on, second.sniffed_on) == (1514, "plmweb", "ens5")
    assert first.comment == b"dropped from-pod policy-egress"


def test_we_read_it(written: bytes) -> None:
    first, second = read_packets(written)
    assert (first.time_ns, first.device, first.packet, first.length) == (MOMENT_NS, "plmweb", PACKET, 1514)
    assert first.comment == "dropped from-pod policy-egress"
    assert (second.device, second.comment) == ("ens5", "")


def test_a_file_that_was_cut_off_is_whole_up_to_there(written: bytes) -> None:
    assert len(list(read_packets(written[:-1]))) == 1
    assert list(read_packets(b"")) == []


@pytest.mark.tool("tcpdump")
def test_tcpdump_reads_it(written: bytes) -> None:
    done = subprocess.run(["tcpdump", "-nr", "-"], input=written, capture_output=True, check=True)
    assert b"10.0.1.5.20 > 10.0.1.6.80" in done.stdout
