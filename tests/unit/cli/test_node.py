"""plimsoll node cleanup: what it removes, and when it refuses."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from datapath.cleanup import CleanupReport
from datapath.errors import KernelRefused
from datapath.loader.pins import Inventory
from tests.unit.cli.conftest import Plimsoll

PINNED = Inventory(links=("from_pod-plmweb",), maps=("flows", "nat"), programs=("from_pod",), filters=())
NETWORK = CleanupReport(
    rules=["5000: from all lookup 254 (IPv4)"], addresses=["10.0.0.4 dev eth1", "10.0.0.5 dev eth2"]
)


class Kernel:
    def __init__(self) -> None:
        self.done: list[str] = []
        self.pinned, self.network = PINNED, NETWORK
        self.refuses: KernelRefused | None = None

    def inventory(self, root: Path) -> Inventory:
        self.done.append(f"look at {root}")
        return self.pinned

    def remove(self, root: Path) -> Inventory:
        self.done.append(f"remove {root}")
        return self.pinned

    def disable(self) -> None:
        self.done.append("leave local TCP to the stack")

    def clean(self, *, dry_run: bool = False) -> CleanupReport:
        self.done.append("look at the network" if dry_run else "clean the network")
        if self.refuses:
            raise self.refuses
        return self.network


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("datapath.loader.pins.inventory", kernel.inventory)
    monkeypatch.setattr("datapath.loader.pins.remove", kernel.remove)
    monkeypatch.setattr("datapath.cleanup.clean", kernel.clean)
    monkeypatch.setattr("datapath.acceleration.sockmap.SockmapAcceleration.disable", lambda _: kernel.disable())
    return kernel


def options(tmp_path: Path) -> tuple[str, ...]:
    return ("--socket", str(tmp_path / "node.sock"), "--bpf-dir", "/sys/fs/bpf/nowhere")


def test_programs_go_before_devices(plimsoll: Plimsoll, kernel: Kernel, tmp_path: Path) -> None:
    answer = plimsoll("node", "cleanup", *options(tmp_path))
    assert answer.code == 0
    assert kernel.done == [
        "look at /sys/fs/bpf/nowhere",
        "leave local TCP to the stack",
        "remove /sys/fs/bpf/nowhere",
        "clean the network",
    ]
    assert answer.out == "1 link, 1 program, 2 maps, 1 rule, 2 addresses removed\n"


def test_a_dry_run_names_everything_and_removes_nothing(plimsoll: Plimsoll, kernel: Kernel, tmp_path: Path) -> None:
    answer = plimsoll("node", "cleanup", "--dry-run", *options(tmp_path))
    assert kernel.done == ["look at /sys/fs/bpf/nowhere", "look at the network"]
    assert "map flows" in answer.out
    assert answer.out.splitlines()[-1].endswith("would be removed")
    data = plimsoll("node", "cleanup", "--dry-run", "--json", *options(tmp_path)).json
    assert data["dry_run"] is True
    assert data["maps"] == ["flows", "nat"]
    assert data["rules"] == list(NETWORK.rules)


def test_nothing_to_do(plimsoll: Plimsoll, kernel: Kernel, tmp_path: Path) -> None:
    kernel.pinned, kernel.network = Inventory(), CleanupReport()
    assert plimsoll("node", "cleanup", *options(tmp_path)).out == "nothing of ours is in the kernel\n"


def test_a_running_daemon_is_not_undermined(plimsoll: Plimsoll, kernel: Kernel, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(str(tmp_path / "node.sock"))
        daemon.listen()
        answer = plimsoll("node", "cleanup", "--json", *options(tmp_path))
        assert answer.code == 5
        assert "systemctl stop plimsoll-node" in answer.error["remedy"]
        assert kernel.done == []
        assert plimsoll("node", "cleanup", "--dry-run", *options(tmp_path)).code == 0
        assert plimsoll("node", "cleanup", "--force", *options(tmp_path)).code == 0


def test_only_root_may(plimsoll: Plimsoll, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    answer = plimsoll("node", "cleanup", *options(tmp_path))
    assert answer.code == 5
    assert "sudo" in answer.err


def test_what_the_kernel_refuses_is_told(plimsoll: Plimsoll, kernel: Kernel, tmp_path: Path) -> None:
    kernel.refuses = KernelRefused("remove a route", 16)
    answer = plimsoll("node", "cleanup", "--json", *options(tmp_path))
    assert answer.code == 5
    assert "EBUSY" in answer.error["message"]
    assert answer.error["remedy"] == "run it again: it goes on"
