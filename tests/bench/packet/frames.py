"""Frames as fast as one CPU makes, forwards and counts them: no socket has a part in it."""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct
from contextlib import ExitStack
from types import TracebackType
from typing import Final

from datapath.loader import links, objects
from datapath.loader.programs import LIVE_FRAMES
from datapath.model import HOST_MAC
from tests.bench.packet import build
from tests.bench.packet.plan import UDP, End, Plan
from tests.bench.packet.world import A, B, Pod, World

_KEY: Final = struct.pack("=I", 0)
_SEEN: Final = struct.pack("=I", 1)
_BATCH: Final = 64
_SIZE: Final = 82
# Whoever else runs may have the kernel put off receiving to a thread, while frames are made on.
_TRIES: Final = 3
_SIOCETHTOOL, _ETHTOOL_SGRO = 0x8946, 0x2C


class Frames:
    """Generates in one pod, counts and drops in another."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._stack = ExitStack()

    def __enter__(self) -> Frames:
        self._loaded = self._stack.enter_context(objects.load(build.bpf_object("frames"), pins=None))
        with self._world.inside("node"):
            for pod in (A, B):
                _take_frames(pod.device)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def mpps(self, source: Pod, to: Pod, flows: int, frames: int = 500_000) -> float:
        """Millions of frames a second that arrived. Raises RuntimeError if many did not, however often it is tried."""
        plan = Plan(
            End(source.mac, source.address, 1024),
            End(HOST_MAC, to.address, 8080),
            protocol=UDP,
            flows=flows,
            size=_SIZE,
        )
        arrived = 0
        for _ in range(_TRIES):
            arrived, duration_ns = self._send(source, to, plan, frames)
            if arrived >= frames * 0.9:
                return arrived / frames * 1e3 / duration_ns
        raise RuntimeError(f"{arrived:,} of {frames:,} frames arrived in {to.name}")

    def _send(self, source: Pod, to: Pod, plan: Plan, frames: int) -> tuple[int, float]:
        """How many arrived, and how long one took, in nanoseconds."""
        programs, maps = self._loaded.programs, self._loaded.maps
        with self._world.inside(to.name):
            counting = links.attach_tcx(programs["count"], self._world.ifindex(to.name, "eth0"), True)
        try:
            maps["plan"].update(_KEY, plan.pack(out_ifindex=self._world.ifindex(source.name, "eth0")))
            before = self._seen()
            with self._world.inside(source.name):
                run = programs["generate"].test_run(plan.packet(), repeat=frames, flags=LIVE_FRAMES, batch_size=_BATCH)
            return self._seen() - before, run.duration_ns
        finally:
            counting.detach()

    def _seen(self) -> int:
        values = self._loaded.maps["frames"].lookup(_SEEN) or b""
        return sum(count for (count,) in struct.iter_unpack("=Q", values))


def _take_frames(device: str) -> None:
    """A veth takes frames as such only when it polls, and without a program of XDP it polls for GRO only."""
    on = ctypes.create_string_buffer(struct.pack("=II", _ETHTOOL_SGRO, 1))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCETHTOOL, struct.pack("16sP", device.encode(), ctypes.addressof(on)))
