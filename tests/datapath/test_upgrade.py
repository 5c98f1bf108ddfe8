"""The daemon is restarted, killed, and replaced by another build while pods talk; then all of ours is removed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from datapath import layout
from datapath.loader import pins
from datapath.loader.maps import Map
from datapath.loader.programs import Program
from datapath.namespaces import opened, visiting
from tests.datapath.bed import ROOT, Bed, Eni, Node, children_left
from tests.datapath.compiled import build_programs

pytestmark = [pytest.mark.root, pytest.mark.tool("ip", "cc", "make", "clang-19")]
_TCP_INFO, _TOTAL_RETRANSMITS = 11, 100


@pytest.fixture
def bed() -> Iterator[Bed]:
    with Bed() as one:
        yield one
    assert not children_left(one.tag)


@pytest.fixture
def node(bed: Bed) -> Node:
    """
    pods ── node ── ens0, ens1 ── router
    """
    build_programs()
    one = bed.node("a", Eni(0, "10.0.0.5", ["10.0.0.10", "10.0.0.11"]), Eni(1, "10.0.0.6", ["10.0.0.20"]))
    one.fill_journal()
    one.start()
    return one


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    with opened(f"/run/netns/{namespace}") as descriptor, visiting(descriptor):
        yield


class Load:
    """Requests by TCP and numbered datagrams, a thousand of each a second, from one namespace to another."""

    def __init__(self, client: str, server: str, address: str) -> None:
        with inside(server):
            self._listener = socket.create_server((address, 0))
            self._receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._receiver.bind((address, 0))
        self._receiver.settimeout(1)
        with inside(client):
            self._tcp = socket.create_connection(self._listener.getsockname(), 10)
            self._sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sender.connect(self._receiver.getsockname())
        self._accepted, _ = self._listener.accept()
        self._accepted.settimeout(10)
        self.ports = (self._tcp.getsockname()[1], self._listener.getsockname()[1])
        self.sent = self.received = self.answered = 0
        self.longest_s = 0.0
        self._stop = threading.Event()
        self._failures: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,), daemon=True)
            for work in (self._ask, self._answer, self._send, self._receive)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(12)
        info = self._tcp.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 104)
        self.retransmits = int.from_bytes(info[_TOTAL_RETRANSMITS:104], sys.byteorder)
        for one in (self._tcp, self._accepted, self._listener, self._sender, self._receiver):
            one.close()
        if self._failures:
            raise self._failures[0]

    def _guarded(self, work) -> None:  # type: ignore[no-untyped-def]
        try:
            work()
        except BaseException as error:  # noqa: BLE001  told to the test by __exit__
            self._failures.append(error)

    def _ask(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            self._tcp.sendall(b"12345678")
            assert self._tcp.recv(8)
            self.answered += 1
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            time.sleep(0.001)
        self._tcp.shutdown(socket.SHUT_WR)

    def _answer(self) -> None:
        while data := self._accepted.recv(8):
            self._accepted.sendall(data)

    def _send(self) -> None:
        while not self._stop.is_set():
            self._sender.send(b"numbered")
            self.sent += 1
            time.sleep(0.001)

    def _receive(self) -> None:
        while not self._stop.is_set() or self.received < self.sent:
            try:
                self._receiver.recv(100)
            except TimeoutError:
                if self._stop.is_set():
                    return
            else:
                self.received += 1


def another_build(folder: Path) -> Path:
    """The tree as it is, but with programs that differ in one number."""
    folder.mkdir()
    for name in ("datapath", "services", "ipam"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "bpf", folder / "bpf")
    built = folder / "build" / "bpf"
    built.mkdir(parents=True)
    for one in ["vmlinux.h", *(path.name for path in build_programs().glob(".kernel-*"))]:
        shutil.copy2(build_programs() / one, built / one)
    header = folder / "bpf" / "include" / "nat.h"
    text = header.read_text()
    assert "#define NAT_TRIES 256\n" in text
    header.write_text(text.replace("#define NAT_TRIES 256\n", "#define NAT_TRIES 255\n"))
    subprocess.run(["make", "-s", "-C", str(folder / "bpf"), f"SHIPPED={folder / 'shipped'}"], check=True)
    return folder


def start_from(node: Node, tree: Path) -> None:
    """As Node.start, by the code of another tree."""
    command = ["ip", "netns", "exec", node.namespace, sys.executable, "-m", "services.node", "--config"]
    with node.log.open("ab") as log:
        node.process = subprocess.Popen(
            [*command, str(node.folder / "node.toml")], cwd=tree, stdout=log, stderr=log,
            env={**os.environ, "PYTHONPATH": str(tree)},
        )  # fmt: skip
    deadline = time.monotonic() + 60
    while not node.cni_socket.exists():
        assert node.process.poll() is None, node.log.read_text()[-3000:]
        assert time.monotonic() < deadline, node.log.read_text()[-3000:]
        time.sleep(0.02)


def bpf_dir(node: Node) -> Path:
    return Path(str(node.settings["datapath.bpf_dir"]))


def tags(node: Node) -> dict[str, str]:
    found = {}
    for path in (bpf_dir(node) / "programs").iterdir():
        with Program.pinned(path) as program:
            found[path.name] = program.tag
    return found


def created(node: Node, ports: tuple[int, int]) -> int:
    """When the TCP flow between these ports began."""
    with Map.pinned(bpf_dir(node) / "maps" / "flows") as flows:
        for key, value in flows.items():
            one = layout.FlowKey.unpack(key)
            if one.protocol == 6 and {one.low_port, one.high_port} == set(ports):
                return layout.Flow.unpack(value).created_j
    raise AssertionError("the flow is not tracked")


def test_pods_notice_nothing(bed: Bed, node: Node) -> None:
    (one, _), (two, second), (three, third) = (node.add(f"pod{number}") for number in range(3))
    tree = another_build(bed.folder / "other")
    with Load(one, two, second) as near, Load(one, three, third) as far:
        began = created(node, near.ports)
        before = tags(node)
        assert before["from_pod"]
        node.stop()
        node.start()
        assert tags(node) == before
        node.kill()
        node.start()
        node.stop()
        start_from(node, tree)
        after = tags(node)
        assert after["from_pod"] != before["from_pod"], "the other build's programs are in force"
        assert created(node, near.ports) == began, "and go on with the flows of the former ones"
        node.kill()
        node.start()
        assert tags(node) == before
    for load in (near, far):
        assert load.sent > 500
        assert load.answered > 500
        assert load.sent - load.received <= load.sent // 1000, f"{load.sent - load.received} of {load.sent} lost"
        assert load.retransmits == 0
        assert load.longest_s < 1


def test_nothing_is_left(bed: Bed, node: Node) -> None:
    one, _ = node.add("pod0")
    two, second = node.add("pod1")
    assert bed.ping(one, second)
    assert node.process is not None
    process = node.process
    cleanup = [
        "ip", "netns", "exec", node.namespace, sys.executable, "-c",
        "from services.cli.main import main; main()", "node", "cleanup", "--bpf-dir", str(bpf_dir(node)),
        "--socket", str(node.socket), "--json",
    ]  # fmt: skip
    refused = subprocess.run(cleanup, capture_output=True, text=True, check=False, cwd=ROOT)
    assert refused.returncode != 0, "the daemon runs"
    process.send_signal(signal.SIGTERM)
    process.wait(20)
    node.process = None
    assert bed.ping(one, second), "pods go on without it"
    done = subprocess.run(cleanup, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
    with inside(node.namespace):
        assert not pins.inventory(bpf_dir(node))
    assert [link["ifname"] for link in bed.show(node.namespace, "link") if link["ifname"].startswith("plm")] == []
    for what in (["rule"], ["route", "show", "table", "all"]):
        for family in ("-4", "-6"):
            left = [found for found in bed.show(node.namespace, family, *what) if found.get("protocol") in ("80", 80)]
            assert left == []
    del two
