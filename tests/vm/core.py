"""Real packets on the core paths, by the programs as this kernel verified and attached them; no daemon process, whose
imports would cost more than the rest.

      pods 1, 2 ── node ── ens5 ── world (10.0.0.1, fd00::1; no way back to pods' addresses)
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from datapath import layout
from datapath.config import DatapathConfig
from datapath.endpoints.wiring import KernelEndpoints
from datapath.events import words
from datapath.loader import links, pins
from datapath.model import Endpoint, host_device, pod_mac
from datapath.service import Datapath
from tests.datapath.spaces import Spaces

NODE: Final = ("10.0.0.5", "fd00::5")
WORLD: Final = ("10.0.0.1", "fd00::1")
PODS: Final = {1: ("10.1.0.1", "fd00:1::1"), 2: ("10.1.0.2", "fd00:1::2")}
_SCTP: Final = 132


class Core:
    """The node above, its datapath started. Verifying the programs takes an emulated machine half a minute: one Core
    serves all scenarios, in their order."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.spaces = Spaces()
        self.root = Path("/sys/fs/bpf") / self.spaces.tag

    def __enter__(self) -> Core:
        with self._stack as undo:
            undo.enter_context(self.spaces)
            undo.callback(pins.remove, self.root)
            self.node, self.world = self.spaces.add("node"), self.spaces.add("world")
            self.spaces.cable(self.node, "ens5", self.world, "lan0")
            self.spaces.ip(
                self.node, f"addr add {NODE[0]}/24 dev ens5", f"addr add {NODE[1]}/64 dev ens5 nodad",
                f"route add default via {WORLD[0]}", f"route add default via {WORLD[1]}",
            )  # fmt: skip
            self.spaces.ip(self.world, f"addr add {WORLD[0]}/24 dev lan0", f"addr add {WORLD[1]}/64 dev lan0 nodad")
            self.start()
            undo.callback(self.stop)
            self.pods = {number: self._pod(number) for number in PODS}
            self._stack = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self) -> None:
        config = DatapathConfig(bpf_dir=self.root, masquerade4=True, masquerade6=True)
        self.datapath = Datapath(config, "node")
        with self.spaces.inside(self.node):
            self.datapath.start()
            self._endpoints = KernelEndpoints(self.datapath.pods)
            self._endpoints.prepare()

    def stop(self) -> None:
        self.datapath.close()

    def _pod(self, number: int) -> str:
        space = self.spaces.add(f"pod{number}")
        address, address6 = PODS[number]
        endpoint = Endpoint(
            host_device=host_device(f"c{number}", "eth0"), netns=self.spaces.path(space), device="eth0",
            address=address, mac=pod_mac(address), label=f"c{number}/eth0", address6=address6,
        )  # fmt: skip
        with self.spaces.inside(self.node):
            self._endpoints.wire(endpoint)
        return space

    def passed(self, hook: int) -> int:
        """Packets that the programs at a hook let through."""
        value = self.datapath.programs.maps["counters"].lookup(_number(hook * layout.DROP_REASONS)) or b""
        return sum(layout.Counter.unpack(value[at : at + 16]).packets for at in range(0, len(value), 16))

    def dropped(self) -> dict[str, int]:
        counters = self.datapath.programs.maps["counters"]
        found: dict[str, int] = {}
        for key, value in counters.items():
            reason = int.from_bytes(key, "little") % layout.DROP_REASONS
            packets = sum(layout.Counter.unpack(value[at : at + 16]).packets for at in range(0, len(value), 16))
            if packets and reason not in (layout.DROP_NONE, layout.DROP_CONTROL):
                word = words.REASONS[reason].word
                found[word] = found.get(word, 0) + packets
        return found

    @contextmanager
    def echo(self, space: str, address: str, protocol: int = 0) -> Iterator[None]:
        """A server that answers each connection with whom it sees, then whatever it is sent."""
        with self.spaces.inside(space):
            listener = socket.socket(_family(address), socket.SOCK_STREAM, protocol)
        listener.bind((address, 0))
        self._port = listener.getsockname()[1]
        listener.listen()
        threading.Thread(target=_serve, args=(listener,), daemon=True).start()
        try:
            yield
        finally:
            listener.close()

    def connect(self, space: str, address: str, protocol: int = 0) -> tuple[socket.socket, str]:
        """A connection to the server begun last, and which address the server sees it come from."""
        with self.spaces.inside(space):
            client = socket.socket(_family(address), socket.SOCK_STREAM, protocol)
        client.settimeout(20)
        client.connect((address, self._port))
        return client, client.recv(100).decode()


def _serve(listener: socket.socket) -> None:
    while True:
        try:
            client, peer = listener.accept()
        except OSError:
            return
        threading.Thread(target=_answer, args=(client, peer[0]), daemon=True).start()


