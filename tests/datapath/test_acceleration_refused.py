"""Connections that bpf/sockmap.bpf.c leaves to the stack, or sends back to it, and those that only look like it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest

from datapath.acceleration.cookies import cookie_of
from datapath.acceleration.layout import AccelerationSettings
from datapath.acceleration.sockmap import BEHIND_BYTES, SockmapAcceleration
from datapath.layout import (
    ACTION_NONE,
    FLOW_CLOSING,
    TARGET_EGRESS_AUDIT,
    TARGET_EGRESS_POLICY,
    TARGET_INGRESS_AUDIT,
    TARGET_INGRESS_POLICY,
    TARGET_REMOTE_POD,
    Config,
    Flow,
    FlowKey,
    Policy,
    PolicyKey,
    Target,
    address_bytes,
)
from datapath.loader.maps import LPM_TRIE, NO_PREALLOC, Map
from datapath.policy.model import Direction, EndpointPolicy, Rule, Verdict
from datapath.policy.writer import PolicyWriter
from tests.datapath.accelerated import PODS, Node, cgroups, own_cgroup
from tests.datapath.compiled import bpf_folder, build_programs
from tests.datapath.spaces import Spaces, until

pytestmark = [
    pytest.mark.root,
    pytest.mark.tool("clang-19", "bpftool", "make", "ip"),
    pytest.mark.skipif(cgroups() is None, reason="needs cgroup2"),
]

SIZES: Final = {"events": 1 << 16, "flows": 1024, "nat": 1024, "addresses": 1024}
ONE, OTHER = PODS[socket.AF_INET]
SERVER_PORT: Final = 7001


def made(folder: Path, *, config: Config | None = None, **sizes: int) -> SockmapAcceleration:
    rodata = {"config": config.pack()} if config else {}
    return SockmapAcceleration(
        folder, object_path=build_programs() / "sockmap.bpf.o", rodata=rodata, sizes={**SIZES, **sizes}
    )


@dataclass
class Bed:
    """A node that accelerates; its ports are given out once."""

    node: Node
    cgroup: Path
    port: int = 10000
    generation: int = 1

    @contextmanager
    def connected(self, *, back: bool = False) -> Iterator[tuple[socket.socket, socket.socket]]:
        """pod-1 to pod-2, from the port that is next; `back`: pod-2 to pod-1."""
        opener, answerer = (1, 0) if back else (0, 1)
        with ExitStack() as undo:
            listener = undo.enter_context(self.node.opened(answerer, socket.AF_INET))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((PODS[socket.AF_INET][answerer], SERVER_PORT))
            listener.listen()
            one = undo.enter_context(self.node.opened(opener, socket.AF_INET))
            one.settimeout(10)
            one.bind((PODS[socket.AF_INET][opener], self.port))
            self.port += 1
            one.connect(listener.getsockname())
            other = undo.enter_context(listener.accept()[0])
            other.settimeout(10)
            yield one, other

    @property
    def entered(self) -> int:
        return self.node.acceleration.status().entered

    def by_stack(self, reason: str) -> int:
        return self.node.acceleration.status().stack_messages[reason]

    def renewed(self) -> None:
        self.generation += 1
        self.node.run(self.generation)

    def known(self, flags: int = 0, other_flags: int = 0) -> None:
        self.node.target(ONE, flags)
        self.node.target(OTHER, other_flags)

    def forget(self, address: str) -> None:
        with Map.pinned(self.node.folder / "maps" / "addresses") as addresses:
            addresses.delete(address_bytes(address))

    def elsewhere(self, address: str) -> None:
        self.node.write("addresses", address_bytes(address), Target(kind=TARGET_REMOTE_POD).pack())

    def rules(self, *rules: Rule) -> None:
        """Of both pods."""

        def inner() -> Map:
            return Map.create(LPM_TRIE, PolicyKey.SIZE, Policy.SIZE, 16384, flags=NO_PREALLOC, name="policy")

        with Map.pinned(self.node.folder / "maps" / "policies") as outer:
            policy = EndpointPolicy(frozenset(rules))
            assert not PolicyWriter(outer, inner).apply({2: policy, 3: policy}).problems


@contextmanager
def accelerated(config: Config | None = None, **sizes: int) -> Iterator[Bed]:
    with bpf_folder() as folder, own_cgroup() as cgroup, Spaces() as spaces:
        acceleration = made(folder, config=config, **sizes)
        node = Node(spaces, folder, acceleration)
        acceleration.enable(cgroup)
        node.follow()
        node.run(1)
        yield Bed(node, cgroup)


@pytest.fixture(scope="module")
def shared() -> Iterator[Bed]:
    with accelerated() as one:
        yield one


@pytest.fixture
def bed(shared: Bed) -> Bed:
    shared.known()
    shared.rules()
    return shared


def spoken(one: socket.socket, other: socket.socket) -> None:
    for sender, receiver in ((one, other), (other, one)):
        sender.sendall(b"said")
        assert receiver.recv(100) == b"said"


EVERYTHING = Rule(1, Direction.EGRESS, Verdict.ALLOW)


def allowed(bed: Bed) -> None:
    bed.rules(EVERYTHING)
    bed.known(TARGET_EGRESS_POLICY)


CHANGES: dict[str, tuple[Callable[[Bed], None], int]] = {
    # what changes, and how many messages go by the stack for it
    "nothing": (lambda bed: None, 0),
    "who opened it is gone": (lambda bed: bed.forget(ONE), 2),
    "who answered is gone": (lambda bed: bed.forget(OTHER), 2),
    "who opened it is on another node": (lambda bed: bed.elsewhere(ONE), 2),
    "who answered is on another node": (lambda bed: bed.elsewhere(OTHER), 2),
    "egress has no rule": (lambda bed: bed.known(TARGET_EGRESS_POLICY), 2),
    "egress has no rule and is watched only": (lambda bed: bed.known(TARGET_EGRESS_POLICY | TARGET_EGRESS_AUDIT), 0),
    "ingress has no rule": (lambda bed: bed.known(0, TARGET_INGRESS_POLICY), 2),
    "ingress has no rule and is watched only": (
        lambda bed: bed.known(0, TARGET_INGRESS_POLICY | TARGET_INGRESS_AUDIT), 0,
    ),
    "a rule allows": (allowed, 0),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_what_runs_is_asked_again(bed: Bed, change: str) -> None:
    happens, sent_back = CHANGES[change]
    before, entered = bed.by_stack("policy"), bed.entered
    with bed.connected() as (one, other):
        spoken(one, other)
        assert bed.entered == entered + 2
        happens(bed)
        bed.renewed()
        spoken(one, other)
    assert bed.by_stack("policy") - before == sent_back


def flow(bed: Bed, *, back: bool = False, **more: int) -> None:
    """What the datapath knows of the connection that comes next."""
    ports = (SERVER_PORT, bed.port) if back else (bed.port, SERVER_PORT)
    bed.node.flow(*ports, generation=bed.generation, **more)


def change(bed: Bed, port: int, made: Callable[[Flow], Flow]) -> None:
    key = FlowKey(address_bytes(ONE), address_bytes(OTHER), port, SERVER_PORT, socket.IPPROTO_TCP).pack()
    with Map.pinned(bed.node.folder / "maps" / "flows") as flows:
        flows.update(key, made(Flow.unpack(flows.lookup(key) or b"")).pack())


def undecided(one: Flow) -> Flow:
    return replace(one, from_low=replace(one.from_low, action=ACTION_NONE))


def over(bed: Bed) -> None:
    bed.known(TARGET_EGRESS_POLICY)
    flow(bed, lasts_s=-1)


def not_decided(bed: Bed) -> None:
    bed.known(TARGET_EGRESS_POLICY)
    flow(bed)
    change(bed, bed.port, undecided)


OPENINGS: dict[str, Callable[[Bed], None]] = {
    "who opens it is not known": lambda bed: bed.forget(ONE),
    "who answers is not known": lambda bed: bed.forget(OTHER),
    "who opens it is on another node": lambda bed: bed.elsewhere(ONE),
    "who answers is on another node": lambda bed: bed.elsewhere(OTHER),
    "the datapath's flow is over": over,
    "the datapath has not decided": not_decided,
}  # fmt: skip


@pytest.mark.parametrize("opening", OPENINGS)
def test_what_is_not_entered(bed: Bed, opening: str) -> None:
    OPENINGS[opening](bed)
    before = bed.entered
    with bed.connected() as (one, other):
        spoken(one, other)
    assert bed.entered == before


def test_the_pod_with_the_higher_address_opens(bed: Bed) -> None:
    """The flow's entry has it as the high end."""
    bed.known(0, TARGET_EGRESS_POLICY)
    flow(bed, back=True)
    before = bed.entered
    with bed.connected(back=True) as (one, other):
        spoken(one, other)
    assert bed.entered == before + 2


