"""libbpf.so.1 by ctypes: opening, relocating and loading object files. Everything else is done by bpf(2) itself.

Only what is in libbpf 1.0 is used, so any later one will do.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import mmap
import os
import threading
from collections.abc import Iterator
from ctypes import CFUNCTYPE, POINTER, c_bool, c_char_p, c_int, c_size_t, c_uint32, c_void_p
from pathlib import Path
from typing import Any, Final

from datapath.errors import BpfRefused, NotLoaded, VerifierRefused
from datapath.loader import verifier

# The kernel writes as much as there is to say; what is not written takes no memory.
_LOG_BYTES: Final = 64 << 20
_MESSAGES_KEPT: Final = 40
_Print = CFUNCTYPE(c_int, c_int, c_char_p, c_void_p)

_FUNCTIONS: Final = {
    "bpf_object__open_file": (c_void_p, c_char_p, c_void_p),
    "bpf_object__load": (c_int, c_void_p),
    "bpf_object__close": (None, c_void_p),
    "bpf_object__btf": (c_void_p, c_void_p),
    "bpf_object__next_program": (c_void_p, c_void_p, c_void_p),
    "bpf_object__next_map": (c_void_p, c_void_p, c_void_p),
    "btf__raw_data": (c_void_p, c_void_p, POINTER(c_uint32)),
    "bpf_program__name": (c_char_p, c_void_p),
    "bpf_program__fd": (c_int, c_void_p),
    "bpf_program__set_autoload": (c_int, c_void_p, c_bool),
    "bpf_map__name": (c_char_p, c_void_p),
    "bpf_map__fd": (c_int, c_void_p),
    "bpf_map__type": (c_int, c_void_p),
    "bpf_map__key_size": (c_uint32, c_void_p),
    "bpf_map__value_size": (c_uint32, c_void_p),
    "bpf_map__max_entries": (c_uint32, c_void_p),
    "bpf_map__map_flags": (c_uint32, c_void_p),
    "bpf_map__btf_key_type_id": (c_uint32, c_void_p),
    "bpf_map__btf_value_type_id": (c_uint32, c_void_p),
    "bpf_map__is_internal": (c_bool, c_void_p),
    "bpf_map__inner_map": (c_void_p, c_void_p),
    "bpf_map__initial_value": (c_void_p, c_void_p, POINTER(c_size_t)),
    "bpf_map__set_max_entries": (c_int, c_void_p, c_uint32),
    "bpf_map__reuse_fd": (c_int, c_void_p, c_int),
}


class _OpenOptions(ctypes.Structure):
    _fields_ = (
        ("size", c_size_t), ("object_name", c_char_p), ("relaxed_maps", c_bool), ("pin_root_path", c_char_p),
        ("stub", c_uint32), ("kconfig", c_char_p), ("btf_custom_path", c_char_p), ("kernel_log", c_void_p),
        ("kernel_log_size", c_size_t), ("kernel_log_level", c_uint32),
    )  # fmt: skip


@functools.cache
def library() -> Any:
    """Raises NotLoaded where libbpf is not installed."""
    try:
        found = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        raise NotLoaded("libbpf.so.1 is not installed", remedy="install Debian's package libbpf1") from error
    for name, (result, *arguments) in _FUNCTIONS.items():
        function = getattr(found, name)
        function.restype, function.argtypes = result, arguments
    found.libbpf_set_print.argtypes = (_Print,)
    found.libbpf_set_print(_print)
    return found


# libbpf tells of problems by one callback for the whole process; each thread keeps its own.
_said = threading.local()
_format = ctypes.CDLL(None).vsnprintf


def _take(level: int, text: bytes, arguments: int) -> int:
    messages: list[str] | None = getattr(_said, "messages", None)
    if messages is None or level > 1:  # 0: warning, 1: information, 2: debug
        return 0
    buffer = ctypes.create_string_buffer(2048)
    _format(buffer, c_size_t(len(buffer)), c_char_p(text), c_void_p(arguments))
    messages.append(buffer.value.decode(errors="replace").rstrip())
    del messages[:-_MESSAGES_KEPT]
    return 0


_print = _Print(_take)


class Object:
    """An object file that is open in libbpf. Handles that it gives out live as long as it does."""

    def __init__(self, path: Path) -> None:
        self._library = library()
        if not path.exists():
            raise NotLoaded(f"there is no object file {path}", remedy="build it with `make bpf`")
        self.path = path
        self._log = mmap.mmap(-1, _LOG_BYTES)
        options = _OpenOptions(
            size=ctypes.sizeof(_OpenOptions),
            kernel_log=ctypes.addressof(ctypes.c_char.from_buffer(self._log)),
            kernel_log_size=_LOG_BYTES,
        )
        _said.messages = []
        self._handle = self._library.bpf_object__open_file(os.fsencode(path), ctypes.byref(options))
        if not self._handle:
            raise BpfRefused(f"open {path.name}", ctypes.get_errno() or errno.EINVAL, self._words())

    def close(self) -> None:
        if self._handle:
            self._library.bpf_object__close(self._handle)
            self._handle = None
        self._log.close()

    def btf(self) -> bytes:
        """The object's types; sections have their variables' places filled in."""
        size = c_uint32()
        data = self._library.btf__raw_data(self._library.bpf_object__btf(self._handle), ctypes.byref(size))
        return ctypes.string_at(data, size.value) if data else b""

    def programs(self) -> Iterator[tuple[str, int]]:
        """Names and handles."""
        one = self._library.bpf_object__next_program(self._handle, None)
        while one:
            yield self._library.bpf_program__name(one).decode(), one
            one = self._library.bpf_object__next_program(self._handle, one)

    def maps(self) -> Iterator[tuple[str, int]]:
        """Names and handles, also of maps for global variables."""
        one = self._library.bpf_object__next_map(self._handle, None)
        while one:
            yield self._library.bpf_map__name(one).decode(), one
            one = self._library.bpf_object__next_map(self._handle, one)

    def load(self) -> None:
        """Raises VerifierRefused, or BpfRefused with libbpf's words."""
        _said.messages = []
        result = self._library.bpf_object__load(self._handle)
        if result == 0:
            return
        log = self._log[: max(0, self._log.find(b"\0"))].decode(errors="replace")
        refused = verifier.refused_program(_said.messages)
        if refused:
            raise VerifierRefused(refused, verifier.shorten(log))
        raise BpfRefused(f"load {self.path.name}", -result, self._words())

    def _words(self) -> str:
        lines = [line.removeprefix("libbpf: ") for message in _said.messages for line in message.splitlines()]
        return "libbpf says: " + "; ".join(verifier.shorten_lines(lines)) if lines else ""
