"""C structures as frozen dataclasses: fields in the order of memory, with their width, and `pack` and `unpack`.

    @record
    class Nat(Record):
        address: bytes = address16()
        port: int = be16(pad=2)         # network byte order in memory, a plain number here; 2 bytes of padding follow

Everything else is in the machine's byte order. Padding is packed as zeros: keys are compared bytewise by the kernel.
"""

from __future__ import annotations

import dataclasses
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Self, TypeVar, dataclass_transform

_T = TypeVar("_T")


def _field(code: str, default: object, pad: int, size: int, **more: object) -> Any:
    return dataclasses.field(default=default, metadata={"code": code, "pad": pad, "size": size, **more})


def u8(default: int = 0, *, pad: int = 0) -> Any:
    return _field("B", default, pad, 1)


def u16(default: int = 0, *, pad: int = 0) -> Any:
    return _field("H", default, pad, 2)


def u32(default: int = 0, *, pad: int = 0) -> Any:
    return _field("I", default, pad, 4)


def u64(default: int = 0, *, pad: int = 0) -> Any:
    return _field("Q", default, pad, 8)


def be16(default: int = 0, *, pad: int = 0) -> Any:
    return _field("H", default, pad, 2, read=socket.ntohs, write=socket.htons)


def be32(default: int = 0, *, pad: int = 0) -> Any:
    return _field("I", default, pad, 4, read=socket.ntohl, write=socket.htonl)


def raw(size: int, *, pad: int = 0) -> Any:
    """Bytes as they are."""
    return _field(f"{size}s", bytes(size), pad, size)


def address16(*, pad: int = 0) -> Any:
    """An address of 16 bytes, IPv4 as ::ffff:a.b.c.d; all zero: none."""
    return raw(16, pad=pad)


def mac6(*, pad: int = 0) -> Any:
    return raw(6, pad=pad)


def nested(cls: type[Record], *, pad: int = 0) -> Any:
    return _field(f"{cls.SIZE}s", cls(), pad, cls.SIZE, read=cls.unpack, write=cls.pack)


class Record:
    """:cvar SIZE: bytes. :cvar OFFSETS: where each field begins. :cvar SIZES: how long each is."""

    __slots__ = ()
    SIZE: ClassVar[int]
    STRUCT: ClassVar[struct.Struct]
    OFFSETS: ClassVar[Mapping[str, int]]
    SIZES: ClassVar[Mapping[str, int]]
    _READ: ClassVar[tuple[tuple[int, Callable[[Any], Any]], ...]]
    _WRITE: ClassVar[tuple[tuple[int, Callable[[Any], Any]], ...]]
    _NAMES: ClassVar[tuple[str, ...]]

    def pack(self) -> bytes:
        values = [getattr(self, name) for name in self._NAMES]
        for place, convert in self._WRITE:
            values[place] = convert(values[place])
        return self.STRUCT.pack(*values)

    @classmethod
    def unpack(cls, data: bytes | memoryview, offset: int = 0) -> Self:
        return cls._from(cls.STRUCT.unpack_from(data, offset))

    @classmethod
    def unpack_all(cls, data: bytes | memoryview) -> Iterator[Self]:
        """Records that lie one behind the other, such as the values of a batch."""
        return map(cls._from, cls.STRUCT.iter_unpack(data))

    @classmethod
    def _from(cls, values: tuple[Any, ...]) -> Self:
        if cls._READ:
            changed = list(values)
            for place, convert in cls._READ:
                changed[place] = convert(changed[place])
            return cls(*changed)
        return cls(*values)


@dataclass_transform(frozen_default=True)
def record(cls: type[_T]) -> type[_T]:
    made: Any = dataclasses.dataclass(frozen=True, slots=True)(cls)
    fields = dataclasses.fields(made)
    code, offset = "=", 0
    offsets, sizes = {}, {}
    for one in fields:
        code += one.metadata["code"] + (f"{one.metadata['pad']}x" if one.metadata["pad"] else "")
        offsets[one.name], sizes[one.name] = offset, one.metadata["size"]
        offset += one.metadata["size"] + one.metadata["pad"]
    made.STRUCT, made.SIZE, made.OFFSETS, made.SIZES = struct.Struct(code), offset, offsets, sizes
    made._NAMES = tuple(offsets)
    made._READ = tuple((n, one.metadata["read"]) for n, one in enumerate(fields) if "read" in one.metadata)
    made._WRITE = tuple((n, one.metadata["write"]) for n, one in enumerate(fields) if "write" in one.metadata)
    return made  # type: ignore[no-any-return]