def test_an_end_that_nobody_told_of(bed: Bed) -> None:
    before = bed.entered
    try:
        bed.node.acceleration.follow({ONE: cookie_of(bed.node.spaces.path(bed.node.pods[0]))})
        with bed.connected() as (one, other):
            spoken(one, other)
    finally:
        bed.node.follow()
    assert bed.entered == before


@pytest.mark.parametrize("address", ["::9", "::7:0:0:9", "10.9.0.2"])
def test_a_pod_with_itself(bed: Bed, address: str) -> None:
    """By an address that is not loopback's: there is no other namespace that could be meant."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    if family == socket.AF_INET6:
        spaces, pod = bed.node.spaces, bed.node.pods[0]
        spaces.ip(pod, "link set lo up", f"addr add {address}/128 dev lo nodad")
        # Its route comes a little later.
        until(lambda: spaces.run(pod, "ip", "route", "get", address).returncode == 0)
    before = bed.entered
    with bed.node.opened(0, family) as listener, bed.node.opened(0, family) as one:
        listener.bind((address, 0))
        listener.listen()
        one.bind((address, 0))
        one.connect(listener.getsockname()[:2])
        with listener.accept()[0] as other:
            spoken(one, other)
    assert bed.entered == before + 2


def test_switched_off_while_it_is_attached(bed: Bed) -> None:
    before = bed.entered
    try:
        bed.node.write("accelerated_settings", bytes(4), AccelerationSettings(0, BEHIND_BYTES).pack())
        with bed.connected() as (one, other):
            spoken(one, other)
    finally:
        bed.node.write("accelerated_settings", bytes(4), AccelerationSettings(1, BEHIND_BYTES).pack())
    assert bed.entered == before


def test_data_that_comes_with_the_end_of_the_handshake(bed: Bed) -> None:
    """Who opens it may send already, but the other has not entered: what it sends goes by the stack, for good."""
    before, lonely = bed.entered, bed.by_stack("no-peer")
    with bed.node.opened(1, socket.AF_INET) as listener, bed.node.opened(0, socket.AF_INET) as one:
        listener.bind((OTHER, 0))
        listener.listen()
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
        one.connect(listener.getsockname())
        one.sendall(b"first")
        other, _ = listener.accept()
        with other:
            assert other.recv(100) == b"first"
            spoken(one, other)
            assert bed.entered == before + 1
            assert bed.by_stack("no-peer") == lonely + 2


def test_data_that_comes_with_the_first_packet(bed: Bed) -> None:
    """TCP Fast Open."""
    for pod in bed.node.pods:
        bed.node.spaces.sysctl(pod, "ipv4/tcp_fastopen", str(0x607))
    before, redirected = bed.entered, bed.node.acceleration.status().redirected_messages
    with bed.node.opened(1, socket.AF_INET) as listener, bed.node.opened(0, socket.AF_INET) as one:
        listener.bind((OTHER, 0))
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 5)
        listener.listen()
        one.sendto(b"first", socket.MSG_FASTOPEN, listener.getsockname())
        other, _ = listener.accept()
        with other:
            assert other.recv(100) == b"first"
            spoken(one, other)
    assert bed.entered < before + 2, "one end at least is left out"
    assert bed.node.acceleration.status().redirected_messages == redirected


def test_no_room_for_more_sockets() -> None:
    with accelerated(accelerated=1) as bed:
        bed.known()
        with bed.connected() as (one, other):
            spoken(one, other)
        assert bed.entered == 1


def test_flows_that_are_not_there_or_not_open_are_not_kept() -> None:
    with accelerated(Config(tcp_open_j=1000)) as bed:  # hz: none, so each message asks
        bed.known()
        with bed.connected() as (one, other):
            spoken(one, other)
        port = bed.port
        flow(bed)
        change(bed, port, lambda one: replace(one, state=FLOW_CLOSING, expires_j=7))
        with bed.connected() as (one, other):
            spoken(one, other)
        assert bed.node.acceleration.status().redirected_messages == 4
        change(bed, port, _unchanged)


def _unchanged(one: Flow) -> Flow:
    assert (one.state, one.expires_j) == (FLOW_CLOSING, 7)
    return one
