"""A range of ports as the fewest prefixes that cover it and nothing else. Pure.

At most 30 for any range (1 to 65534); one for a range that is a power of two in size and aligned.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

PORT_BITS: Final = 16


def prefixes(first: int, last: int) -> Iterator[tuple[int, int]]:
    """(port, bits) pairs in ascending order: each stands for the ports that share its first `bits` bits."""
    while first <= last:
        # As many ports as `first` is aligned for, and as still fit.
        aligned = (first & -first).bit_length() - 1 if first else PORT_BITS
        fits = (last - first + 1).bit_length() - 1
        free = min(aligned, fits)
        yield first, PORT_BITS - free
        first += 1 << free
