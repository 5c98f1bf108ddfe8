"""A node with two pods and an outside, in namespaces, for benches; wired by hand, so that no daemon's work is in it.

pod a ── plma ┐        ┌ ens0 ── outside (192.0.2.0/24, 10.9.0.0/24: pods of another node)
              ├─ node ─┤
pod b ── plmb ┘        └
"""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from datapath.model import HOST_MAC
from datapath.namespaces import opened, visiting

NODE_MAC: Final = "02:00:00:00:01:01"
OUTSIDE_MAC: Final = "02:00:00:00:01:02"


@dataclass(frozen=True, slots=True)
class Pod:
    name: str
    address: str
    address6: str
    mac: str
    number: int
    identity: int

    @property
    def device(self) -> str:
        """The node's end."""
        return f"plm{self.name}"


A: Final = Pod("a", "10.8.0.1", "fd00:8::1", "02:00:00:00:00:0a", 1, 1001)
B: Final = Pod("b", "10.8.0.2", "fd00:8::2", "02:00:00:00:00:0b", 2, 1002)
NODE: Final = "192.0.2.1"
NODE6: Final = "2001:db8::1"
OUTSIDE: Final = "192.0.2.2"
OUTSIDE6: Final = "2001:db8::2"
REMOTE_POD: Final = "10.9.0.1"
REMOTE_POD6: Final = "fd00:9::1"
BARE: Final = ("10.7.0.1", "10.7.0.2")  # ends of a veth between the pods' namespaces, past the node


class World:
    """The namespaces; all are gone when the block is left. :ivar tag: of their names."""

    def __init__(self) -> None:
        self.tag = f"plb{secrets.token_hex(3)}"
        self._made: list[str] = []

    def __enter__(self) -> World:
        try:
            for name in ("node", "a", "b", "outside"):
                self._namespace(name)
            for pod in (A, B):
                self._wire(pod)
            self._plug()
            self._join()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._made:
            subprocess.run(["ip", "netns", "del", self._made.pop()], check=False)

    def name(self, which: str) -> str:
        """A namespace's full name, of "node", "a", "b" or "outside"."""
        return f"{self.tag}-{which}"

    def path(self, which: str) -> str:
        return f"/run/netns/{self.name(which)}"

    @contextmanager
    def inside(self, which: str) -> Iterator[None]:
        """The calling thread is in that namespace until the end of the block."""
        with opened(self.path(which)) as namespace, visiting(namespace):
            yield

    def ip(self, which: str, *commands: str) -> None:
        subprocess.run(["ip", "-n", self.name(which), "-batch", "-"], input="\n".join(commands), text=True, check=True)

    def ifindex(self, which: str, device: str) -> int:
        command = ["ip", "-n", self.name(which), "-j", "link", "show", device]
        return int(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)[0]["ifindex"])

    def sysctl(self, which: str, **values: str) -> None:
        """By path under /proc/sys/net, slashes as two underscores."""
        script = "; ".join(f"echo {value} > /proc/sys/net/{name.replace('__', '/')}" for name, value in values.items())
        subprocess.run(["ip", "netns", "exec", self.name(which), "sh", "-ec", script], check=True)

    def _namespace(self, which: str) -> None:
        subprocess.run(["ip", "netns", "add", self.name(which)], check=True)
        self._made.append(self.name(which))
        # No router solicitations and no duplicate address detection: addresses can be used at once.
        self.sysctl(which, ipv6__conf__default__accept_dad="0", ipv6__conf__default__accept_ra="0")
        self.ip(which, "link set lo up")

    def _wire(self, pod: Pod) -> None:
        self.sysctl("node", ipv4__ip_forward="1", ipv6__conf__all__forwarding="1")
        self.ip(
            "node",
            f"link add {pod.device} address {HOST_MAC} type veth peer name eth0 netns {self.name(pod.name)} "
            f"address {pod.mac}",
            f"link set {pod.device} up",
            f"neigh add {pod.address} lladdr {pod.mac} dev {pod.device} nud permanent",
            f"neigh add {pod.address6} lladdr {pod.mac} dev {pod.device} nud permanent",
            f"route add {pod.address} dev {pod.device}",
            f"route add {pod.address6} dev {pod.device}",
        )
        self.ip(
            pod.name,
            "link set eth0 up",
            f"addr add {pod.address}/32 dev eth0",
            f"addr add {pod.address6}/128 dev eth0 nodad",
            f"neigh add 169.254.1.1 lladdr {HOST_MAC} dev eth0 nud permanent",
            f"neigh add fe80::1 lladdr {HOST_MAC} dev eth0 nud permanent",
            "route add default via 169.254.1.1 dev eth0 onlink",
            "route add default via fe80::1 dev eth0",
        )

    def _join(self) -> None:
        self.ip("a", f"link add bare type veth peer name bare netns {self.name('b')}")
        for which, address in zip(("a", "b"), BARE, strict=True):
            self.ip(which, "link set bare up", f"addr add {address}/24 dev bare")

    def _plug(self) -> None:
        self.ip(
            "node",
            f"link add ens0 address {NODE_MAC} type veth peer name ens0 netns {self.name('outside')} "
            f"address {OUTSIDE_MAC}",
            "link set ens0 up",
            f"addr add {NODE}/24 dev ens0",
            f"addr add {NODE6}/64 dev ens0 nodad",
            f"neigh add {OUTSIDE} lladdr {OUTSIDE_MAC} dev ens0 nud permanent",
            f"neigh add {OUTSIDE6} lladdr {OUTSIDE_MAC} dev ens0 nud permanent",
            f"route add default via {OUTSIDE}",
            f"route add default via {OUTSIDE6}",
        )
        self.ip(
            "outside",
            "link set ens0 up",
            f"addr add {OUTSIDE}/24 dev ens0",
            f"addr add {OUTSIDE6}/64 dev ens0 nodad",
            f"neigh add {NODE} lladdr {NODE_MAC} dev ens0 nud permanent",
            f"neigh add {NODE6} lladdr {NODE_MAC} dev ens0 nud permanent",
            "route add 10.8.0.0/24 via " + NODE,
            "route add fd00:8::/64 via " + NODE6,
        )
