"""Comparing mirrors in Python with the types of a compiled object."""

from __future__ import annotations

import re
from pathlib import Path

from datapath.loader.btf import STRUCT, Btf
from datapath.loader.libbpf import Object
from datapath.record import Record


def assert_alike(path: Path, *records: type[Record]) -> None:
    """Each record has the fields, offsets and sizes of the structure of its name, of which there must be one."""
    opened = Object(path)
    try:
        types = Btf(opened.btf())
    finally:
        opened.close()
    for record in records:
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", record.__name__).lower()
        [ours] = [one for one in types.types if one.kind == STRUCT and one.name == name]
        fields = {
            field.removesuffix("_be"): (bits // 8, types.size(target))
            for field, target, bits in ours.members
            if not field.startswith("pad")
        }
        assert fields == {field: (record.OFFSETS[field], record.SIZES[field]) for field in record.OFFSETS}, name
        assert ours.size == record.SIZE
