"""Which entries of `nat` belong to a masqueraded flow: they are of no use without it, and outlive it by far (a TCP
connection that has closed is forgotten within seconds, its translations would hold their port for hours)."""

from __future__ import annotations

import sys
from typing import Final

from datapath.layout import FLOW_NAT, NAT_IN, NAT_OUT, PATH_NAT, Flow, FlowKey, NatKey, Path

_FLAGS_AT: Final = Flow.OFFSETS["flags"]
# Of the byte with FLOW_NAT in it.
NAT_FLAG_AT: Final = _FLAGS_AT if sys.byteorder == "little" else _FLAGS_AT + 1
_PATH_FLAGS_AT: Final = Path.OFFSETS["flags"]
_NAT_ADDRESS_AT: Final = Path.OFFSETS["nat_address"]
_NAT_PORT_AT: Final = Path.OFFSETS["nat_port"]
_PATHS: Final = (Flow.OFFSETS["from_low"], Flow.OFFSETS["from_high"])
_PROTOCOL_AT: Final = FlowKey.OFFSETS["protocol"]
_REST: Final = bytes(NatKey.SIZE - NatKey.OFFSETS["direction"] - 1)


def translations_of(key: bytes, value: bytes) -> list[bytes]:
    """Keys of `nat`, both ways; none if it is not masqueraded.

    Fields are put together as they lie in memory: a busy node closes thousands of connections a second."""
    if not value[NAT_FLAG_AT] & FLOW_NAT:
        return []
    low, high, low_port, high_port = key[:16], key[16:32], key[32:34], key[34:36]
    protocol = key[_PROTOCOL_AT : _PROTOCOL_AT + 1]
    out, back = protocol + bytes((NAT_OUT,)) + _REST, protocol + bytes((NAT_IN,)) + _REST
    found = []
    for start, source, destination, source_port, destination_port in (
        (_PATHS[0], low, high, low_port, high_port),
        (_PATHS[1], high, low, high_port, low_port),
    ):
        if value[start + _PATH_FLAGS_AT] & PATH_NAT:
            address = value[start + _NAT_ADDRESS_AT : start + _NAT_ADDRESS_AT + 16]
            port = value[start + _NAT_PORT_AT : start + _NAT_PORT_AT + 2]
            found.append(source + destination + source_port + destination_port + out)
            found.append(destination + address + destination_port + port + back)
    return found
