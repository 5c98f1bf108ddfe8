"""Arithmetic on many entries at once gives what arithmetic on each would."""

from __future__ import annotations

import struct
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from datapath.conntrack import scan
from datapath.conntrack.scan import Expiry, FlowKind
from datapath.layout import Flow, FlowKey, address_bytes

moments = st.integers(0, 0xFFFFFFFF) | st.sampled_from([0, 1, 0x7FFFFFFF, 0x80000000, 0x80000001, 0xFFFFFFFF])


def has_come(end: int, now: int) -> bool:
    """As the programs see it: the difference, as a signed number, is below zero."""
    difference = (end - now) & 0xFFFFFFFF
    signed: int = struct.unpack("=i", struct.pack("=I", difference))[0]
    return signed < 0


@settings(deadline=None)
@given(moments, st.lists(moments, max_size=40))
def test_which_ends_have_come(now: int, ends: list[int]) -> None:
    mask = Expiry(now).mask(struct.pack(f"={len(ends)}I", *ends))
    assert [bool(byte) for byte in mask] == [has_come(end, now) for end in ends]


def test_one_for_batches_of_any_length() -> None:
    expiry = Expiry(100)
    for count in (5, 5, 3, 8, 0, 5):
        assert sum(map(bool, expiry.mask(struct.pack(f"={count}I", *range(98, 98 + count))))) == min(count, 2)


FLOWS = [
    ("10.0.0.1", 6, 2, FlowKind("tcp", 4, "open")),
    ("fd00::1", 17, 1, FlowKind("udp", 6, "opening")),
    ("64:ff9b::a00:1", 58, 3, FlowKind("icmp", 6, "closing")),
    ("10.0.0.1", 1, 2, FlowKind("icmp", 4, "open")),
    ("10.0.0.1", 132, 1, FlowKind("sctp", 4, "opening")),
    ("10.0.0.1", 47, 200, FlowKind("other", 4, "other")),
]


@settings(deadline=None)
@given(st.lists(st.sampled_from(FLOWS), max_size=30))
def test_kinds_of_flows(flows: list[tuple[str, int, int, FlowKind]]) -> None:
    keys = b"".join(FlowKey(address_bytes(low), bytes(16), 1, 2, protocol).pack() for low, protocol, _, _ in flows)
    values = b"".join(Flow(state=state).pack() for _, _, state, _ in flows)
    codes = scan.kinds(keys, FlowKey.SIZE, values, Flow.SIZE, len(flows))
    expected = [kind for _, _, _, kind in flows]
    assert scan.census(codes) == {kind: expected.count(kind) for kind in set(expected)}


def test_columns_and_choices() -> None:
    data = b"".join(struct.pack("=III", n, n * 10, 0) for n in range(5)) + b"rest"
    assert struct.unpack("=4I", scan.column(data, 12, 4, 4)) == (0, 10, 20, 30)
    assert scan.chosen(b"aabbccdd", 2, b"\0\x80\0\1") == b"bbdd"


@settings(deadline=None)
@given(st.binary(max_size=64), st.binary(min_size=1, max_size=2))
def test_holders(data: bytes, wanted: bytes) -> None:
    found = list(scan.holders(data, 8, (0, 4), wanted))
    plain = [n for n in range(0, len(data), 4) if data[n : n + len(wanted)] == wanted]
    assert found == [start // 8 for start in plain]
    assert all(one <= other for one, other in pairwise(found))
