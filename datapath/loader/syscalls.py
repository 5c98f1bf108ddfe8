"""bpf(2) by ctypes: each command once, with the part of its attributes that we use.

Attributes are ctypes structures with the kernel's field order (include/uapi/linux/bpf.h); fields that are left out of
the end are zero to the kernel. ctypes lets other threads run while a call is in the kernel.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from ctypes import c_char_p, c_uint32, c_uint64, c_void_p
from enum import IntEnum
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar

from datapath.errors import BpfRefused, NotLoaded

_NUMBERS: Final = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}
_NUMBER: Final = _NUMBERS.get(platform.machine(), 280)
_Info = TypeVar("_Info", bound=ctypes.Structure)
_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
ENOTSUPP: Final = 524  # what the kernel says, though user space has no such number


class Command(IntEnum):
    MAP_CREATE = 0
    MAP_LOOKUP = 1
    MAP_UPDATE = 2
    MAP_DELETE = 3
    MAP_NEXT_KEY = 4
    OBJ_PIN = 6
    OBJ_GET = 7
    PROG_ATTACH = 8
    PROG_DETACH = 9
    PROG_RUN = 10
    PROG_NEXT_ID = 11
    MAP_NEXT_ID = 12
    PROG_BY_ID = 13
    MAP_BY_ID = 14
    INFO = 15
    BTF_BY_ID = 19
    MAP_LOOKUP_BATCH = 24
    MAP_UPDATE_BATCH = 26
    MAP_DELETE_BATCH = 27
    LINK_CREATE = 28
    LINK_UPDATE = 29
    LINK_BY_ID = 30
    LINK_NEXT_ID = 31
    LINK_DETACH = 34


class _Attribute(ctypes.Structure):
    _fields_: ClassVar[Any]


class MapCreate(_Attribute):
    _fields_ = (
        ("type", c_uint32), ("key_size", c_uint32), ("value_size", c_uint32), ("max_entries", c_uint32),
        ("flags", c_uint32), ("inner_fd", c_uint32), ("numa_node", c_uint32), ("name", ctypes.c_char * 16),
        ("ifindex", c_uint32), ("btf_fd", c_uint32), ("btf_key", c_uint32), ("btf_value", c_uint32),
    )  # fmt: skip


class MapElement(_Attribute):
    _fields_ = (("fd", c_uint32), ("key", c_char_p), ("value", c_void_p), ("flags", c_uint64))


class MapStore(_Attribute):
    _fields_ = (("fd", c_uint32), ("key", c_char_p), ("value", c_char_p), ("flags", c_uint64))


class MapBatch(_Attribute):
    _fields_ = (
        ("in_batch", c_void_p), ("out_batch", c_void_p), ("keys", c_void_p), ("values", c_void_p),
        ("count", c_uint32), ("fd", c_uint32), ("element_flags", c_uint64), ("flags", c_uint64),
    )  # fmt: skip


class ObjectPath(_Attribute):
    _fields_ = (("path", c_char_p), ("fd", c_uint32), ("flags", c_uint32))


class ProgramAttach(_Attribute):
    _fields_ = (
        ("target_fd", c_uint32), ("program_fd", c_uint32), ("type", c_uint32), ("flags", c_uint32),
        ("replace_fd", c_uint32),
    )  # fmt: skip


class ProgramRun(_Attribute):
    _fields_ = (
        ("fd", c_uint32), ("retval", c_uint32), ("size_in", c_uint32), ("size_out", c_uint32),
        ("data_in", c_void_p), ("data_out", c_void_p), ("repeat", c_uint32), ("duration_ns", c_uint32),
        ("context_size_in", c_uint32), ("context_size_out", c_uint32), ("context_in", c_void_p),
        ("context_out", c_void_p), ("flags", c_uint32), ("cpu", c_uint32), ("batch_size", c_uint32),
    )  # fmt: skip


class Identifier(_Attribute):
    _fields_ = (("id", c_uint32), ("next_id", c_uint32), ("flags", c_uint32))


class InfoRequest(_Attribute):
    _fields_ = (("fd", c_uint32), ("size", c_uint32), ("info", c_void_p))


class LinkCreate(_Attribute):
    _fields_ = (
        ("program_fd", c_uint32), ("target", c_uint32), ("type", c_uint32), ("flags", c_uint32),
        ("relative", c_uint32), ("expected_revision", c_uint64),
    )  # fmt: skip


class LinkUpdate(_Attribute):
    _fields_ = (("fd", c_uint32), ("program_fd", c_uint32), ("flags", c_uint32), ("old_program_fd", c_uint32))


class LinkDetach(_Attribute):
    _fields_ = (("fd", c_uint32),)


class MapInfo(_Attribute):
    _fields_ = (
        ("type", c_uint32), ("id", c_uint32), ("key_size", c_uint32), ("value_size", c_uint32),
        ("max_entries", c_uint32), ("flags", c_uint32), ("name", ctypes.c_char * 16), ("ifindex", c_uint32),
        ("btf_vmlinux_value", c_uint32), ("netns_dev", c_uint64), ("netns_inode", c_uint64), ("btf_id", c_uint32),
        ("btf_key", c_uint32), ("btf_value", c_uint32), ("pad", c_uint32), ("extra", c_uint64),
    )  # fmt: skip


class ProgramInfo(_Attribute):
    _fields_ = (
        ("type", c_uint32), ("id", c_uint32), ("tag", ctypes.c_ubyte * 8), ("jited_size", c_uint32),
        ("translated_size", c_uint32), ("jited", c_uint64), ("translated", c_uint64), ("load_time_ns", c_uint64),
        ("uid", c_uint32), ("map_count", c_uint32), ("map_ids", c_uint64), ("name", ctypes.c_char * 16),
        ("ifindex", c_uint32), ("bits", c_uint32), ("netns_dev", c_uint64), ("netns_inode", c_uint64),
        ("ksyms", c_uint32), ("func_lens", c_uint32), ("ksym_pointer", c_uint64), ("func_pointer", c_uint64),
        ("btf_id", c_uint32), ("func_record", c_uint32), ("func_info", c_uint64), ("func_count", c_uint32),
        ("line_count", c_uint32), ("line_info", c_uint64), ("jited_lines", c_uint64), ("jited_line_count", c_uint32),
        ("line_record", c_uint32), ("jited_line_record", c_uint32), ("tag_count", c_uint32), ("tags", c_uint64),
        ("run_time_ns", c_uint64), ("runs", c_uint64), ("misses", c_uint64), ("verified_instructions", c_uint32),
        ("attach_btf_object", c_uint32), ("attach_btf", c_uint32), ("pad", c_uint32),
    )  # fmt: skip


class LinkInfo(_Attribute):
    """`words` differ by kind: TCX and XDP: ifindex first, then TCX's attach type."""

    _fields_ = (
        ("type", c_uint32),
        ("id", c_uint32),
        ("program_id", c_uint32),
        ("pad", c_uint32),
        ("words", c_uint32 * 12),
    )


