"""The project's eBPF programs with counters of clang's in them.

Clang writes for each function how its counters tell of its branches (the mapping), and lets the code count in a section
that a runtime of user space would write to a file. In the kernel there is none: the section is renamed to one that
libbpf makes a map of, everything else that is for the runtime is left out, and the map is read instead.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.datapath.compiled import BUILT, ROOT, build_programs

FOLDER: Final = BUILT / "coverage"
SECTION: Final = ".data.counters"  # also the name of the map

_COUNTED: Final = "-fprofile-instr-generate -fcoverage-mapping -mllvm -enable-name-compression=false -S -emit-llvm"
_CODE: Final = ("clang-19", "-target", "bpf", "-O2", "-mcpu=v3", "-Xclang", "-disable-llvm-passes", "-x", "ir", "-c")

# What of the compiler's output is for the runtime, or for the reader of the mapping.
_NOT_LOADED: Final = re.compile(r"[@$]\"?(__covrec_|__llvm_|__prof[cd]_.* = comdat|__profd_|llvm\.(compiler\.)?used)")
_COUNTERS: Final = re.compile(r'(@"?__profc_[^ ]+) = .*?global (\[\d+ x i64\] zeroinitializer), section .*')
_DATA: Final = re.compile(r'@"?__profd_([^ "]+)"? = .*?\{ i64 (-?\d+), i64 (-?\d+), ')
_NAMES: Final = re.compile(r'@__llvm_prf_nm = .*? c"((?:[^"\\]|\\[0-9A-F]{2})*)"')
_WORD: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Function:
    """:ivar checksum: of its shape: the mapping is for this one. :ivar offset: of its counters in the map, in bytes."""

    name: str
    checksum: int
    offset: int
    counters: int


@dataclass(frozen=True, slots=True)
class Instrumented:
    """:ivar path: to load. :ivar mapping: an object that llvm-cov reads the mapping of."""

    path: Path
    mapping: Path
    functions: tuple[Function, ...]


def build() -> dict[str, Instrumented]:
    """All programs, by name ("pod"); they lie in FOLDER. Raises CalledProcessError."""
    build_programs()  # vmlinux.h, once
    FOLDER.mkdir(parents=True, exist_ok=True)
    names = sorted(path.name.removesuffix(".bpf.c") for path in (ROOT / "bpf").glob("*.bpf.c"))
    with ThreadPoolExecutor() as pool:
        return dict(zip(names, pool.map(_build, names), strict=True))


def _build(name: str) -> Instrumented:
    whole, loaded = FOLDER / f"{name}.ll", FOLDER / f"{name}.loaded.ll"
    subprocess.run(
        ["make", "-s", "-C", str(ROOT / "bpf"), "one", f"SOURCE={ROOT / 'bpf' / name}.bpf.c", f"TARGET={whole}",
         f"DEFINES={_COUNTED}"],
        check=True,
    )  # fmt: skip
    text = whole.read_text()
    loaded.write_text("\n".join(_kept(line) for line in text.splitlines() if not _NOT_LOADED.match(line)) + "\n")
    one = Instrumented(FOLDER / f"{name}.bpf.o", FOLDER / f"{name}.mapping.o", ())
    for source, target in ((loaded, one.path), (whole, one.mapping)):
        subprocess.run([*_CODE, str(source), "-o", str(target)], check=True)
    subprocess.run(["llvm-strip-19", "-g", str(one.path)], check=True)
    return Instrumented(one.path, one.mapping, tuple(_functions(text, one.path)))


def _kept(line: str) -> str:
    return _COUNTERS.sub(rf'\1 = internal global \2, section "{SECTION}", align 8', line)


def _functions(text: str, path: Path) -> list[Function]:
    found = _NAMES.search(text)
    assert found is not None, f"{path.name}: no names of functions"
    # Two numbers come first, the lengths with and without compression; the high bit is set in all bytes but their last.
    raw = re.sub(rb"\\([0-9A-F]{2})", lambda match: bytes.fromhex(match[1].decode()), found[1].encode())
    names = re.sub(rb"^([\x80-\xff]*[\x00-\x7f]){2}", b"", raw).split(b"\x01")
    by_hash = {hashlib.md5(name).digest()[:8]: name.decode() for name in names}
    sizes = {match[1].removeprefix('@"').removeprefix("@"): match[2] for match in _COUNTERS.finditer(text)}
    places = _places(path)
    functions = []
    for match in _DATA.finditer(text):
        symbol, reference, checksum = match[1], int(match[2]) & _WORD, int(match[3]) & _WORD
        counters = next(size for name, size in sizes.items() if name.rstrip('"') == f"__profc_{symbol}")
        functions.append(
            Function(
                by_hash[reference.to_bytes(8, "little")], checksum, places[f"__profc_{symbol}"],
                int(counters[1:].split()[0]),
            )
        )  # fmt: skip
    return functions


def _places(path: Path) -> dict[str, int]:
    listed = subprocess.run(["llvm-nm-19", str(path)], check=True, capture_output=True, text=True).stdout
    return {fields[2]: int(fields[0], 16) for line in listed.splitlines() if len(fields := line.split()) == 3}
