"""A node in memory: a real journal and pool, fakes of the kernel."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from datapath.testing import FakeEndpoints
from ipam.journal import Journal
from ipam.local import LocalPool
from ipam.model import AddressState, PoolInterface
from services.node.cni import CniHandler
from services.node.pods import Pods


class SystemTime:
    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


def eni(name: str, addresses: list[str], index: int = 0) -> PoolInterface:
    return PoolInterface(
        id=name, mac=f"02:00:00:00:00:{index:02x}", device_index=index, subnet_id="subnet-1", subnet_cidr="10.0.0.0/24",
        gateway="10.0.0.1", primary_address=f"10.0.0.{200 + index}", vpc_id="vpc-1", zone="a",
        vpc_cidrs=("10.0.0.0/16",), security_group_ids=("sg-1",),
        addresses=dict.fromkeys(addresses, AddressState.AVAILABLE),
    )  # fmt: skip


class MemoryNode:
    """Asks as a runtime would, without plugin and socket."""

    def __init__(self, folder: Path) -> None:
        self.journal = Journal(folder / "node.db")
        self.pool = LocalPool(self.journal, SystemTime(), boot_id="boot", cooldown_s=30.0)
        self.endpoints = FakeEndpoints()
        self.pods = Pods(self.pool, self.endpoints, mtu_of=lambda _: 9001, wait_s=0.0)
        self.handler = CniHandler(self.pods, self.pool)

    def give(self, *addresses: str) -> None:
        self.pool.apply({"eni-1": eni("eni-1", list(addresses))})

    def ask(
        self, command: str, container: str = "c1", *, version: str = "1.1.0", netns: str = "/run/netns/c1",
        interface: str = "eth0", args: str = "", config: dict[str, Any] | None = None, raw: bytes | None = None,
    ) -> tuple[int, dict[str, Any]]:  # fmt: skip
        variables = {
            "CNI_COMMAND": command, "CNI_CONTAINERID": container, "CNI_NETNS": netns, "CNI_IFNAME": interface,
            "CNI_ARGS": args,
        }  # fmt: skip
        environment = b"".join(f"{name}={value}\0".encode() for name, value in variables.items())
        body = {"cniVersion": version, "name": "plimsoll", "type": "plimsoll", "socket": "/x", **(config or {})}
        code, answer = self.handler.handle(environment, json.dumps(body).encode() if raw is None else raw)
        return code, json.loads(answer) if answer else {}


@pytest.fixture
def memory_node(tmp_path: Path) -> Iterator[MemoryNode]:
    node = MemoryNode(tmp_path)
    yield node
    node.journal.close()


@pytest.fixture
def make_eni() -> Callable[..., PoolInterface]:
    return eni