class BtfInfo(_Attribute):
    _fields_ = (
        ("data", c_void_p), ("size", c_uint32), ("id", c_uint32), ("name", c_void_p), ("name_size", c_uint32),
        ("kernel", c_uint32),
    )  # fmt: skip


def call(command: Command, attribute: ctypes.Structure) -> int:
    """Raises OSError with the kernel's number; nothing is interpreted here."""
    result: int = _syscall(_NUMBER, int(command), ctypes.byref(attribute), ctypes.sizeof(attribute))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def asked(what: str, command: Command, attribute: ctypes.Structure) -> int:
    """As `call`; raises BpfRefused that says what was wanted. `what` completes "cannot ..."."""
    try:
        return call(command, attribute)
    except OSError as error:
        raise BpfRefused(what, error.errno or 0) from error


def pin(fd: int, path: Path) -> None:
    asked(f"pin {path}", Command.OBJ_PIN, ObjectPath(path=os.fsencode(path), fd=fd))


def pinned(path: Path) -> int:
    """File descriptor of what is pinned at `path`. Raises NotLoaded."""
    try:
        return call(Command.OBJ_GET, ObjectPath(path=os.fsencode(path)))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise NotLoaded(f"nothing is pinned at {path}", remedy="start the node daemon") from error
        raise BpfRefused(f"open the pin {path}", error.errno or 0) from error


def replace_pin(fd: int, path: Path) -> None:
    """Pins at `path` in place of whatever is there; there is a pin at `path` at every moment."""
    temporary = path.with_name(path.name + NEW)
    temporary.unlink(missing_ok=True)
    pin(fd, temporary)
    temporary.rename(path)


# Endings of pins in the middle of a replacement; bpffs allows no dots.
NEW: Final = "~new"
OLD: Final = "~old"


def fill_info(fd: int, info: _Info) -> _Info:
    asked(
        "read an object's information",
        Command.INFO,
        InfoRequest(fd=fd, size=ctypes.sizeof(info), info=ctypes.addressof(info)),
    )
    return info


def by_id(command: Command, number: int) -> int:
    """File descriptor of a program, map, BTF or link by its id. Raises NotLoaded if it is gone."""
    try:
        return call(command, Identifier(id=number))
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise NotLoaded(f"eBPF object {number} is gone") from error
        raise BpfRefused(f"open eBPF object {number}", error.errno or 0) from error


def next_id(command: Command, number: int) -> int | None:
    """The id after `number`, None at the end."""
    attribute = Identifier(id=number)
    try:
        call(command, attribute)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise BpfRefused("list eBPF objects", error.errno or 0) from error
    return int(attribute.next_id)
