"""Object files: constants, sizes, maps that outlive the process, layouts that change, what the verifier says."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from datapath.errors import BpfError, BpfRefused, LayoutChanged, NotLoaded, VerifierRefused
from datapath.loader import objects
from datapath.loader.layouts import Migration
from datapath.loader.maps import Map
from datapath.loader.objects import Loaded, load
from datapath.loader.programs import SkbContext
from tests.datapath.compiled import bpf_folder, build_programs, compiled

pytestmark = [pytest.mark.root, pytest.mark.tool("clang-19", "bpftool", "make")]

FRAME = bytes(12) + b"\x08\x00" + bytes(50)


@pytest.fixture
def folder() -> Iterator[Path]:
    with bpf_folder() as path:
        yield path


def settings(number: int, verdict: int = 0) -> dict[str, bytes]:
    return {"settings": struct.pack("=II", number, verdict)}


def entries(count: int, start: int = 0) -> tuple[bytes, bytes, int]:
    keys = struct.pack(f"={count}I", *range(start, start + count))
    values = b"".join(struct.pack("=II", key, 10 * key) for key in range(start, start + count))
    return keys, values, count


def content(loaded: Loaded) -> dict[int, tuple[int, ...]]:
    table = loaded.maps["table"]
    return {struct.unpack("=I", key)[0]: struct.unpack("=II", value) for key, value in table.items()}


def test_constants_reach_the_programs() -> None:
    with load(compiled("loader"), pins=None, rodata=settings(77, 5)) as loaded:
        run = loaded.programs["classify"].test_run(FRAME, context=SkbContext(mark=1, priority=3).pack())
        assert run.retval == 5
        assert run.packet == FRAME
        assert SkbContext.unpack(run.context) == SkbContext(mark=77, priority=3, ifindex=1)  # lo stands in
        assert content(loaded) == {77: (1, len(FRAME))}


@pytest.mark.parametrize("rodata", [{"nothing": b"\0" * 8}, {"settings": b"\0" * 7}, {"table": b"\0" * 8}])
def test_constants_that_do_not_fit_are_refused(rodata: dict[str, bytes]) -> None:
    with pytest.raises(BpfError, match="constant"):
        load(compiled("loader"), pins=None, rodata=rodata)


def test_only_some_programs() -> None:
    with load(compiled("loader"), pins=None, only=["early"]) as loaded:
        assert set(loaded.programs) == {"early"}


def test_programs_tell_their_complexity() -> None:
    with load(compiled("loader"), pins=None) as loaded:
        assert loaded.programs
        for program in loaded.programs.values():
            assert 0 < program.verified_instructions < 10_000
            assert program.instructions > 0


def test_maps_are_used_again_after_a_restart(folder: Path) -> None:
    with load(compiled("loader"), pins=folder) as first:
        first.maps["table"].update_batch(*entries(100))
        ids = {name: one.id for name, one in first.maps.items() if "." not in name}
    with load(compiled("loader"), pins=folder, rodata=settings(1)) as second:
        assert {name: one.id for name, one in second.maps.items() if "." not in name} == ids
        assert len(content(second)) == 100
        second.programs["classify"].test_run(FRAME)
        with Map.pinned(folder / "maps" / "table") as table:
            assert table.lookup(struct.pack("=I", 1)) == struct.pack("=II", 2, 10 + len(FRAME))


@pytest.mark.parametrize("size", [512, 4096])
def test_another_size_keeps_the_entries(folder: Path, size: int) -> None:
    with load(compiled("loader"), pins=folder) as first, Map.create(11, 8, 4, 16, flags=1) as inner:
        first.maps["table"].update_batch(*entries(200))
        first.maps["facts"].update(b"four", b"4444")
        first.maps["outer"].update(struct.pack("=I", 9), struct.pack("=I", inner.fd))
        first.maps["totals"].update(bytes(4), struct.pack("=Q", 3) * (first.maps["totals"].value_size // 8))
        sizes = {"table": size, "facts": 128, "outer": 16, "totals": 2, "not here": 1}
        with load(compiled("loader"), pins=folder, sizes=sizes) as second:
            assert {name: second.maps[name].max_entries for name in list(sizes)[:4]} == dict(list(sizes.items())[:4])
            assert content(second) == content(first)
            assert second.maps["facts"].lookup(b"four") == b"4444"
            assert second.maps["outer"].lookup(struct.pack("=I", 9)) == struct.pack("=I", inner.id)
            assert struct.unpack_from("=Q", second.maps["totals"].lookup(bytes(4)) or b"") == (3,)
        with load(compiled("loader"), pins=folder) as third:
            assert third.maps["table"].max_entries == max(size, 1024), "what is not asked for does not shrink"
            assert len(content(third)) == 200


def test_entries_written_while_the_programs_are_replaced_are_taken_over(folder: Path) -> None:
    with load(compiled("loader"), pins=folder, rodata=settings(1)) as first:
        first.programs["classify"].test_run(FRAME)
        with load(compiled("loader"), pins=folder, sizes={"table": 2048}) as second:
            first.maps["table"].update_batch(*entries(3, start=500))  # the former programs go on for a moment
            second.maps["table"].update(struct.pack("=I", 501), struct.pack("=II", 9, 9))
            assert second.settle() == 2
            assert content(second)[501] == (9, 9), "what the new programs wrote stands"
            assert set(content(second)) == {1, 500, 501, 502}
            assert second.settle() == 0
    assert not [path.name for path in (folder / "maps").iterdir() if "~" in path.name]


def test_a_map_too_small_for_its_entries_is_refused(folder: Path) -> None:
    with load(compiled("loader"), pins=folder) as first:
        for key, _ in zip(range(40), range(40), strict=True):
            first.maps["facts"].update(struct.pack("=I", key), b"fact")
    with pytest.raises(BpfRefused, match="facts"):
        load(compiled("loader"), pins=folder, sizes={"facts": 20})
    with load(compiled("loader"), pins=folder) as again:
        assert len(again.maps["facts"]) == 40


@pytest.mark.parametrize("variant", ["MOVED", "LARGE"])
def test_another_layout_is_refused_and_nothing_is_lost(folder: Path, variant: str) -> None:
    with load(compiled("loader"), pins=folder) as first:
        first.maps["table"].update_batch(*entries(10))
    with pytest.raises(LayoutChanged) as caught:
        load(compiled("loader", variant), pins=folder)
    assert caught.value.map == "table"
    assert "packets@0:4, bytes@4:4" in caught.value.old
    assert "packets@4:4" in caught.value.new or "bytes@8:8" in caught.value.new
    assert "plimsoll node cleanup" in caught.value.remedy
    with load(compiled("loader"), pins=folder) as again:
        assert len(content(again)) == 10


def test_another_version_is_refused_though_the_sizes_are_the_same(folder: Path) -> None:
    load(compiled("loader"), pins=folder).close()
    with pytest.raises(LayoutChanged, match=r"layout 1.*layout 2"):
        load(compiled("loader"), pins=folder, version=2)


def test_a_known_layout_is_migrated(folder: Path) -> None:
    with load(compiled("loader"), pins=folder) as first:
        first.maps["table"].update_batch(*entries(50))
        kept = [Migration(name, 1, one.single_value_size) for name, one in first.maps.items() if name != "table"]

    def wider(key: bytes, value: bytes) -> tuple[bytes, bytes] | None:
        packets, count = struct.unpack("=II", value)
        return None if packets == 7 else (key, struct.pack("=IxxxxQ", packets, count))

    with load(
        compiled("loader", "LARGE"), pins=folder, version=2, migrations=[*kept, Migration("table", 1, 8, wider)]
    ) as second:
        found = {
            struct.unpack("=I", key)[0]: struct.unpack("=IxxxxQ", value) for key, value in second.maps["table"].items()
        }
        assert found == {key: (key, 10 * key) for key in range(50) if key != 7}
    with load(compiled("loader", "LARGE"), pins=folder, version=2) as third:
        assert len(third.maps["table"]) == 49


def test_the_verifiers_complaint_is_short_and_says_where() -> None:
    with pytest.raises(VerifierRefused) as caught:
        load(compiled("loader", "BROKEN"), pins=None)
    assert caught.value.program == "broken"
    assert "found->packets + skb->len" in caught.value.log
    assert "invalid mem access" in caught.value.log
    assert len(caught.value.log) < 4000


def test_an_object_that_is_not_there() -> None:
    with pytest.raises(NotLoaded) as caught:
        objects.find("nothing")
    assert "make bpf" in caught.value.remedy
    with pytest.raises(NotLoaded):
        load(Path("/nonexistent.bpf.o"), pins=None)


def test_a_file_that_is_no_object(tmp_path: Path) -> None:
    path = tmp_path / "text.bpf.o"
    path.write_text("no ELF")
    with pytest.raises(BpfRefused, match="libbpf says"):
        load(path, pins=None)


def test_nothing_stays_open(folder: Path) -> None:
    def once(size: int) -> None:
        with load(compiled("loader"), pins=folder, sizes={"table": size}) as loaded:
            loaded.settle()
        with pytest.raises(LayoutChanged):
            load(compiled("loader", "MOVED"), pins=folder)
        with pytest.raises(VerifierRefused):
            load(compiled("loader", "BROKEN"), pins=None)

    once(1024)
    before = len(os.listdir("/proc/self/fd"))
    for turn in range(4):
        once(1024 + 512 * (turn % 2))
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("name", ["clock", "pod", "device", "xdp", "sockmap"])
def test_the_projects_own_programs_load(folder: Path, name: str) -> None:
    build_programs()
    with load(objects.find(name), pins=folder) as loaded:
        assert loaded.programs
        print({program.name: program.verified_instructions for program in loaded.programs.values()})
