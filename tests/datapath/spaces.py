"""Network namespaces for tests that drive the kernel's side of the datapath directly, without daemon and plugin."""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from datapath.namespaces import opened, visiting


class Spaces:
    """Namespaces with a tag of their own; all are gone when the block is left."""

    def __init__(self) -> None:
        self.tag = f"pls{secrets.token_hex(3)}"
        self.names: list[str] = []

    def __enter__(self) -> Spaces:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], check=False, stderr=subprocess.DEVNULL)

    def add(self, name: str, *commands: str) -> str:
        full = f"{self.tag}-{name}"
        subprocess.run(["ip", "netns", "add", full], check=True)
        self.names.append(full)
        # Else new devices are mute for a second or two: they ask for doubles of their link-local address.
        self.sysctl(full, "ipv6/conf/default/accept_dad", "0")
        self.ip(full, "link set lo up", *commands)
        return full

    def cable(self, one: str, device: str, other: str, far_device: str, mtu: int = 1500) -> None:
        """Two devices that are plugged into one another, up."""
        self.ip(
            one,
            f"link add {device} mtu {mtu} type veth peer name {far_device} netns {other} mtu {mtu}",
            f"link set {device} up",
        )
        self.ip(other, f"link set {far_device} up")

    def ip(self, space: str, *commands: str, family: int = 0) -> None:
        options = [f"-{family}"] if family else []
        subprocess.run(["ip", *options, "-n", space, "-batch", "-"], input="\n".join(commands), text=True, check=True)

    def show(self, space: str, *arguments: str) -> list[dict[str, Any]]:
        done = subprocess.run(["ip", "-n", space, "-d", "-j", *arguments], capture_output=True, text=True, check=True)
        return [one for one in json.loads(done.stdout or "[]") if one]

    def run(self, space: str, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["ip", "netns", "exec", space, *command], capture_output=True, text=True, check=False)

    def sysctl(self, space: str, name: str, value: str) -> None:
        done = self.run(space, "sh", "-c", f"echo {value} > /proc/sys/net/{name}")
        assert done.returncode == 0, done.stderr

    def setting(self, space: str, name: str) -> str:
        return self.run(space, "cat", f"/proc/sys/net/{name}").stdout.strip()

    def ping(self, space: str, target: str, *options: str, count: int = 1) -> bool:
        done = self.run(space, "ping", "-n", "-q", "-c", str(count), "-i", "0.05", "-W", "1", *options, target)
        return done.returncode == 0

    def mac(self, space: str, device: str) -> str:
        return str(self.show(space, "link", "show", device)[0]["address"])

    def index(self, space: str, device: str) -> int:
        return int(self.show(space, "link", "show", device)[0]["ifindex"])

    def path(self, space: str) -> str:
        return f"/run/netns/{space}"

    @contextmanager
    def inside(self, space: str) -> Iterator[None]:
        """The calling thread works in the namespace, as a daemon there would."""
        with opened(self.path(space)) as descriptor, visiting(descriptor):
            yield

    def knows(self, kind: str) -> bool:
        """Whether the kernel can make devices of this kind."""
        words = {"vlan": "link lo type vlan id 9", "vrf": "type vrf table 9"}.get(kind, f"type {kind}")
        probe = self.add("probe")
        command = ["ip", "-n", probe, "link", "add", "name", "probe0", *words.split()]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        subprocess.run(["ip", "netns", "del", probe], check=False)
        self.names.remove(probe)
        return "Unknown device type" not in done.stderr


def until(condition: Callable[[], bool], wait_s: float = 5.0) -> float:
    """Waits for it, and says how long that took, in seconds."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < wait_s
        time.sleep(0.01)
    return time.monotonic() - began


@contextmanager
def thread(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Runs it beside, and tells it to stop by the event."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            work(stop)
        except BaseException as error:  # noqa: BLE001  told to the test below
            failures.append(error)

    worker = threading.Thread(target=guarded, daemon=True)
    worker.start()
    try:
        with contextlib.ExitStack() as stack:
            stack.callback(worker.join, 5)
            stack.callback(stop.set)
            yield
    finally:
        if failures:
            raise failures[0]