def _answer(client: socket.socket, peer: str) -> None:
    with client:
        client.sendall(peer.encode())
        while data := client.recv(65536):
            client.sendall(data)


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _number(value: int) -> bytes:
    return value.to_bytes(4, "little")


def _exchange(client: socket.socket, size: int = 100_000) -> None:
    """Both ways, in segments of all sizes."""
    data = bytes(range(256)) * (size // 256)
    sender = threading.Thread(target=client.sendall, args=(data,))
    sender.start()
    got = bytearray()
    while len(got) < len(data):
        part = client.recv(65536)
        assert part, f"the connection ended after {len(got)} of {len(data)} bytes"
        got += part
    sender.join()
    assert bytes(got) == data


@contextmanager
def _nothing_dropped(core: Core) -> Iterator[None]:
    before = core.dropped()
    yield
    new = {reason: count for reason, count in core.dropped().items() if count != before.get(reason)}
    assert not new, f"dropped: {new}"


def programs(core: Core) -> str:
    """What the verifier had to look at, and how the programs are attached here."""
    counts = {name: one.verified_instructions for name, one in sorted(core.datapath.programs.programs.items())}
    how = {one.program: one.by for one in core.datapath.programs.attached()}
    assert how["from_pod"] == how["to_pod"] == "clsact"
    assert (
        how["from_device"]
        == how["to_device"]
        == ("tcx" if links.has_tcx(core.datapath.programs.programs["from_device"]) else "clsact")
    )
    verified = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    return f"instructions verified: {verified}; devices by {how['from_device']}"


def pod_to_pod(core: Core) -> str:
    with _nothing_dropped(core):
        for here, there in zip(PODS[1], PODS[2], strict=True):
            assert core.spaces.ping(core.pods[1], there, count=3), f"{here} does not reach {there}"
            with core.echo(core.pods[2], there):
                client, seen = core.connect(core.pods[1], there)
                with client:
                    assert seen == here, f"{there} sees {seen}, not {here}"
                    _exchange(client)
    return f"{core.passed(layout.HOOK_FROM_POD)} packets passed from_pod"


def pod_to_world(core: Core) -> str:
    """Masqueraded: the world has no route to pods."""
    with _nothing_dropped(core):
        for address, node in zip(WORLD, NODE, strict=True):
            assert core.spaces.ping(core.pods[1], address, count=3), f"no answer from {address}"
            with core.echo(core.world, address):
                client, seen = core.connect(core.pods[1], address)
                with client:
                    assert seen == node, f"{address} sees {seen}, not {node}"
                    _exchange(client)
    assert core.passed(layout.HOOK_FROM_DEVICE), "nothing passed from_device"
    return f"{core.passed(layout.HOOK_FROM_DEVICE)} packets came back by from_device"


def node_and_pod(core: Core) -> str:
    with _nothing_dropped(core):
        for address, node in zip(PODS[1], NODE, strict=True):
            assert core.spaces.ping(core.node, address, count=3), f"the node does not reach {address}"
            assert core.spaces.ping(core.pods[1], node, count=3), f"the pod does not reach {node}"
            with core.echo(core.pods[1], address):
                client, _ = core.connect(core.node, address)
                with client:
                    _exchange(client)
    assert core.passed(layout.HOOK_TO_POD), "nothing passed to_pod"
    return f"{core.passed(layout.HOOK_TO_POD)} packets passed to_pod"


def sctp(core: Core) -> str:
    with _nothing_dropped(core), core.echo(core.pods[2], PODS[2][0], _SCTP):
        client, seen = core.connect(core.pods[1], PODS[2][0], _SCTP)
        with client:
            assert seen == PODS[1][0]
            client.sendall(b"hello")
            assert client.recv(100) == b"hello"
    return "an association, answered"


def restart(core: Core) -> str:
    """Connections go on while there is no daemon, and with the next one, which attaches its own programs."""
    clients: list[socket.socket] = []
    with _nothing_dropped(core), ExitStack() as stack:
        for space, address in ((core.pods[2], PODS[2][0]), (core.world, WORLD[0])):
            stack.enter_context(core.echo(space, address))
            clients.append(stack.enter_context(core.connect(core.pods[1], address)[0]))
        for client in clients:
            _exchange(client, 4096)
        before = _flows(core)
        core.stop()
        for client in clients:
            _exchange(client, 4096)
        core.start()
        for client in clients:
            _exchange(client, 4096)
        after = _flows(core)
    kept = [key for key, created_j in before.items() if after.get(key) == created_j]
    assert len(kept) == len(before) >= 2, f"{len(kept)} of {len(before)} flows are as before"
    return f"{len(kept)} flows kept"


def _flows(core: Core) -> dict[bytes, int]:
    """When each was created."""
    flows = core.datapath.programs.maps["flows"].items()
    return {key: layout.Flow.unpack(value).created_j for key, value in flows}
