"""Reading a ring buffer of events: the kernel's memory, mapped, and no system call for an event.

    page 0            page 1             pages 2 ...
    reader's position writer's position  records, mapped twice in a row, so one that wraps lies in one piece

Each record has a header of 8 bytes: its length with a bit for "being written" and one for "discarded".
"""

from __future__ import annotations

import ctypes
import functools
import mmap as memory
import struct
import threading
from typing import Final

from datapath.errors import BpfRefused
from datapath.loader.maps import Map

_BUSY: Final = 1 << 31
_DISCARDED: Final = 1 << 30
_LENGTH: Final = _DISCARDED - 1
_HEADER: Final = 8
_SHORTEST_RUN, _LONGEST_RUN = 4, 4096


class RingReader:
    """One reader for one ring buffer; not thread-safe, and two readers of one buffer take each other's records.

    :param ring: stays open as long as the reader is used.
    :param lost: an array, per CPU or not, in whose first entry programs count what found no room.
    """

    def __init__(self, ring: Map, lost: Map | None = None) -> None:
        self._ring, self._lost = ring, lost
        self._size = ring.max_entries
        page = memory.PAGESIZE
        try:
            self._consumer = memory.mmap(ring.fd, page, flags=memory.MAP_SHARED)
            self._records = memory.mmap(
                ring.fd, page + 2 * self._size, flags=memory.MAP_SHARED, prot=memory.PROT_READ, offset=page
            )
        except OSError as error:
            raise BpfRefused(f"map ring buffer {ring.name} into memory", error.errno or 0) from error
        self._data = memoryview(self._records)[page:]
        self._position = ctypes.c_uint64.from_buffer(self._consumer)
        self._barrier = threading.Lock()
        self._words = self._data.cast("I")
        self._written = memoryview(self._records)[:8].cast("Q")

    def close(self) -> None:
        del self._position
        for view in (self._words, self._written, self._data):
            view.release()
        self._records.close()
        self._consumer.close()

    def fileno(self) -> int:
        """For epoll and asyncio's add_reader: readable when there are records."""
        return self._ring.fd

    @property
    def lost(self) -> int:
        """Events that programs could not write because the buffer was full, since they were loaded."""
        if self._lost is None:
            return 0
        value = self._lost.lookup(bytes(self._lost.key_size)) or b""
        return sum(number for (number,) in struct.iter_unpack("=Q", value[: len(value) // 8 * 8]))

    @property
    def waiting(self) -> int:
        """Bytes that have been written and not been read."""
        return int(self._written[0]) - int(self._position.value)

    def read(self, limit: int = 8192) -> list[bytes]:
        """Records that are complete, oldest first, at most `limit`; the room they took is given back.

        Runs of records of one length, which is what a program writes, are found and copied at once."""
        position = start = int(self._position.value)
        end = int(self._written[0])
        words, data, mask = self._words, self._data, self._size - 1
        found: list[bytes] = []
        run = _SHORTEST_RUN
        self._fence()
        while position < end and len(found) < limit:
            offset = position & mask
            header = words[offset >> 2]
            if header & _BUSY:
                break
            length = header & _LENGTH
            stride = length + _HEADER + 7 & ~7
            if header & _DISCARDED:
                position += stride
                continue
            most = min((end - position) // stride, limit - len(found), run)
            # Each header is where it is looked for, if all before it had this length.
            headers = words[offset >> 2 : offset + most * stride >> 2 : stride >> 2].tolist()
            alike = most if headers.count(length) == most else _alike(headers, length)
            run = min(2 * run, _LONGEST_RUN) if alike == most else _SHORTEST_RUN
            self._fence()
            found += [one for (one,) in _body(length).iter_unpack(data[offset : offset + alike * stride])]
            position += alike * stride
        if position != start:
            self._position.value = position
        return found

    def _fence(self) -> None:
        """What is read after this was not read before it: processors other than x86 reorder, and taking a lock forbids
        that."""
        with self._barrier:
            pass


def _alike(headers: list[int], length: int) -> int:
    return next(place for place, header in enumerate(headers) if header != length)


@functools.lru_cache(maxsize=256)
def _body(length: int) -> struct.Struct:
    return struct.Struct(f"={_HEADER}x{length}s{-length % 8}x")
