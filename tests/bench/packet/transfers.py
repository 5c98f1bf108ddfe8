"""Real TCP between namespaces: one stream's throughput by iperf3, requests and responses by a small program of ours."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.bench.packet import build

_PORT = 8100  # among those that node.py allows
# Before whatever else the machine does: it would hit one way of the packets and spare another.
_FIRST = ("chrt", "--fifo", "1")


def gbit_per_s(server: str, client: str, address: str, seconds: float) -> float:
    """What the receiver got of one stream, each end on a CPU of its own."""
    with _running(["ip", "netns", "exec", server, *_FIRST, "taskset", "-c", "0", "iperf3", "-s", "-p", str(_PORT)]):
        _await_listener(server)
        command = [*_FIRST, "taskset", "-c", "1", "iperf3", "-c", address, "-p", str(_PORT), "-t", str(seconds), "-J"]
        told = json.loads(_inside(client, command))
    if "error" in told:
        raise RuntimeError(f"iperf3: {told['error']}")
    return float(told["end"]["sum_received"]["bits_per_second"]) / 1e9


def requests_per_s(server: str, client: str, address: str, seconds: float, *, one_cpu: bool = True) -> float:
    """Transactions of a byte each way. Both ends on one CPU tell what a packet costs; on two, how fast CPUs wake."""
    program = str(build.program("rr"))
    with _running(
        ["ip", "netns", "exec", server, *_FIRST, "taskset", "-c", "1", program, "serve", address, str(_PORT)]
    ):
        _await_listener(server)
        cpu = "1" if one_cpu else "0"
        return float(
            _inside(client, [*_FIRST, "taskset", "-c", cpu, program, "ask", address, str(_PORT), str(seconds)])
        )


def _inside(namespace: str, command: list[str]) -> str:
    done = subprocess.run(["ip", "netns", "exec", namespace, *command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} in {namespace}: {done.stderr or done.stdout}")
    return done.stdout


@contextmanager
def _running(command: list[str]) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _await_listener(namespace: str) -> None:
    deadline = time.monotonic() + 5
    while str(_PORT) not in _inside(namespace, ["ss", "-Hltn", f"sport = :{_PORT}"]):
        if time.monotonic() > deadline:
            raise RuntimeError(f"nobody listens on port {_PORT} in {namespace}")
        time.sleep(0.02)
