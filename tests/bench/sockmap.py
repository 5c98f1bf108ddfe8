"""Local TCP with the acceleration off and on, over loopback and between two pods of a node, in turns.

Both ends are processes of their own, on one CPU or on two. Absolute numbers are Python's; the ratio is the kernel's.
The machine is shared with whatever else runs, so each one's best turn counts.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from datapath.acceleration.sockmap import SockmapAcceleration
from tests.bench.report import Row
from tests.datapath.accelerated import PODS, Node, cgroups, own_cgroup, pair
from tests.datapath.compiled import bpf_folder, build_programs
from tests.datapath.spaces import Spaces

TURNS = 5
SMALL = 64

Connected = Callable[[], AbstractContextManager[tuple[socket.socket, socket.socket]]]


def main(argv: list[str]) -> list[Row]:
    parser = argparse.ArgumentParser(prog="tests.bench sockmap")
    parser.add_argument("--seconds", type=float, default=0.4, help="for each measurement, off and on, five times")
    seconds = parser.parse_args(argv).seconds
    lacking = [tool for tool in ("clang-19", "bpftool", "make") if shutil.which(tool) is None]
    if os.geteuid() != 0 or cgroups() is None or lacking:
        return []
    cpus = sorted(os.sched_getaffinity(0))
    one, two = [cpus[0], cpus[0]], [cpus[0], cpus[-1]]
    with bpf_folder() as folder, own_cgroup() as cgroup, Spaces() as spaces:
        acceleration = SockmapAcceleration(folder, object_path=build_programs() / "sockmap.bpf.o")
        acceleration.enable(cgroup)
        node = Node(spaces, folder, acceleration)
        node.follow()
        node.run(1)
        for address in PODS[socket.AF_INET]:
            node.target(address)

        def row(name: str, unit: str, measure: Callable[[Connected], float], connected: Connected, target: str) -> Row:
            off, on = _in_turns(acceleration, cgroup, measure, connected)
            return Row(f"sockmap: {name}", on, unit, baseline=off, target=target)

        return [
            row("loopback, 64 bytes there and back, one CPU", "1/s", lambda c: _asked(c, one, seconds), pair,
                "ratio >= 1.2"),
            row("loopback, 64 bytes there and back, two CPUs", "1/s", lambda c: _asked(c, two, seconds), pair, ""),
            row("loopback, stream of 64 KB", "Gbit/s", lambda c: _streamed(c, two, seconds, 65536), pair,
                ""),
            row("loopback, stream of 4 KB", "Gbit/s", lambda c: _streamed(c, two, seconds, 4096), pair, ""),
            row("loopback, connect and ask once", "1/s", lambda c: _opened(c, seconds), pair, ""),
            row("pods, 64 bytes there and back, one CPU", "1/s", lambda c: _asked(c, one, seconds), node.connected,
                "ratio >= 1.3"),
            row("pods, 64 bytes there and back, two CPUs", "1/s", lambda c: _asked(c, two, seconds), node.connected,
                ""),
            row("pods, stream of 64 KB", "Gbit/s", lambda c: _streamed(c, two, seconds, 65536), node.connected, ""),
        ]  # fmt: skip


def _in_turns(
    acceleration: SockmapAcceleration, cgroup: Path, measure: Callable[[Connected], float], connected: Connected
) -> tuple[float, float]:
    off, on = [], []
    for _ in range(TURNS):
        acceleration.disable()
        off.append(measure(connected))
        acceleration.enable(cgroup)
        on.append(measure(connected))
    return max(off), max(on)


@contextmanager
def _beside(work: Callable[[], None], cpus: list[int]) -> Iterator[Callable[[], None]]:
    """`work` in a process on the second CPU, this one on the first. Gives a way to wait for its end."""
    before = os.sched_getaffinity(0)
    child = os.fork()
    if child == 0:
        try:
            os.sched_setaffinity(0, {cpus[1]})
            work()
        finally:
            os._exit(0)
    ended = False

    def wait() -> None:
        nonlocal ended
        os.waitpid(child, 0)
        ended = True

    os.sched_setaffinity(0, {cpus[0]})
    try:
        yield wait
    finally:
        os.sched_setaffinity(0, before)
        if not ended:
            os.kill(child, signal.SIGKILL)
            wait()


def _asked(connected: Connected, cpus: list[int], seconds: float) -> float:
    """Requests a second."""
    with connected() as (one, other):
        one.settimeout(None)
        other.settimeout(None)

        def answer() -> None:
            one.close()
            while data := other.recv(SMALL):
                other.send(data)

        with _beside(answer, cpus):
            question, count = bytes(SMALL), 0
            began = time.perf_counter()
            until = began + seconds
            while time.perf_counter() < until:
                for _ in range(20):
                    one.send(question)
                    one.recv(SMALL)
                count += 20
            return count / (time.perf_counter() - began)


def _streamed(connected: Connected, cpus: list[int], seconds: float, size: int) -> float:
    """Gbit/s until the last byte is read."""
    with connected() as (one, other):
        one.settimeout(None)
        other.settimeout(None)

        def read() -> None:
            one.close()
            room = bytearray(1 << 18)
            while other.recv_into(room):
                pass

        with _beside(read, cpus) as wait:
            other.close()
            message, sent = bytes(size), 0
            began = time.perf_counter()
            until = began + seconds
            while time.perf_counter() < until:
                for _ in range(20):
                    one.sendall(message)
                sent += 20 * size
            one.shutdown(socket.SHUT_WR)
            wait()
            return sent * 8 / (time.perf_counter() - began) / 1e9


def _opened(connected: Connected, seconds: float) -> float:
    """Connections a second, with one question each, in one process."""
    count = 0
    began = time.perf_counter()
    while time.perf_counter() < began + seconds:
        with connected() as (one, other):
            one.send(b"question")
            other.recv(SMALL)
        count += 1
    return count / (time.perf_counter() - began)
