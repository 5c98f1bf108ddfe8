"""datapath/layout.py says what the compiled programs mean by bpf/include/types.h."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from datapath import layout
from datapath.events import words
from datapath.loader.btf import STRUCT, Btf
from datapath.loader.libbpf import Object
from datapath.record import Record
from tests.datapath.compiled import ROOT, compiled

pytestmark = pytest.mark.tool("clang-19", "bpftool", "make")

HEADER = (ROOT / "bpf/include/types.h").read_text()
RECORDS = [
    one for one in vars(layout).values() if isinstance(one, type) and issubclass(one, Record) and one is not Record
]
# Names that would hide a type of Python's.
OTHER_NAMES = {"bytes": "byte_count"}


@pytest.fixture(scope="module")
def types() -> Btf:
    opened = Object(compiled("types"))
    try:
        return Btf(opened.btf())
    finally:
        opened.close()


def c_name(record: type[Record]) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", record.__name__).lower()


def test_every_structure_has_a_mirror() -> None:
    assert set(re.findall(r"^struct (\w+) \{", HEADER, re.MULTILINE)) - {"address"} == set(map(c_name, RECORDS))


@pytest.mark.parametrize("record", RECORDS, ids=c_name)
def test_structures_are_alike(types: Btf, record: type[Record]) -> None:
    [variable] = [one for one in types.types if one.name == f"_{c_name(record)}"]
    ours = types.types[variable.target]
    assert (ours.kind, ours.name) == (STRUCT, c_name(record))
    compiled_fields = {
        OTHER_NAMES.get(name, name).removesuffix("_be"): (bits // 8, types.size(target))
        for name, target, bits in ours.members
        if not name.startswith("pad")
    }
    assert compiled_fields == {name: (record.OFFSETS[name], record.SIZES[name]) for name in record.OFFSETS}
    assert record.SIZE == ours.size == record.STRUCT.size == len(record().pack())


def test_constants_are_alike() -> None:
    defined = dict(re.findall(r"^#define (\w+) (.+?)(?:\s*/\*.*)?$", HEADER, re.MULTILINE))
    values = {name: eval(text, {"__builtins__": {}}) for name, text in defined.items()}
    assert values
    assert {name: getattr(layout, name, None) for name in values} == values


@pytest.mark.parametrize(
    ("prefix", "named", "count"),
    [
        ("DROP_", {number: one.word for number, one in words.REASONS.items()}, layout.DROP_REASONS),
        ("HOOK_", layout.HOOK_WORDS, layout.HOOKS),
        ("ACTION_", words.ACTIONS, None),
        ("EVENT_", layout.EVENT_WORDS, None),
        ("STEP_", layout.STEP_WORDS, None),
        ("SOURCE_", layout.SOURCE_FILES, None),
    ],
)
def test_every_number_has_a_word(prefix: str, named: Mapping[int, str], count: int | None) -> None:
    numbers = {value for name, value in vars(layout).items() if name.startswith(prefix) and isinstance(value, int)}
    numbers -= {layout.DROP_REASONS} if prefix == "DROP_" else {layout.EVENT_DATA_BYTES, layout.EVENT_SIZE}
    assert set(named) == numbers
    assert len(set(named.values())) == len(named)
    assert count in (None, len(named))
