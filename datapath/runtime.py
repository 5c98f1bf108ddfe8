"""The map `runtime`: what the daemon changes while programs run. Its memory is mapped: a change is a store, no system
call, and the next packet sees it."""

from __future__ import annotations

import struct
import threading
from typing import Final, Protocol

from datapath.errors import InvalidSetting
from datapath.layout import Runtime

_WORD: Final = struct.Struct("=I")
_SETTINGS: Final = tuple(name for name in Runtime.OFFSETS if name != "generation")
_LAST: Final = 0xFFFFFFFF


class Mapped(Protocol):
    """loader.maps.Map of one entry with BPF_F_MMAPABLE."""

    def mmap(self) -> memoryview: ...


class RuntimeSettings:
    """Thread-safe. Programs may read a word before, and the next after a change: each stands for itself."""

    def __init__(self, runtime: Mapped) -> None:
        self._memory = runtime.mmap()
        self._lock = threading.Lock()

    @property
    def current(self) -> Runtime:
        return Runtime.unpack(self._memory)

    @property
    def generation(self) -> int:
        return self._read("generation")

    def raise_generation(self) -> int:
        """Decisions made before are void from now on: each flow is decided anew with its next packet. Never 0, which is
        what a path bears that is just being written. After 2^32 raises an old decision could be taken for a new one; it
        would have to have lain unused all that time, and is asked again after `recheck_s` anyway."""
        with self._lock:
            following = self.generation % _LAST + 1
            self._write("generation", following)
            return following

    def set(self, **values: int) -> None:
        """Sets fields of `struct runtime` but the generation, such as trace_every=100. Raises InvalidSetting."""
        for name, value in values.items():
            if name not in _SETTINGS:
                raise InvalidSetting(f"there is no such setting; there are {', '.join(_SETTINGS)}", field=name)
            if not 0 <= value <= _LAST:
                raise InvalidSetting(f"{value} is not in 0..{_LAST}", field=name)
        with self._lock:
            for name, value in values.items():
                self._write(name, int(value))

    def close(self) -> None:
        self._memory.release()

    def _read(self, name: str) -> int:
        return int(_WORD.unpack_from(self._memory, Runtime.OFFSETS[name])[0])

    def _write(self, name: str, value: int) -> None:
        # One aligned store of 32 bits (struct writes byte by byte, which a program could see half done).
        with self._memory.cast("I") as words:
            words[Runtime.OFFSETS[name] // 4] = value
