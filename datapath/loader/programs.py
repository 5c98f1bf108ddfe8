"""Loaded programs: what they are, and running them on a packet without a network."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from datapath.errors import BpfRefused
from datapath.loader import syscalls
from datapath.loader.syscalls import Command, ProgramInfo, ProgramRun

SCHED_CLS, XDP, SK_MSG, SOCK_OPS, CGROUP_SOCK_ADDR, SYSCALL = 3, 6, 16, 13, 18, 31
# Room for what a program puts before or behind the packet.
_GROWTH: Final = 512
_SKB_CONTEXT_BYTES: Final = 192
LIVE_FRAMES: Final = 1 << 1


@dataclass(frozen=True, slots=True)
class TestRun:
    """:ivar packet: as the program left it. :ivar context: likewise. :ivar duration_ns: mean over the repetitions."""

    __test__ = False  # no class of tests

    retval: int
    packet: bytes
    context: bytes
    duration_ns: int


@dataclass(frozen=True, slots=True)
class SkbContext:
    """The fields of struct __sk_buff that a test run takes, packed by `pack`."""

    mark: int = 0
    priority: int = 0
    ingress_ifindex: int = 0
    ifindex: int = 0
    cb: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0)
    gso_segments: int = 0
    gso_size: int = 0

    def pack(self) -> bytes:
        data = bytearray(_SKB_CONTEXT_BYTES)
        struct.pack_into("=I", data, 8, self.mark)
        struct.pack_into("=III", data, 32, self.priority, self.ingress_ifindex, self.ifindex)
        struct.pack_into("=5I", data, 48, *self.cb)
        struct.pack_into("=I", data, 164, self.gso_segments)
        struct.pack_into("=I", data, 176, self.gso_size)
        return bytes(data)

    @classmethod
    def unpack(cls, data: bytes) -> SkbContext:
        (mark,) = struct.unpack_from("=I", data, 8)
        priority, ingress, ifindex = struct.unpack_from("=III", data, 32)
        cb = struct.unpack_from("=5I", data, 48)
        (segments,) = struct.unpack_from("=I", data, 164)
        (size,) = struct.unpack_from("=I", data, 176)
        return cls(mark, priority, ingress, ifindex, cb, segments, size)


class Program:
    """A program in the kernel. :ivar verified_instructions: how many the verifier had to look at; its limit is 1 M."""

    def __init__(self, fd: int, name: str = "") -> None:
        """Takes over the file descriptor."""
        self.fd = fd
        info = syscalls.fill_info(fd, ProgramInfo())
        self.name = name or info.name.decode()
        self.type, self.id, self.tag = int(info.type), int(info.id), bytes(info.tag).hex()
        self.verified_instructions = int(info.verified_instructions)
        self.instructions = int(info.translated_size) // 8
        self.machine_bytes = int(info.jited_size)

    @classmethod
    def pinned(cls, path: Path) -> Program:
        """Raises NotLoaded, BpfRefused."""
        return cls(syscalls.pinned(path), path.name)

    @classmethod
    def by_id(cls, number: int) -> Program:
        """Raises NotLoaded, BpfRefused."""
        return cls(syscalls.by_id(Command.PROG_BY_ID, number))

    def pin(self, path: Path) -> None:
        """In place of what is pinned there."""
        syscalls.replace_pin(self.fd, path)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def test_run(
        self, packet: bytes = b"", *, context: bytes = b"", repeat: int = 1, flags: int = 0, batch_size: int = 0,
        cpu: int = 0,
    ) -> TestRun:  # fmt: skip
        """Runs the program `repeat` times on one packet, which is *not* restored between the repetitions.

        `context` is SkbContext(...).pack(), struct xdp_md, or what a syscall program takes; its fields for devices mean
        those of the calling thread's network namespace. Raises BpfRefused."""
        room = len(packet) + _GROWTH if packet and not flags & LIVE_FRAMES else 0
        data_out = ctypes.create_string_buffer(room or 1)
        is_syscall = self.type == SYSCALL
        context_in = ctypes.create_string_buffer(context, len(context) or 1)
        context_out = ctypes.create_string_buffer(len(context) or 1)
        with_context_out = bool(context) and not is_syscall and not flags & LIVE_FRAMES
        packet_pointer = ctypes.c_char_p(packet)
        run = ProgramRun(
            fd=self.fd, size_in=len(packet), size_out=room,
            data_in=ctypes.cast(packet_pointer, ctypes.c_void_p) if packet else None,
            data_out=ctypes.addressof(data_out) if room else None, repeat=0 if is_syscall else repeat,
            context_size_in=len(context), context_size_out=len(context) if with_context_out else 0,
            context_in=ctypes.addressof(context_in) if context else None,
            context_out=ctypes.addressof(context_out) if with_context_out else None,
            flags=flags, cpu=cpu, batch_size=batch_size,
        )  # fmt: skip
        try:
            syscalls.call(Command.PROG_RUN, run)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise BpfRefused(f"run program {self.name}", error.errno or 0) from error
        after = context_out.raw if with_context_out else context_in.raw
        return TestRun(
            int(run.retval), data_out.raw[: run.size_out] if room else b"", after[: len(context)], int(run.duration_ns)
        )
