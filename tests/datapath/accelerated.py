"""A cgroup of its own, connections, and the two pods of a node, for tests and benches of bpf/sockmap.bpf.c.

  pod-1 ns              node ns              pod-2 ns
┌──────────┐      ┌───────────────────┐     ┌──────────┐
│ 10.9.0.2 ├──────┤ forwards by routes├─────┤ 10.9.0.3 │
│ fd09::2  │      └───────────────────┘     │ fd09::3  │
└──────────┘                                └──────────┘
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from datapath.acceleration.cookies import cookie_of
from datapath.acceleration.sockmap import SockmapAcceleration
from datapath.layout import (
    ACTION_POD,
    FLOW_OPEN,
    IDENTITY_FIRST,
    TARGET_POD,
    Flow,
    FlowKey,
    Runtime,
    Target,
    address_bytes,
)
from datapath.layout import Path as FlowPath
from datapath.loader.clock import Clock
from datapath.loader.maps import Map
from tests.datapath.spaces import Spaces, until

PODS: Final = {socket.AF_INET: ("10.9.0.2", "10.9.0.3"), socket.AF_INET6: ("fd09::2", "fd09::3")}


def cgroups() -> Path | None:
    """Where cgroups of version 2 are mounted."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if " - cgroup2 " in line:
            return Path(line.split(" ")[4])
    return None


@contextmanager
def own_cgroup() -> Iterator[Path]:
    """A cgroup with this process in it."""
    root = cgroups()
    assert root is not None
    before = next(
        line.split(":", 2)[2] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")
    )
    own = root / f"plimsoll-test-{secrets.token_hex(4)}"
    own.mkdir()
    try:
        (own / "cgroup.procs").write_text(str(os.getpid()))
        yield own
    finally:
        (root / before.lstrip("/") / "cgroup.procs").write_text(str(os.getpid()))
        until(lambda: not (own / "cgroup.procs").read_text())
        own.rmdir()


@contextmanager
def pair(family: int = socket.AF_INET, host: str = "127.0.0.1") -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection: who opened it, who answered."""
    with socket.socket(family) as listener:
        listener.bind((host, 0))
        listener.listen()
        one = socket.socket(family)
        one.settimeout(10)
        one.connect(listener.getsockname()[:2])
        other, _ = listener.accept()
        other.settimeout(10)
    with one, other:
        yield one, other


class Node:
    """The two pods of the picture, and what the datapath's maps say of them."""

    def __init__(self, spaces: Spaces, folder: Path, acceleration: SockmapAcceleration) -> None:
        self.spaces, self.folder, self.acceleration = spaces, folder, acceleration
        self.node, self.pods = spaces.add("node"), [spaces.add("pod-1"), spaces.add("pod-2")]
        spaces.sysctl(self.node, "ipv4/ip_forward", "1")
        spaces.sysctl(self.node, "ipv6/conf/all/forwarding", "1")
        for number, pod in enumerate(self.pods):
            spaces.cable(self.node, f"pod{number}", pod, "eth0")
            own4, own6 = f"10.9.0.{number + 2}", f"fd09::{number + 2}"
            spaces.ip(
                self.node, f"addr add 169.254.1.1/32 dev pod{number}", f"addr add fe80::1/64 dev pod{number} nodad",
                f"route add {own4}/32 dev pod{number}", f"route add {own6}/128 dev pod{number}",
            )  # fmt: skip
            spaces.ip(
                pod, f"addr add {own4}/32 dev eth0", f"addr add {own6}/128 dev eth0 nodad",
                "route add 169.254.1.1 dev eth0", "route add default via 169.254.1.1 dev eth0",
                "route add default via fe80::1 dev eth0",
            )  # fmt: skip

    def follow(self) -> None:
        cookies = [cookie_of(self.spaces.path(pod)) for pod in self.pods]
        namespaces = {pods[number]: cookies[number] for pods in PODS.values() for number in range(2)}
        self.acceleration.follow(namespaces)

    def write(self, name: str, key: bytes, value: bytes) -> None:
        with Map.pinned(self.folder / "maps" / name) as one:
            one.update(key, value)

    def run(self, generation: int) -> None:
        self.write("runtime", bytes(4), Runtime(generation=generation).pack())

    def target(self, address: str, flags: int = 0) -> None:
        endpoint = int(address[-1])
        told = Target(kind=TARGET_POD, flags=flags, identity=IDENTITY_FIRST + endpoint, endpoint=endpoint)
        self.write("addresses", address_bytes(address), told.pack())

    def flow(self, port: int, server_port: int, generation: int, flags: int = 0, lasts_s: int = 3600) -> None:
        """As from_pod leaves it when pod-1 connects to pod-2."""
        clock = Clock()
        way = FlowPath(generation=generation, action=ACTION_POD, flags=flags)
        flow = Flow(
            clock.now_j() + lasts_s * clock.hz & 0xFFFFFFFF, clock.now_j(), FLOW_OPEN, from_low=way, from_high=way
        )
        key = FlowKey(address_bytes("10.9.0.2"), address_bytes("10.9.0.3"), port, server_port, socket.IPPROTO_TCP)
        self.write("flows", key.pack(), flow.pack())
        clock.close()

    def opened(self, pod: int, family: socket.AddressFamily) -> socket.socket:
        with self.spaces.inside(self.pods[pod]):
            return socket.socket(family)

    @contextmanager
    def connected(
        self, family: socket.AddressFamily = socket.AF_INET, server_port: int = 0, port: int = 0
    ) -> Iterator[tuple[socket.socket, socket.socket]]:
        """pod-1 to pod-2."""
        with self.opened(1, family) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((PODS[family][1], server_port))
            listener.listen()
            one = self.opened(0, family)
            one.settimeout(10)
            if port:
                one.bind((PODS[family][0], port))
            one.connect(listener.getsockname()[:2])
            other, _ = listener.accept()
            other.settimeout(10)
        with one, other:
            yield one, other
