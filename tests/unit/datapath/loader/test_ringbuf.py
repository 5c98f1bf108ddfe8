"""The reader on a ring buffer in plain memory, with a writer that does what the kernel does."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datapath.loader.maps import Map
from datapath.loader.ringbuf import RingReader

SIZE = 4096
PAGE = mmap.PAGESIZE
BUSY, DISCARDED = 1 << 31, 1 << 30


class Ring:
    """Consumer page, producer page, and the data twice in a row."""

    name, max_entries = "ring", SIZE

    def __init__(self) -> None:
        self.fd = os.memfd_create("ring")
        os.truncate(self.fd, 2 * PAGE + 2 * SIZE)
        self.memory = mmap.mmap(self.fd, 2 * PAGE + 2 * SIZE)
        self.end = 0

    def close(self) -> None:
        self.memory.close()
        os.close(self.fd)

    def free(self) -> int:
        consumed: int = struct.unpack_from("=Q", self.memory, 0)[0]
        return SIZE - (self.end - consumed)

    def _store(self, position: int, data: bytes) -> None:
        for offset, byte in enumerate(data, start=position):
            for copy in (0, SIZE):
                self.memory[2 * PAGE + copy + offset % SIZE] = byte

    def write(self, data: bytes, flags: int = 0) -> int:
        """Where the record begins. There must be room."""
        begin = self.end
        self._store(begin, struct.pack("=II", len(data) | flags, 0) + data)
        self.end += len(data) + 15 & ~7
        struct.pack_into("=Q", self.memory, PAGE, self.end)
        return begin

    def finish(self, begin: int, length: int, flags: int = 0) -> None:
        self._store(begin, struct.pack("=I", length | flags))


@pytest.fixture
def ring() -> Iterator[Ring]:
    one = Ring()
    yield one
    one.close()


def reader_of(ring: Ring) -> RingReader:
    return RingReader(cast(Map, ring))


def test_a_record_that_is_being_written_holds_up_those_behind(ring: Ring) -> None:
    reader = reader_of(ring)
    ring.write(b"first")
    begin = ring.write(b"second", BUSY)
    ring.write(b"third")
    assert reader.read() == [b"first"]
    assert reader.read() == []
    ring.finish(begin, len(b"second"))
    assert reader.read() == [b"second", b"third"]
    reader.close()


def test_one_that_is_given_up_does_not(ring: Ring) -> None:
    reader = reader_of(ring)
    begin = ring.write(b"never", BUSY)
    ring.write(b"after")
    assert reader.read() == []
    ring.finish(begin, len(b"never"), DISCARDED)
    assert reader.read() == [b"after"]
    assert reader.waiting == 0
    reader.close()


lengths = st.sampled_from([0, 1, 7, 8, 9, 24, 24, 24, 24, 104, 184, 184, 333])
records = st.lists(st.tuples(lengths, st.sampled_from([0, 0, 0, 0, DISCARDED])), max_size=40)


@given(
    turns=st.lists(
        st.tuples(
            st.lists(st.tuples(lengths, st.sampled_from([0, 0, 0, 0, DISCARDED])), max_size=40), st.integers(1, 60)
        ),
        max_size=30,
    )
)
def test_all_that_is_written_is_read_once_and_in_order(
    turns: list[tuple[list[tuple[int, int]], int]],
) -> None:
    ring, number, wanted, got = Ring(), 0, [], []
    reader = reader_of(ring)
    try:
        for written, limit in turns:
            for length, flags in written:
                if ring.free() < length + 16:
                    break
                number += 1
                data = (struct.pack("=I", number) * (length // 4 + 1))[:length]
                ring.write(data, flags)
                wanted += [] if flags else [data]
            got += reader.read(limit)
        while more := reader.read():
            got += more
        assert got == wanted
        assert reader.waiting == 0
    finally:
        reader.close()
        ring.close()
