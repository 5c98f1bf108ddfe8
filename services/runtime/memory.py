"""A service with a connection for each of thousands of nodes holds as little as it can for each, and for itself."""

from __future__ import annotations

import ctypes
import importlib
import sys
from typing import Final

# glibc's <malloc.h>
_M_MMAP_THRESHOLD: Final = -3
_M_MMAP_MAX: Final = -4
# gRPC and its TLS keep seven buffers of 8 to 17 KB for each connection, of which an idle one has used a few bytes.
BUFFER_BYTES: Final = 8192
_MAPPINGS_MAX: Final = 1 << 20


def map_buffers() -> bool:
    """Gives each block of BUFFER_BYTES or more pages of its own, so that the part never used takes no memory.

    From the heap such a block gets pages that others have used before and that stay resident: 20 KB more for each
    connection with mutual TLS. The price is a system call for each such block, 6 % of the time of a fleet's start.
    Returns whether the C library can do it. Before connections are accepted; see mallopt(3).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(
        mallopt(_M_MMAP_MAX, _MAPPINGS_MAX) and mallopt(_M_MMAP_THRESHOLD, BUFFER_BYTES)
    )


def without_rich() -> None:
    """Imports structlog such that it does without rich: 7 MB of every process, for tracebacks in colour."""
    if "rich" in sys.modules or "structlog" in sys.modules:
        return
    sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        importlib.import_module("structlog")
    finally:
        del sys.modules["rich"]
