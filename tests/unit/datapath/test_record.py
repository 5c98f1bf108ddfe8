"""C structures as dataclasses, and the texts of addresses and marks."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datapath import layout
from datapath.layout import Endpoint, FlowKey, PolicyKey, Target
from datapath.record import Record, be16, nested, raw, record, u8, u32, u64


@record
class Inner(Record):
    one: int = u8(pad=1)
    port: int = be16()


@record
class Outer(Record):
    first: int = u32(7)
    inside: Inner = nested(Inner, pad=4)
    name: bytes = raw(3, pad=1)
    last: int = u64()


def test_fields_lie_where_they_should() -> None:
    assert dict(Outer.OFFSETS) == {"first": 0, "inside": 4, "name": 12, "last": 16}
    assert dict(Outer.SIZES) == {"first": 4, "inside": 4, "name": 3, "last": 8}
    assert Outer.SIZE == 24
    packed = Outer(inside=Inner(one=2, port=0x1234), name=b"abc", last=9).pack()
    assert packed == struct.pack("=I", 7) + b"\x02\x00\x12\x34" + bytes(4) + b"abc\0" + struct.pack("=Q", 9)
    assert Outer.unpack(packed) == Outer(inside=Inner(one=2, port=0x1234), name=b"abc", last=9)
    assert Outer.unpack(b"xy" + packed, 2) == Outer.unpack(packed)


def test_many_at_once() -> None:
    many = [Inner(one=n, port=n) for n in range(100)]
    assert list(Inner.unpack_all(b"".join(one.pack() for one in many))) == many


def test_padding_is_zero() -> None:
    packed = bytearray(PolicyKey(64, 1, 300, 6, 443).pack())
    assert bytes(packed[5:8] + packed[13:14]) == bytes(4)
    packed[6] = 0xFF
    assert PolicyKey.unpack(bytes(packed)).pack() != packed


def test_a_port_is_in_network_order() -> None:
    assert FlowKey(low_port=80).pack()[32:34] == b"\x00\x50"


def test_records_compare_and_hash() -> None:
    assert Endpoint(target=Target(ifindex=3)) == Endpoint(target=Target(ifindex=3))
    assert len({Endpoint(), Endpoint(), Endpoint(target=Target(ifindex=3))}) == 2
    with pytest.raises(AttributeError):
        Endpoint().target = Target()  # type: ignore[misc]


@given(st.ip_addresses())
def test_addresses_are_texts_and_bytes(address: object) -> None:
    packed = layout.address_bytes(str(address))
    assert len(packed) == 16
    if packed[:12] == bytes(10) + b"\xff\xff":
        assert layout.address_text(packed).count(".") == 3
    elif any(packed):
        assert layout.address_bytes(layout.address_text(packed)) == packed


@pytest.mark.parametrize(
    ("text", "hexadecimal"),
    [
        ("10.1.2.3", "00000000000000000000ffff0a010203"),
        ("0.0.0.0", "00000000000000000000ffff00000000"),
        ("fd00::1", "fd000000000000000000000000000001"),
        ("", "0" * 32),
    ],
)
def test_addresses(text: str, hexadecimal: str) -> None:
    assert layout.address_bytes(text).hex() == hexadecimal
    assert layout.address_text(bytes.fromhex(hexadecimal)) == text


@pytest.mark.parametrize("text", ["10.1.2", "fd00::1::2", "nonsense", "10.0.0.1/8"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(OSError, match="illegal IP address"):
        layout.address_bytes(text)


def test_macs() -> None:
    assert layout.mac_text(layout.mac_bytes("0e:58:0a:00:00:01")) == "0e:58:0a:00:00:01"
    assert layout.mac_bytes("") == bytes(6)


@given(st.integers(0, layout.IDENTITY_MAX))
def test_identities_in_marks(identity: int) -> None:
    mark = layout.mark_of(identity)
    assert mark & layout.MARK_KIND_MASK == layout.MARK_IDENTITY
    assert mark < 1 << 32
    assert layout.identity_of(mark) == identity
    assert layout.identity_of(mark & ~layout.MARK_KIND_MASK) == layout.IDENTITY_UNKNOWN
