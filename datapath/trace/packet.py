"""The first packet of a conversation, byte by byte: TCP SYN, UDP datagram, ICMP echo; IPv4 and IPv6."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from socket import IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP
from typing import Final

from datapath.errors import InvalidFilter

# Sources of conversations that a kernel begins by itself lie lower: a dry run meets no connection that is there.
SOURCE_PORT: Final = 65_210
PROTOCOLS: Final = ("tcp", "udp", "icmp")
_TTL: Final = 64
_ETH_IPV4, _ETH_IPV6 = 0x0800, 0x86DD
_PAYLOAD: Final = b"plimsoll"


@dataclass(frozen=True, slots=True)
class Conversation:
    """Who speaks with whom. MACs are 6 bytes, addresses of one family in canonical text.

    :ivar port: of the destination; 0 for icmp.
    """

    source_mac: bytes
    destination_mac: bytes
    source: str
    destination: str
    protocol: str
    port: int = 0

    @property
    def source_port(self) -> int:
        return 0 if self.protocol == "icmp" else SOURCE_PORT


def protocol_for(word: str, port: int) -> str:
    """The protocol to try: as given, or by whether there is a port. Raises InvalidFilter."""
    protocol = word.lower() or ("tcp" if port else "icmp")
    if protocol not in PROTOCOLS:
        raise InvalidFilter(
            f"a dry run speaks no {word!r}", field="protocol", remedy=f"choose one of {', '.join(PROTOCOLS)}"
        )
    if protocol == "icmp" and port:
        raise InvalidFilter("ICMP has no ports", field="port", remedy="leave the port out, or name tcp or udp")
    if protocol != "icmp" and not 0 < port < 65536:
        raise InvalidFilter(
            f"{protocol} needs a port", field="port", remedy="write DEST:PORT with a port from 1 to 65535"
        )
    return protocol


def build(talk: Conversation) -> bytes:
    """Its first packet with all checksums."""
    source, destination = ip_address(talk.source), ip_address(talk.destination)
    ethertype = _ETH_IPV4 if source.version == 4 else _ETH_IPV6
    head = talk.destination_mac + talk.source_mac + struct.pack("!H", ethertype)
    if isinstance(source, IPv4Address) and isinstance(destination, IPv4Address):
        number, body = _transport(talk, _pseudo4(source, destination), IPPROTO_ICMP)
        return head + _ipv4(source, destination, number, len(body)) + body
    if isinstance(source, IPv6Address) and isinstance(destination, IPv6Address):
        number, body = _transport(talk, _pseudo6(source, destination), IPPROTO_ICMPV6)
        fixed = struct.pack("!IHBB", 6 << 28, len(body), number, _TTL)
        return head + fixed + source.packed + destination.packed + body
    raise ValueError("two address families in one packet")


def checksum(data: bytes) -> int:
    """The Internet checksum, RFC 1071."""
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


_Pseudo = tuple[bytes, str]  # both addresses, and how length and protocol follow them


def _pseudo4(source: IPv4Address, destination: IPv4Address) -> _Pseudo:
    return source.packed + destination.packed, "!BBH"


def _pseudo6(source: IPv6Address, destination: IPv6Address) -> _Pseudo:
    return source.packed + destination.packed, "!I3xB"


def _transport(talk: Conversation, pseudo: _Pseudo, icmp: int) -> tuple[int, bytes]:
    """Protocol number, and everything from its header on."""
    match talk.protocol:
        case "tcp":
            syn = struct.pack("!HHIIBBHHHBBH", SOURCE_PORT, talk.port, 1, 0, 6 << 4, 0x02, 64240, 0, 0, 2, 4, 1460)
            return IPPROTO_TCP, _summed(syn, 16, pseudo, IPPROTO_TCP)
        case "udp":
            head = struct.pack("!HHHH", SOURCE_PORT, talk.port, 8 + len(_PAYLOAD), 0)
            return IPPROTO_UDP, _summed(head + _PAYLOAD, 6, pseudo, IPPROTO_UDP)
        case _:
            echo = struct.pack("!BBHHH", 8 if icmp == IPPROTO_ICMP else 128, 0, 0, SOURCE_PORT, 1) + _PAYLOAD
            # ICMP of IPv4 alone sums no addresses.
            return icmp, _summed(echo, 2, pseudo if icmp == IPPROTO_ICMPV6 else None, icmp)


def _summed(segment: bytes, at: int, pseudo: _Pseudo | None, number: int) -> bytes:
    before = b""
    if pseudo is not None:
        addresses, form = pseudo
        v4 = form == "!BBH"
        before = addresses + struct.pack(form, *((0, number, len(segment)) if v4 else (len(segment), number)))
    return segment[:at] + struct.pack("!H", checksum(before + segment)) + segment[at + 2 :]


def _ipv4(source: IPv4Address, destination: IPv4Address, protocol: int, length: int) -> bytes:
    dont_fragment = 0x4000
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 1, dont_fragment, _TTL, protocol, 0)
    head += source.packed + destination.packed
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:]
