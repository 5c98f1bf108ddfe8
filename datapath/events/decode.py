"""Records of the ring buffer as events.

Ten times faster than field by field: fixed-size records, joined, go through one `Struct.iter_unpack`.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Final

from datapath.events.model import Event

EVENT: Final = Struct("=Q4BH2B16s16s2H6I2H2I96s")
SIZE: Final = EVENT.size
# What is looked at when nobody listens: `suppressed`.
_GLANCE: Final = Struct("=72xI108x")

Record = bytes | bytearray | memoryview


def decode(records: Sequence[Record]) -> tuple[list[Event], int]:
    """Events in their order, and how many records were none: those of another release's length are passed over."""
    whole = [record for record in records if len(record) == SIZE]
    make = Event._make
    return [make(fields) for fields in EVENT.iter_unpack(b"".join(whole))], len(records) - len(whole)


def glance(records: Sequence[Record]) -> tuple[int, int]:
    """How many events the records are, and how many more the programs left out before them."""
    whole = [record for record in records if len(record) == SIZE]
    return len(whole), sum(suppressed for (suppressed,) in _GLANCE.iter_unpack(b"".join(whole)))
