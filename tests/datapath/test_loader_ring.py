"""Events from programs: in order, whole across the buffer's end, and those that found no room counted."""

from __future__ import annotations

import select
import struct
from collections.abc import Iterator

import pytest

from datapath.loader.objects import Loaded, load
from datapath.loader.programs import SkbContext
from datapath.loader.ringbuf import RingReader
from tests.datapath.compiled import compiled

pytestmark = [pytest.mark.root, pytest.mark.tool("clang-19", "bpftool", "make")]

RECORD = struct.Struct("=IxxxxIxxxxQ")
ROOM = 16384 // (24 + 8)


@pytest.fixture
def loaded() -> Iterator[Loaded]:
    with load(compiled("loader"), pins=None) as one:
        yield one


@pytest.fixture
def reader(loaded: Loaded) -> Iterator[RingReader]:
    one = RingReader(loaded.maps["ring"], loaded.maps["lost"])
    yield one
    one.close()


def tell(loaded: Loaded, number: int, priority: int = 0, repeat: int = 1) -> None:
    context = SkbContext(mark=number, priority=priority).pack()
    loaded.programs["tell"].test_run(bytes(64), context=context, repeat=repeat)


def numbers(records: list[bytes]) -> list[int]:
    return [RECORD.unpack(one)[0] for one in records]


def test_records_come_in_order_and_discarded_ones_do_not(loaded: Loaded, reader: RingReader) -> None:
    assert reader.read() == []
    for number in range(10):
        tell(loaded, number, priority=number % 2)
    assert reader.waiting == 10 * 32
    assert numbers(reader.read()) == [0, 2, 4, 6, 8]
    assert reader.waiting == 0
    assert reader.read() == []


def test_a_limit_leaves_the_rest(loaded: Loaded, reader: RingReader) -> None:
    for number in range(5):
        tell(loaded, number)
    assert numbers(reader.read(limit=2)) == [0, 1]
    assert numbers(reader.read(limit=2)) == [2, 3]
    assert numbers(reader.read()) == [4]


def test_records_that_wrap_are_whole(loaded: Loaded, reader: RingReader) -> None:
    wide = SkbContext(mark=0x5A).pack()
    for turn in range(2000):  # 144 bytes a turn: many times around, at odd places
        tell(loaded, turn)
        loaded.programs["tell_more"].test_run(bytes(64), context=wide)
        if turn % 7 == 6:
            records = reader.read()
            assert [len(one) for one in records] == [24, 104] * 7
            assert numbers(records[::2]) == list(range(turn - 6, turn + 1))
            assert all(one == b"\x5a" + bytes(103) for one in records[1::2])


def test_what_finds_no_room_is_counted(loaded: Loaded, reader: RingReader) -> None:
    tell(loaded, 1, repeat=ROOM + 50)
    held = len(reader.read())
    assert ROOM - 2 <= held <= ROOM
    assert reader.lost == ROOM + 50 - held
    tell(loaded, 2)
    assert numbers(reader.read()) == [2], "there is room again"


def test_readers_are_woken(loaded: Loaded, reader: RingReader) -> None:
    poll = select.epoll()
    try:
        poll.register(reader.fileno(), select.EPOLLIN)
        assert poll.poll(0) == []
        tell(loaded, 1)
        assert [descriptor for descriptor, _ in poll.poll(1)] == [reader.fileno()]
        reader.read()
        assert poll.poll(0) == []
    finally:
        poll.close()


def test_a_new_reader_goes_on_where_the_former_ended(loaded: Loaded, reader: RingReader) -> None:
    for number in range(4):
        tell(loaded, number)
    assert numbers(reader.read(limit=2)) == [0, 1]
    other = RingReader(loaded.maps["ring"])
    assert numbers(other.read()) == [2, 3]
    assert other.lost == 0
    other.close()
