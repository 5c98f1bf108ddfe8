"""Memory of processes, as benches state it."""

from __future__ import annotations

import os
import resource

import pytest

from tests.bench.rss import memory_of, memory_rows


def test_what_a_process_holds_is_no_more_than_it_ever_held() -> None:
    memory = memory_of(os.getpid())
    assert 0 < memory.now_mb <= memory.peak_mb
    assert memory.peak_mb >= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6 * 0.9


def test_each_process_has_a_row_for_now_and_one_for_its_peak_which_may_have_a_target() -> None:
    rows = memory_rows("two nodes", {"ipam-aws": os.getpid(), "redis": os.getpid()}, {"ipam-aws": "<= 100000"})
    assert [(row.name, row.unit, row.met) for row in rows] == [
        ("two nodes: memory of ipam-aws", "MB", None),
        ("two nodes: memory of ipam-aws, peak", "MB", True),
        ("two nodes: memory of redis", "MB", None),
        ("two nodes: memory of redis, peak", "MB", None),
    ]


def test_a_process_that_is_gone_has_no_memory() -> None:
    with pytest.raises(OSError, match="No such file"):
        memory_of(2**22 + 1)
