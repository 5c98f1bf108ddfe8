"""Types as compilers and the kernel tell them (BTF), read enough to compare layouts and to find constants.

Format: Documentation/bpf/btf.rst of the kernel. Only this machine's byte order is read.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from datapath.loader import syscalls
from datapath.loader.syscalls import BtfInfo, Command

_MAGIC: Final = 0xEB9F
_HEADER: Final = struct.Struct("=HBBIIIII")
_TYPE: Final = struct.Struct("=III")
INT, POINTER, ARRAY, STRUCT, UNION, ENUM, FORWARD, TYPEDEF, VOLATILE, CONST, RESTRICT = range(1, 12)
FUNCTION, PROTOTYPE, VARIABLE, SECTION, FLOAT, DECL_TAG, TYPE_TAG, ENUM64 = range(12, 20)
# Bytes that follow each member, parameter, value or variable of a type.
_EACH: Final = {STRUCT: 12, UNION: 12, ENUM: 8, PROTOTYPE: 8, SECTION: 12, ENUM64: 12}
_ONCE: Final = {INT: 4, ARRAY: 12, VARIABLE: 4, DECL_TAG: 4}
_PASSED_THROUGH: Final = frozenset({TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG})


@dataclass(frozen=True, slots=True)
class Type:
    """One type. `target`: what a pointer, typedef, array or variable refers to. `length`: of an array.

    :ivar size: bytes, of integers, enums, structs and unions.
    :ivar members: of structs and unions: name, type, offset in bits; of sections: variables with offsets in bytes."""

    kind: int
    name: str
    size: int = 0
    target: int = 0
    length: int = 0
    members: tuple[tuple[str, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Field:
    """A member that holds a value, however deep: `path` like target.mac."""

    path: str
    offset: int
    size: int


class Btf:
    """All types of an object or a map."""

    def __init__(self, data: bytes) -> None:
        magic, _, _, header, type_offset, type_size, string_offset, string_size = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            raise ValueError("not BTF of this machine's byte order")
        self._strings = data[header + string_offset : header + string_offset + string_size]
        self.types: list[Type] = [Type(0, "void")]
        self.types.extend(self._read(data[header + type_offset : header + type_offset + type_size]))

    @classmethod
    def of_id(cls, number: int) -> Btf:
        """Types that the kernel keeps under an id. Raises NotLoaded, BpfRefused."""
        fd = syscalls.by_id(Command.BTF_BY_ID, number)
        try:
            size = syscalls.fill_info(fd, BtfInfo()).size
            buffer = ctypes.create_string_buffer(size)
            syscalls.fill_info(fd, BtfInfo(data=ctypes.addressof(buffer), size=size))
            return cls(buffer.raw)
        finally:
            os.close(fd)

    def _text(self, offset: int) -> str:
        return self._strings[offset : self._strings.index(b"\0", offset)].decode()

    def _read(self, data: bytes) -> Iterator[Type]:
        position = 0
        while position < len(data):
            name_offset, info, size_or_type = _TYPE.unpack_from(data, position)
            position += _TYPE.size
            kind, count, bitfields = info >> 24 & 0x1F, info & 0xFFFF, info >> 31
            name = self._text(name_offset)
            extra = _ONCE.get(kind, 0) + _EACH.get(kind, 0) * count
            body = data[position : position + extra]
            position += extra
            if kind in (STRUCT, UNION):
                members = tuple(
                    (self._text(text), target, offset & 0xFFFFFF if bitfields else offset)
                    for text, target, offset in struct.iter_unpack("=III", body)
                )
                yield Type(kind, name, size=size_or_type, members=members)
            elif kind == SECTION:
                variables = tuple(("", target, offset) for target, offset, _ in struct.iter_unpack("=III", body))
                yield Type(kind, name, size=size_or_type, members=variables)
            elif kind == ARRAY:
                element, _, length = struct.unpack("=III", body)
                yield Type(kind, name, target=element, length=length)
            elif kind in (INT, ENUM, ENUM64, FLOAT):
                yield Type(kind, name, size=size_or_type)
            else:
                yield Type(kind, name, target=size_or_type)

    def resolved(self, number: int) -> Type:
        """The type behind typedefs and qualifiers."""
        one = self.types[number]
        while one.kind in _PASSED_THROUGH:
            one = self.types[one.target]
        return one

    def size(self, number: int) -> int:
        """Bytes a value of the type takes."""
        one = self.resolved(number)
        if one.kind == POINTER:
            return 8
        if one.kind == ARRAY:
            return one.length * self.size(one.target)
        return one.size

    def named(self, kind: int, name: str) -> int | None:
        """Number of the type."""
        return next((n for n, one in enumerate(self.types) if one.kind == kind and one.name == name), None)

    def section(self, name: str) -> Mapping[str, tuple[int, int]]:
        """Variables of a section such as .rodata: offset and size in bytes by name."""
        number = self.named(SECTION, name)
        if number is None:
            return {}
        found = {}
        for _, variable, offset in self.types[number].members:
            one = self.types[variable]
            found[one.name] = (offset, self.size(one.target))
        return found

    def fields(self, number: int, path: str = "", offset: int = 0) -> Iterator[Field]:
        """All values within a type in order of their place; arrays of numbers count as one."""
        one = self.resolved(number)
        if one.kind in (STRUCT, UNION):
            for name, target, bits in one.members:
                inner = ".".join(part for part in (path, name) if part)
                yield from self.fields(target, inner, offset + bits // 8)
        else:
            yield Field(path, offset, self.size(number))

    def describe(self, number: int) -> str:
        """The layout in canonical words: equal texts mean equal layouts."""
        one = self.resolved(number)
        if one.kind not in (STRUCT, UNION):
            return f"{self.size(number)} bytes"
        inside = ", ".join(f"{field.path}@{field.offset}:{field.size}" for field in self.fields(number))
        return f"{'struct' if one.kind == STRUCT else 'union'} {one.name} of {one.size} bytes ({inside})"
