"""What a process does at its start that thousands of nodes will stay connected to."""

from __future__ import annotations

import subprocess
import sys

_LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, {hard}))
from services.runtime.lifecycle import raise_file_limit
raise_file_limit()
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""
_MAPPED = """
import ctypes
from services.runtime.memory import BUFFER_BYTES, map_buffers
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
assert map_buffers()
before = resident()
held = []  # between buffers of handshakes, which are used up to their end and freed
handshakes = []
for _ in range(1000):
    handshakes.append(libc.malloc(BUFFER_BYTES))
    ctypes.memset(handshakes[-1], 1, BUFFER_BYTES)
    held.append(libc.malloc(100))
for each in handshakes:
    libc.free(each)
for _ in range(1000):  # buffers of connections, of which the beginnings are used
    ctypes.memset(libc.malloc(BUFFER_BYTES), 1, 16)
print((resident() - before) // 1000)
"""


def run(program: str) -> list[int]:
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return [int(each) for each in done.stdout.split()]


def test_it_may_open_as_many_files_as_its_hard_limit_allows() -> None:
    assert run(_LIMITED.format(hard=512)) == [512, 512]


def test_a_buffer_takes_the_pages_that_it_uses_and_no_more() -> None:
    (each_bytes,) = run(_MAPPED)
    assert each_bytes < 6000, "one page, not the two that a heap would keep"
