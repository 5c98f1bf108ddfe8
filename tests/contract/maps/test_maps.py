"""What parts of the datapath rely on of a map, on the fake and on the kernel's."""

from __future__ import annotations

import errno
import sys

import pytest

from datapath.errors import BpfRefused
from datapath.fake_maps import FakeMap
from datapath.loader.maps import Map
from datapath.maps import slices
from tests.contract.maps.conftest import MakeMap


def number(value: int, size: int = 4) -> bytes:
    return value.to_bytes(size, sys.byteorder)


@pytest.mark.parametrize("kind", ["hash", "lru"])
def test_an_entry_comes_changes_and_goes(make_map: MakeMap, kind: str) -> None:
    held = make_map((kind, 8, 4))
    key = number(7, 8)
    assert held.lookup(key) is None
    held.update(key, b"abcd")
    assert held.lookup(key) == b"abcd"
    held.update(key, b"efgh", 2)
    with pytest.raises(BpfRefused) as refused:
        held.update(key, b"ijkl", 1)
    assert refused.value.errno == errno.EEXIST
    assert held.lookup(key) == b"efgh"
    assert held.delete(key)
    assert not held.delete(key)
    with pytest.raises(BpfRefused) as refused:
        held.update(key, b"ijkl", 2)
    assert refused.value.errno == errno.ENOENT


@pytest.mark.parametrize("kind", ["hash", "lru"])
def test_batches(make_map: MakeMap, kind: str) -> None:
    held = make_map((kind, 8, 8), 8192)
    keys = [number(n * 977, 8) for n in range(1000)]
    held.update_batch(b"".join(keys), b"".join(keys), len(keys))
    found: dict[bytes, bytes] = {}
    for some, values, count in held.keys_batches(256):
        assert len(some) == len(values) == 8 * count
        found.update(zip(slices(some, 8, count), slices(values, 8, count), strict=True))
    assert found == {key: key for key in keys}
    absent = number(1, 8)
    assert held.delete_batch(b"".join([absent, *keys[:500], absent, *keys[:2]]), 504) == 500
    assert sum(count for _, _, count in held.keys_batches()) == 500
    assert held.delete_batch(b"", 0) == 0


def test_deleting_while_reading_loses_nothing(make_map: MakeMap) -> None:
    held = make_map(("lru", 8, 8), 8192)
    keys = b"".join(number(n * 31, 8) for n in range(4000))
    held.update_batch(keys, keys, 4000)
    seen: list[bytes] = []
    for some, _, count in held.keys_batches(512):
        seen += slices(some, 8, count)
        held.delete_batch(some[: 8 * (count // 2)], count // 2)
    assert len(seen) == len(set(seen)) == 4000


def test_a_full_hash_refuses_a_full_lru_lets_old_ones_go(make_map: MakeMap) -> None:
    held = make_map(("hash", 8, 8), 64)
    keys = b"".join(number(n, 8) for n in range(64))
    held.update_batch(keys, keys, 64)
    with pytest.raises(BpfRefused) as refused:
        held.update(number(64, 8), bytes(8))
    assert refused.value.errno == errno.E2BIG
    forgetful = make_map(("lru", 8, 8), 1024)
    for n in range(4096):
        forgetful.update(number(n, 8), bytes(8))
    assert 0 < sum(count for _, _, count in forgetful.keys_batches()) <= 1024
    assert forgetful.lookup(number(4095, 8)) is not None, "the newest is there"


def test_the_longest_prefix_answers(make_map: MakeMap) -> None:
    held = make_map("cidrs")
    mapped = bytes(10) + b"\xff\xff"
    size = held.value_size

    def key(bits: int, *address: int) -> bytes:
        return number(96 + bits) + mapped + bytes(address)

    held.update(key(8, 10, 0, 0, 0), b"a" * size)
    held.update(key(24, 10, 1, 2, 0), b"b" * size)
    assert held.lookup(key(32, 10, 1, 2, 3)) == b"b" * size
    assert held.lookup(key(32, 10, 1, 3, 3)) == b"a" * size
    assert held.lookup(key(32, 11, 1, 3, 3)) is None
    assert sum(count for _, _, count in held.keys_batches()) == 2
    assert held.delete(key(24, 10, 1, 2, 0))
    assert held.lookup(key(32, 10, 1, 2, 3)) == b"a" * size


def test_an_array_is_all_there(make_map: MakeMap) -> None:
    held = make_map(("array", 4, 8), 100)
    assert held.lookup(number(99)) == bytes(8)
    held.update_batch(number(3) + number(5), b"c" * 8 + b"e" * 8, 2)
    found: dict[bytes, bytes] = {}
    for some, values, count in held.keys_batches(30):
        found.update(zip(slices(some, 4, count), slices(values, 8, count), strict=True))
    assert len(found) == 100
    assert found[number(5)] == b"e" * 8
    with pytest.raises(BpfRefused):
        held.delete(number(3))


def test_maps_within_a_map(make_map: MakeMap) -> None:
    template = make_map("policy")
    outer = make_map("policies", 64, template if isinstance(template, Map) else None)
    inners = [make_map("policy") for _ in range(3)]
    outer.update_batch(b"".join(number(n) for n in range(3)), b"".join(number(one.fd) for one in inners), len(inners))
    keys = {key for some, _, count in outer.keys_batches() for key in slices(some, 4, count)}
    assert keys == {number(n) for n in range(3)}
    assert outer.delete_batch(number(0) + number(9), 2) == 1
    if isinstance(outer, FakeMap):
        assert outer.inner(number(1)) is inners[1]
    else:
        assert outer.lookup(number(1)) == number(inners[1].id)  # type: ignore[attr-defined]
