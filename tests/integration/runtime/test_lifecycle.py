"""A real process: starts, says so, stops on one signal, and tells why when it can't."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest

from services.api.registry.v1 import registry_pb2, registry_pb2_grpc
from services.runtime.client import sync_channel
from services.runtime.lifecycle import Lifecycle

EXAMPLE = Path(__file__).with_name("example_service.py")
ROOT = EXAMPLE.parents[3]


class Example:
    """The example service in a folder of its own, with a service manager's socket."""

    def __init__(self, folder: Path) -> None:
        self.journal = folder / "journal"
        self.socket = folder / "example.sock"
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.manager.bind(str(folder / "notify"))
        self.manager.settimeout(20)
        self.process: subprocess.Popen[str] | None = None
        self.notify = str(folder / "notify")

    def start(self, *flags: str) -> subprocess.Popen[str]:
        argv = [sys.executable, str(EXAMPLE), "--journal", str(self.journal), "--socket", str(self.socket), *flags]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "NOTIFY_SOCKET": self.notify}
        self.process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, env=environment)
        return self.process

    def told(self) -> str:
        """Waits for the next message to the service manager."""
        return self.manager.recv(4096).decode()

    def finish(self, timeout_s: float = 20) -> tuple[int, list[dict[str, Any]], str]:
        """Exit code, JSON log lines, and other text on standard error."""
        assert self.process is not None
        _, text = self.process.communicate(timeout=timeout_s)
        lines = text.splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{")]
        return self.process.returncode, events, "\n".join(line for line in lines if not line.startswith("{"))


@pytest.fixture
def example(socket_folder: Path) -> Iterator[Example]:
    example = Example(socket_folder)
    try:
        yield example
    finally:
        if example.process is not None and example.process.poll() is None:
            example.process.kill()
            example.process.communicate()
        example.manager.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_signal_stops_it_in_reverse_order(example: Example, number: signal.Signals) -> None:
    process = example.start()
    assert "READY=1" in example.told()
    process.send_signal(number)
    assert "STOPPING=1" in example.told()
    code, events, _ = example.finish()
    assert code == 0
    assert example.journal.read_text().splitlines() == ["open store", "loop cancelled", "close store"]
    assert events[-1]["event"] == "stopped"
    assert events[-1]["signal"] == number.name
    assert events[-1]["service"] == "example"
    assert not example.socket.exists()


def test_ready_means_that_calls_are_answered_and_a_call_under_way_is_finished(example: Example) -> None:
    process = example.start()
    example.told()
    with sync_channel(f"unix:{example.socket}", None) as channel:
        call = registry_pb2_grpc.RegistryServiceStub(channel).GetNode
        future = call.future(registry_pb2.GetNodeRequest(name="node-1"))
        time.sleep(0.1)
        process.terminate()
        assert future.result(timeout=5).node.name == "node-1"
    assert example.finish()[0] == 0


def test_a_signal_while_it_starts_stops_it(example: Example) -> None:
    process = example.start("--fail", "slow build")
    while not (example.journal.exists() and "building" in example.journal.read_text()):
        assert process.poll() is None
        time.sleep(0.02)
    process.terminate()
    assert example.finish()[0] == 0
    assert "close store" in example.journal.read_text()


def test_a_part_that_hangs_does_not_outlive_the_grace(example: Example) -> None:
    process = example.start("--fail", "stuck", "--stop-grace-s", "0.5")
    example.told()
    process.terminate()
    code, events, _ = example.finish()
    assert code == 1
    assert events[-1]["event"].startswith("did not stop in time")


def test_a_second_signal_changes_nothing(example: Example) -> None:
    process = example.start()
    example.told()
    for _ in range(5):
        process.terminate()
    assert example.finish()[0] == 0
    assert example.journal.read_text().splitlines()[-1] == "close store"


@pytest.mark.parametrize(
    ("fail", "said"),
    [("task", "RuntimeError: the loop broke"), ("build", "the store is of a newer version. Upgrade the service.")],
)
def test_a_crash_closes_what_is_open_and_says_why(example: Example, fail: str, said: str) -> None:
    example.start("--fail", fail)
    code, events, _ = example.finish()
    assert code == 1
    assert said in [event.get("error") for event in events]
    assert example.journal.read_text().splitlines()[-1] == "close store"


def test_bad_settings_are_told_before_anything_is_opened(example: Example) -> None:
    example.start("--replicas", "many", "--log-level", "loud")
    code, _, text = example.finish()
    assert code == 2
    assert [line.split(":")[1].strip() for line in text.splitlines()] == ["log_level", "replicas"]
    assert not example.journal.exists()


@pytest.mark.parametrize("transport", ["tcp", "unix"])
async def test_metrics_and_health(example: Example, socket_folder: Path, transport: str) -> None:
    path = f"{socket_folder}/metrics.sock"
    port = free_port()
    process = example.start("--metrics-listen", f"unix:{path}" if transport == "unix" else f"127.0.0.1:{port}")
    await asyncio.to_thread(example.told)
    with sync_channel(f"unix:{example.socket}", None) as channel, pytest.raises(grpc.RpcError):
        registry_pb2_grpc.RegistryServiceStub(channel).ListNodes(registry_pb2.ListNodesRequest())
    connector = aiohttp.UnixConnector(path) if transport == "unix" else aiohttp.TCPConnector()
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", connector=connector) as session:
        async with session.get("/healthz") as answer:
            assert (answer.status, await answer.text()) == (200, "ok\n")
        async with session.get("/metrics") as answer:
            text = await answer.text()
    assert 'code="UNIMPLEMENTED",method="/plimsoll.registry.v1.RegistryService/ListNodes"' in text
    assert "plimsoll_ready 1.0" in text
    process.terminate()
    assert (await asyncio.to_thread(example.finish))[0] == 0


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


async def test_a_service_that_stands_by_is_up_for_its_manager_and_not_ready_for_clients(
    example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", example.notify)
    async with Lifecycle("registry") as life:
        life.standing_by("another registry leads")
        assert "STATUS=registry is standing by: another registry leads" in example.told()
        before = life.started
        await life.set_started()
        assert "is serving" in example.told()
        assert (before, life.started) == (False, True)
    assert "STOPPING=1" in example.told()


async def test_parts_and_tasks_are_closed_in_reverse_and_a_failing_close_does_not_spare_the_others() -> None:
    order: list[str] = []

    class Part:
        def __init__(self, name: str, fails: bool = False) -> None:
            self.name, self.fails = name, fails

        async def __aenter__(self) -> Part:
            return self

        async def __aexit__(self, *exc: object) -> None:
            order.append(self.name)
            if self.fails:
                raise OSError(f"{self.name} does not close")

    async def loop() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            order.append("loop")

    async def story() -> None:
        async with Lifecycle("x") as life:
            await life.enter(Part("first"))
            life.spawn("loop", loop)  # type: ignore[unused-awaitable]
            await life.enter(Part("second", fails=True))
            await asyncio.sleep(0)

    with pytest.raises(ExceptionGroup) as caught:
        await story()
    assert [str(exc) for exc in caught.value.exceptions] == ["second does not close"]
    assert order == ["second", "loop", "first"]
