"""Packets for the programs, and what is right about a packet: every length and checksum, computed anew by scapy.

An ICMP error quotes the packet that it is about: if the quote is whole, it has to be right too; if it is cut, its IP
header has to be.
"""

from __future__ import annotations

from typing import Any, Final

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrFragment,
)
from scapy.layers.l2 import Ether
from scapy.layers.sctp import SCTP, SCTPChunkData
from scapy.packet import NoPayload, Packet, Raw

ICMP_ERRORS: Final = (3, 11, 12)
ICMP6_ERRORS: Final = (ICMPv6DestUnreach, ICMPv6PacketTooBig, ICMPv6TimeExceeded, ICMPv6ParamProblem)
_SUMS: Final = {"IP": "chksum", "TCP": "chksum", "UDP": "chksum", "ICMP": "chksum"}
_LENGTHS: Final = {"IP": "len", "IPv6": "plen"}


def ip(source: str, destination: str, **more: Any) -> Packet:
    """An IP header of the addresses' family; `ttl` serves both."""
    if ":" not in source:
        return IP(src=source, dst=destination, **more)
    if "ttl" in more:
        more["hlim"] = more.pop("ttl")
    return IPv6(src=source, dst=destination, **more)


def tcp(source: int, destination: int, flags: str = "S", data: bytes = b"") -> Packet:
    return TCP(sport=source, dport=destination, flags=flags, seq=1000, ack=2000 if "A" in flags else 0) / Raw(data)


def udp(source: int, destination: int, data: bytes = b"data", **more: Any) -> Packet:
    return UDP(sport=source, dport=destination, **more) / Raw(data)


def sctp(source: int, destination: int) -> Packet:
    return SCTP(sport=source, dport=destination, tag=7) / SCTPChunkData(data=b"data")


def echo(family: int, number: int, data: bytes = b"ping") -> Packet:
    return (ICMPv6EchoRequest(id=number, seq=1) if family == 6 else ICMP(type=8, id=number, seq=1)) / Raw(data)


def echo_reply(family: int, number: int, data: bytes = b"ping") -> Packet:
    return (ICMPv6EchoReply(id=number, seq=1) if family == 6 else ICMP(type=0, id=number, seq=1)) / Raw(data)


def unreachable(quoted: Packet | bytes, family: int = 4) -> Packet:
    """An ICMP error: nobody listens on this port."""
    head = ICMPv6DestUnreach(code=4) if family == 6 else ICMP(type=3, code=3)
    return head / Raw(bytes(quoted))


def too_big(quoted: Packet | bytes, mtu: int, family: int = 4) -> Packet:
    head = ICMPv6PacketTooBig(mtu=mtu) if family == 6 else ICMP(type=3, code=4, nexthopmtu=mtu)
    return head / Raw(bytes(quoted))


def time_exceeded(quoted: Packet | bytes, family: int = 4) -> Packet:
    head = ICMPv6TimeExceeded() if family == 6 else ICMP(type=11, code=0)
    return head / Raw(bytes(quoted))


def network(frame: bytes | Packet) -> Packet:
    """The IP packet in a frame."""
    return Ether(bytes(frame)).payload


def quoted(packet: Packet) -> Packet:
    """The IP packet that an ICMP error in `packet` (an IP packet) is about, read as a packet of its own."""
    data = _error_data(packet)
    assert data is not None, f"no ICMP error: {packet.summary()}"
    return (IPv6 if data[0] >> 4 == 6 else IP)(data)


def assert_right(packet: Packet, *, unsummed: bool = False) -> None:
    """Fails unless all lengths and checksums are as they have to be.

    :param packet: an IP packet. :param unsummed: its UDP has no checksum, and must not have got one."""
    data = _error_data(packet)
    if data is not None:
        _assert_sums(packet, data)
        inner = (IPv6 if data[0] >> 4 == 6 else IP)(data)
        whole = inner.plen + 40 if isinstance(inner, IPv6) else inner.len
        if whole <= len(data):
            assert_right(inner, unsummed=UDP in inner and inner[UDP].chksum == 0)
        elif isinstance(inner, IP):
            _assert_header(data)
        return
    if UDP in packet and packet[UDP].chksum == 0:
        assert unsummed, f"UDP lost its checksum: {packet.summary()}"
        copy = packet.copy()
        copy[UDP].remove_payload()
        _assert_header(bytes(packet))
        return
    assert not unsummed, f"UDP got a checksum: {packet.summary()}"
    _assert_sums(packet)


def _error_data(packet: Packet) -> bytes | None:
    """What an ICMP error quotes."""
    for kind in ICMP6_ERRORS:
        if isinstance(packet, IPv6) and kind in packet:
            return bytes(packet[kind].payload)
    if isinstance(packet, IP) and packet.frag == 0 and ICMP in packet and packet[ICMP].type in ICMP_ERRORS:
        return bytes(packet)[packet.ihl * 4 + 8 :]
    return None


def _assert_header(data: bytes) -> None:
    if data[0] >> 4 != 4:
        return
    header = bytearray(data[: (data[0] & 15) * 4])
    assert _folded(header) == 0xFFFF, f"IPv4 header checksum is wrong: {bytes(header).hex()}"


def _folded(data: bytes | bytearray) -> int:
    total = sum(int.from_bytes(data[at : at + 2].ljust(2, b"\0"), "big") for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def _assert_sums(packet: Packet, quote: bytes | None = None) -> None:
    """Rebuilt without its checksums and lengths, it has to be the same. A `quote` is taken as it is."""
    raw = bytes(packet)
    _assert_header(raw)
    if (isinstance(packet, IP) and (packet.frag or packet.flags.MF)) or IPv6ExtHdrFragment in packet:
        return
    again = packet.__class__(raw)
    layer: Packet = again
    if quote is not None:
        error = next(again[kind] for kind in (ICMP, *ICMP6_ERRORS) if kind in again)
        error.remove_payload()
        error.add_payload(Raw(quote))
    while not isinstance(layer, NoPayload):
        for field in ("chksum", "cksum"):
            if field in layer.fields and not isinstance(layer, SCTP):
                delattr(layer, field)
        if layer.name in _LENGTHS:
            delattr(layer, _LENGTHS[layer.name])
        layer = layer.payload
    built = bytes(again)
    assert built == raw, f"a checksum or length is wrong:\n{_shown(raw)}\nshould be\n{_shown(built)}"


def _shown(raw: bytes) -> str:
    packet = (IPv6 if raw[0] >> 4 == 6 else IP)(raw)
    return f"{packet!r}"
