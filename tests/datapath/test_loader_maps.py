"""Maps of the kernel: single entries, batches, memory, maps of maps, the programs' clock."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Iterator

import pytest

from datapath.errors import BpfRefused, NotLoaded
from datapath.loader import maps
from datapath.loader.clock import Clock
from datapath.loader.maps import CPUS, Map
from datapath.loader.objects import load
from datapath.loader.programs import SkbContext
from tests.datapath.compiled import bpf_folder, build_programs, compiled

pytestmark = [pytest.mark.root, pytest.mark.tool("clang-19", "bpftool", "make")]

COUNT = 20_000


def keys(count: int = COUNT, start: int = 0) -> bytes:
    return struct.pack(f"={count}Q", *range(start, start + count))


@pytest.fixture
def table() -> Iterator[Map]:
    with Map.create(maps.HASH, 8, 4, COUNT, flags=maps.NO_PREALLOC, name="table") as one:
        yield one


def test_single_entries(table: Map) -> None:
    assert table.lookup(keys(1)) is None
    table.update(keys(1), b"some")
    assert table.lookup(keys(1)) == b"some"
    with pytest.raises(BpfRefused, match="EEXIST"):
        table.update(keys(1), b"more", maps.NO_EXIST)
    with pytest.raises(BpfRefused, match="ENOENT"):
        table.update(keys(1, 5), b"more", maps.EXIST)
    assert table.delete(keys(1))
    assert not table.delete(keys(1))
    assert list(table.items()) == []
    with pytest.raises(ValueError, match="8 bytes"):
        table.lookup(b"short")
    with pytest.raises(ValueError, match="4 bytes"):
        table.update(keys(1), b"too long")


@pytest.mark.parametrize("kind", [maps.HASH, maps.LRU_HASH, maps.LPM_TRIE])
def test_batches(kind: int) -> None:
    flags = maps.NO_PREALLOC if kind != maps.LRU_HASH else 0
    with Map.create(kind, 8, 4, 2 * COUNT, flags=flags) as table:
        wanted = b"".join(struct.pack("=II", 32, key) for key in range(COUNT)) if kind == maps.LPM_TRIE else keys()
        values = struct.pack(f"={COUNT}I", *range(COUNT))
        table.update_batch(wanted, values, COUNT)
        found = dict(table.items())
        assert len(found) == COUNT == len(table)
        assert found[wanted[80:88]] == values[40:44]
        absent = struct.pack("=II", 32, 1 << 30) if kind == maps.LPM_TRIE else keys(1, 1 << 30)
        assert table.delete_batch(wanted[: 8 * 100] + absent + wanted[8 * 100 : 8 * 200], 201) == 200
        assert len(table) == COUNT - 200
        table.clear()
        assert len(table) == 0


def test_a_full_map_says_how_far_it_got(table: Map) -> None:
    with pytest.raises(BpfRefused) as caught:
        table.update_batch(keys(2 * COUNT), bytes(8 * COUNT), 2 * COUNT)
    assert caught.value.done == COUNT == len(table)
    assert "full" in caught.value.message


def test_batches_grow_with_the_fullest_bucket(table: Map) -> None:
    table.update_batch(keys(), bytes(4 * COUNT), COUNT)
    assert sum(count for _, _, count in table.keys_batches(size=1)) == COUNT


def test_maps_without_batches_are_walked() -> None:
    with load(compiled("loader"), pins=None) as loaded:
        outer = loaded.maps["outer"]
        inner = [Map.create(maps.LPM_TRIE, 8, 4, 16, flags=maps.NO_PREALLOC) for _ in range(5)]
        outer.update_batch(struct.pack("=5I", *range(5)), struct.pack("=5I", *(one.fd for one in inner)), 5)
        assert dict(outer.items()) == {struct.pack("=I", n): struct.pack("=I", one.id) for n, one in enumerate(inner)}
        assert [tuple(batch) for batch in outer._walked(2)][-1][2] == 1
        for one in inner:
            one.close()
        with Map.by_id(struct.unpack("=I", outer.lookup(bytes(4)) or b"")[0]) as first:
            with first.create_like() as other:
                outer.update(struct.pack("=I", 6), struct.pack("=I", other.fd))
            assert first.type == maps.LPM_TRIE
        assert outer.delete_batch(struct.pack("=3I", 0, 77, 6), 3) == 2


def test_values_of_all_processors() -> None:
    with Map.create(maps.PERCPU_ARRAY, 4, 12, 3) as table:
        assert table.value_size == 16 * CPUS
        assert table.single_value_size == 12
        table.update(bytes(4), b"0123456789ab    " * CPUS)
        assert (table.lookup(bytes(4)) or b"")[16 * (CPUS - 1) :][:12] == b"0123456789ab"
        assert sum(count for _, _, count in table.keys_batches()) == 3


def test_memory_is_shared_with_the_programs() -> None:
    with load(compiled("loader"), pins=None) as loaded:
        knob = loaded.maps["knob"].mmap()
        knob[:] = struct.pack("=Q", 42)
        assert loaded.maps["knob"].lookup(bytes(4)) == struct.pack("=Q", 42)
        assert loaded.programs["tell"].test_run(bytes(64), context=SkbContext().pack()).retval == 42
        with pytest.raises(BpfRefused, match="memory"):
            loaded.maps["table"].mmap()


def test_pins() -> None:
    with bpf_folder() as folder, Map.create(maps.HASH, 8, 4, 16) as one, Map.create(maps.HASH, 8, 4, 32) as two:
        with pytest.raises(NotLoaded):
            Map.pinned(folder / "table")
        folder.mkdir()
        for each in (one, two):
            each.pin(folder / "table")
            with Map.pinned(folder / "table") as found:
                assert (found.id, found.name) == (each.id, "table")
        (folder / "table").unlink()


def test_threads_share_a_map(table: Map) -> None:
    def work(start: int) -> None:
        for key in range(start, start + 500):
            one = struct.pack("=Q", key)
            table.update(one, struct.pack("=I", key))
            if table.lookup(one) != struct.pack("=I", key):
                wrong.append(key)

    wrong: list[int] = []
    threads = [threading.Thread(target=work, args=(1000 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(table) == 2000


def test_the_clock_of_the_programs() -> None:
    build_programs()
    clock = Clock()
    try:
        assert clock.hz in (100, 250, 300, 1000)
        jiffies, time_ns = clock.read()
        time.sleep(0.4)
        later, later_ns = clock.read()
        assert (later - jiffies) / ((later_ns - time_ns) / 1e9) == pytest.approx(clock.hz, rel=0.05)
        assert abs(time_ns - time.monotonic_ns()) < 60e9
        assert clock.age_s(clock.now_j() - clock.hz) == pytest.approx(1, abs=0.1)
        assert clock.age_s(clock.now_j() + clock.hz) == pytest.approx(-1, abs=0.1)
    finally:
        clock.close()
