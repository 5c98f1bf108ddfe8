"""bpf/sockmap.bpf.c with real sockets, over loopback and between the pods of a node (see accelerated.py)."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import re
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from datapath.acceleration import layout as ours
from datapath.acceleration.layout import AcceleratedEnd, AccelerationSettings
from datapath.acceleration.sockmap import BEHIND_BYTES, AccelerationStatus, SockmapAcceleration
from datapath.errors import InvalidSetting
from datapath.layout import (
    CONFIG_ENDPOINT_ROUTES,
    IDENTITY_FIRST,
    PATH_DENIED,
    TARGET_EGRESS_POLICY,
    TARGET_INGRESS_POLICY,
    Config,
    Flow,
    FlowKey,
    Policy,
    PolicyKey,
    address_bytes,
)
from datapath.loader import pins
from datapath.loader.clock import tick_rate
from datapath.loader.maps import LPM_TRIE, NO_PREALLOC, Map
from datapath.policy.model import Direction, EndpointPolicy, Rule, Verdict
from datapath.policy.writer import PolicyWriter
from tests.datapath.accelerated import PODS, Node, cgroups, own_cgroup, pair
from tests.datapath.compiled import ROOT, bpf_folder, build_programs
from tests.datapath.layouts import assert_alike
from tests.datapath.spaces import Spaces, until

pytestmark = [
    pytest.mark.root,
    pytest.mark.tool("clang-19", "bpftool", "make", "ip"),
    pytest.mark.skipif(cgroups() is None, reason="needs cgroup2"),
]

SIZES = {"events": 1 << 16, "flows": 1024, "nat": 1024, "addresses": 1024}
FAMILIES = [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]


@pytest.fixture
def folder() -> Iterator[Path]:
    with bpf_folder() as one:
        yield one


@pytest.fixture
def cgroup() -> Iterator[Path]:
    with own_cgroup() as one:
        yield one


@pytest.fixture
def acceleration(folder: Path) -> SockmapAcceleration:
    return made(folder)


def made(folder: Path, *, config: Config | None = None, behind_bytes: int = BEHIND_BYTES) -> SockmapAcceleration:
    rodata = {"config": config.pack()} if config else {}
    path = build_programs() / "sockmap.bpf.o"
    return SockmapAcceleration(folder, object_path=path, rodata=rodata, sizes=SIZES, behind_bytes=behind_bytes)


def received(one: socket.socket, most: int = 1 << 62) -> bytes:
    """All until the end, or as much as asked for."""
    parts, left = [], most
    while left and (data := one.recv(min(left, 1 << 16))):
        parts.append(data)
        left -= len(data)
    return b"".join(parts)


@contextmanager
def receiving(one: socket.socket) -> Iterator[list[str]]:
    """Reads to the end beside; the digest is in the list afterwards."""
    digests: list[str] = []

    def read() -> None:
        digest = hashlib.sha256()
        while data := one.recv(1 << 16):
            digest.update(data)
        digests.append(digest.hexdigest())

    reader = threading.Thread(target=read)
    reader.start()
    yield digests
    reader.join(20)
    assert not reader.is_alive()


def streamed(one: socket.socket, other: socket.socket, size: int = 8 << 20, chunk: int = 1 << 16) -> None:
    """What one sends arrives at the other, and nothing else."""
    data = random.Random(size).randbytes(size)
    with receiving(other) as digests:
        for start in range(0, size, chunk):
            one.sendall(data[start : start + chunk])
        one.shutdown(socket.SHUT_WR)
    assert digests == [hashlib.sha256(data).hexdigest()]


def exchanged(one: socket.socket, other: socket.socket, count: int = 200) -> None:
    for number in range(count):
        question, answer = f"question {number}".encode(), f"answer {number}".encode()
        one.sendall(question)
        assert received(other, len(question)) == question
        other.sendall(answer)
        assert received(one, len(answer)) == answer


def test_mirrors_are_alike() -> None:
    assert_alike(build_programs() / "sockmap.bpf.o", AcceleratedEnd, AccelerationSettings)
    header = (ROOT / "bpf/include/acceleration.h").read_text()
    defined = re.findall(r"#define (ACCELERATION_\w+) (\d+)", header)
    assert defined
    assert {name: getattr(ours, name) for name, _ in defined} == {name: int(value) for name, value in defined}


@pytest.mark.parametrize(("family", "host"), FAMILIES)
def test_off_on_off(acceleration: SockmapAcceleration, cgroup: Path, family: int, host: str) -> None:
    assert acceleration.status() == AccelerationStatus()
    acceleration.disable()
    with pair(family, host) as (one, other):
        exchanged(one, other)
        acceleration.enable(cgroup)
        exchanged(one, other)
        assert acceleration.status().entered == 0, "it was open before"
    with pair(family, host) as (one, other):
        exchanged(one, other)
        told = acceleration.status()
        assert (told.enabled, told.sockets, told.entered) == (True, 2, 2)
        assert told.redirected_messages == 400
        streamed(one, other)
        assert acceleration.status().redirected_bytes > 8 << 20
        acceleration.disable()
        other.sendall(b"on through the stack")
        assert received(one, 20) == b"on through the stack"
        told = acceleration.status()
        assert (told.enabled, told.stack_messages["off"]) == (False, 1)
    until(lambda: acceleration.status().sockets == 0)
    with pair(family, host) as (one, other):
        exchanged(one, other)
        assert acceleration.status().entered == 2


def test_a_listener_of_both_families_is_served_by_ipv4(acceleration: SockmapAcceleration, cgroup: Path) -> None:
    acceleration.enable(cgroup)
    with (
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener,
        socket.create_connection(("127.0.0.1", listener.getsockname()[1])) as one,
    ):
        other, _ = listener.accept()
        with other:
            exchanged(one, other)
    assert acceleration.status().redirected_messages == 400


def test_half_close_reset_and_sendfile(acceleration: SockmapAcceleration, cgroup: Path, tmp_path: Path) -> None:
    acceleration.enable(cgroup)
    file = tmp_path / "file"
    file.write_bytes(random.Random(1).randbytes(5 << 20))
    with pair() as (one, other):
        with receiving(other) as digests, file.open("rb") as opened:
            one.sendfile(opened)
            one.shutdown(socket.SHUT_WR)
        assert digests == [hashlib.sha256(file.read_bytes()).hexdigest()]
        other.sendall(b"the other way is open")
        other.close()
        assert received(one) == b"the other way is open"
    with pair() as (one, other):
        one.sendall(b"last words")
        other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        other.close()
        with pytest.raises(ConnectionError):
            one.recv(1)
        with pytest.raises(ConnectionError):
            one.sendall(b"to nobody")
    with pair() as (one, other):
        one.sendall(b"before the end")
        one.close()
        assert received(other) == b"before the end"
    until(lambda: acceleration.status().sockets == 0)


def test_large_and_scattered_messages(acceleration: SockmapAcceleration, cgroup: Path) -> None:
    acceleration.enable(cgroup)
    with pair() as (one, other):
        data = random.Random(2).randbytes(6 << 20)
        with receiving(other) as digests:
            one.sendall(data[: 4 << 20])
            sent, rest = 0, memoryview(data)[4 << 20 :]
            while sent < len(rest):
                sent += one.sendmsg([rest[sent : sent + 7], rest[sent + 7 : sent + 5000]])
            one.shutdown(socket.SHUT_WR)
        assert digests == [hashlib.sha256(data).hexdigest()]


def test_a_slow_reader_holds_the_sender_back(folder: Path, cgroup: Path) -> None:
    acceleration = made(folder, behind_bytes=1 << 20)
    acceleration.enable(cgroup)
    data = random.Random(3).randbytes(64 << 20)
    with pair() as (one, other):
        one.setblocking(False)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while sent < len(data):
                sent += one.send(data[sent : sent + 65536])
        assert 0 < sent < 40 << 20
        assert acceleration.status().stack_messages["behind"] > 0
        one.setblocking(True)
        with receiving(other) as digests:
            one.sendall(data[sent:])
            one.shutdown(socket.SHUT_WR)
        assert digests == [hashlib.sha256(data).hexdigest()], "in order, though it came by two ways"


def test_poll_tells_of_redirected_bytes(acceleration: SockmapAcceleration, cgroup: Path) -> None:
    acceleration.enable(cgroup)
    with pair() as (one, other):
        other.settimeout(0)
        with pytest.raises(BlockingIOError):
            other.recv(1)
        one.sendall(b"x" * 10)
        assert select.select([other], [], [], 5)[0] == [other]
        assert other.recv(100, socket.MSG_PEEK) == b"x" * 10
        assert other.recv(100) == b"x" * 10


def test_splice_into_a_socket_works_and_out_of_one_finds_nothing(
    acceleration: SockmapAcceleration, cgroup: Path
) -> None:
    """splice() from a socket looks for packets only, as docs/datapath.md says; fails when it has learnt."""
    acceleration.enable(cgroup)
    reader, writer = os.pipe()
    try:
        with pair() as (one, other):
            os.write(writer, b"spliced")
            assert os.splice(reader, one.fileno(), 7) == 7
            assert received(other, 7) == b"spliced"
            one.sendall(b"not found")
            other.setblocking(False)
            with pytest.raises(BlockingIOError):
                os.splice(other.fileno(), writer, 9)
            assert received(other, 9) == b"not found"
    finally:
        os.close(reader)
        os.close(writer)


def test_it_outlives_the_daemon_and_is_replaced_in_place(folder: Path, cgroup: Path) -> None:
    made(folder).enable(cgroup)
    with pair() as (one, other):
        made(folder).enable(cgroup)
        exchanged(one, other)
        with pair() as (third, fourth):
            exchanged(third, fourth)
        told = made(folder).status()
        assert (told.enabled, told.entered, told.redirected_messages) == (True, 4, 800)


def test_cleanup_loses_nothing_that_waits_for_its_reader(folder: Path, cgroup: Path) -> None:
    acceleration = made(folder)
    acceleration.enable(cgroup)
    with pair() as (one, other):
        one.sendall(b"waiting" * 1000)
        acceleration.disable()
        pins.remove(folder)
        time.sleep(0.3)  # the kernel frees maps that nobody holds after a grace period
        one.sendall(b"later")
        assert received(other, 7005) == b"waiting" * 1000 + b"later"
        exchanged(one, other)


def test_a_folder_that_is_no_cgroup_is_refused(acceleration: SockmapAcceleration, tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="no cgroup"):
        acceleration.enable(tmp_path)


# ---- pods ----


@pytest.fixture
def node(folder: Path, acceleration: SockmapAcceleration, cgroup: Path) -> Iterator[Node]:
    with Spaces() as spaces:
        one = Node(spaces, folder, acceleration)
        acceleration.enable(cgroup)
        one.follow()
        one.run(1)
        yield one


@pytest.mark.parametrize("family", PODS)
def test_pods_of_one_node(node: Node, family: socket.AddressFamily) -> None:
    for address in PODS[family]:
        node.target(address)
    with node.connected(family) as (one, other):
        exchanged(one, other)
        assert node.acceleration.status().redirected_messages == 400
        node.run(2)  # another pod has come
        exchanged(one, other)
        streamed(one, other)
        told = node.acceleration.status()
        assert told.redirected_messages >= 800 + 128
        assert told.stack_messages["policy"] == 0
    node.acceleration.follow({})
    with node.connected(family) as (one, other):
        exchanged(one, other)
        assert node.acceleration.status().entered == 2, "addresses that nobody told of are left alone"


def test_equal_addresses_of_other_namespaces_do_not_mix(node: Node) -> None:
    """A stranger's namespaces hold the same two addresses; its connection has the same ports, too."""
    for address in PODS[socket.AF_INET]:
        node.target(address)
    spaces = node.spaces
    strangers = [spaces.add("stranger-1"), spaces.add("stranger-2")]
    spaces.cable(strangers[0], "eth0", strangers[1], "eth0")
    spaces.ip(strangers[0], "addr add 10.9.0.2/24 dev eth0")
    spaces.ip(strangers[1], "addr add 10.9.0.3/24 dev eth0")
    with node.connected(server_port=7001, port=7002) as (one, other):
        before, node.pods = node.pods, strangers
        with node.connected(server_port=7001, port=7002) as (third, fourth):
            node.pods = before
            for number in range(50):
                one.sendall(b"pods %d" % number)
                third.sendall(b"strangers %d" % number)
                assert other.recv(100) == b"pods %d" % number
                assert fourth.recv(100) == b"strangers %d" % number
        assert node.acceleration.status().entered == 2


def test_policy_wants_the_handshake_let_through(node: Node) -> None:
    node.target("10.9.0.2", TARGET_EGRESS_POLICY)
    node.target("10.9.0.3", TARGET_INGRESS_POLICY)
    with node.connected() as (one, other):
        exchanged(one, other)
    assert node.acceleration.status().entered == 0, "the datapath knows nothing of it"
    node.flow(7002, 7001, generation=7)
    with node.connected(server_port=7001, port=7002) as (one, other):
        exchanged(one, other)
    assert node.acceleration.status().entered == 0, "decided by a policy that was another"
    node.flow(7004, 7001, generation=1, flags=PATH_DENIED)
    with node.connected(server_port=7001, port=7004) as (one, other):
        exchanged(one, other)
    assert node.acceleration.status().entered == 0, "denied"
    node.flow(7003, 7001, generation=1)
    with node.connected(server_port=7001, port=7003) as (one, other):
        exchanged(one, other)
        told = node.acceleration.status()
        assert (told.entered, told.redirected_messages) == (2, 400)
        node.run(2)  # and there is no rule that lets it: the datapath decides from here on
        exchanged(one, other)
        told = node.acceleration.status()
        assert (told.redirected_messages, told.stack_messages["policy"]) == (400, 400)
        node.run(3)
        node.target("10.9.0.2")
        node.target("10.9.0.3")
        exchanged(one, other)
        assert node.acceleration.status().redirected_messages == 400, "for good: bytes must not overtake others"


def test_policy_that_still_allows_is_asked_once_a_generation(node: Node) -> None:
    node.target("10.9.0.2")
    node.target("10.9.0.3", TARGET_INGRESS_POLICY)
    node.flow(7003, 7001, generation=1)

    def inner() -> Map:
        return Map.create(LPM_TRIE, PolicyKey.SIZE, Policy.SIZE, 16384, flags=NO_PREALLOC, name="policy")

    with Map.pinned(node.folder / "maps" / "policies") as outer:
        rule = Rule(1, Direction.INGRESS, Verdict.ALLOW, IDENTITY_FIRST + 2, socket.IPPROTO_TCP, 7001, 7001)
        report = PolicyWriter(outer, inner).apply({3: EndpointPolicy(frozenset([rule]))})
        assert not report.problems
    with node.connected(server_port=7001, port=7003) as (one, other):
        exchanged(one, other)
        node.run(2)
        exchanged(one, other)
        told = node.acceleration.status()
        assert (told.redirected_messages, told.stack_messages["policy"]) == (800, 0)


def test_where_the_nodes_filters_are_to_see_packets_pods_are_left_alone(node: Node, folder: Path, cgroup: Path) -> None:
    made(folder, config=Config(hz=250, flags=CONFIG_ENDPOINT_ROUTES)).enable(cgroup)
    for address in PODS[socket.AF_INET]:
        node.target(address)
    with node.connected() as (one, other):
        exchanged(one, other)
    assert node.acceleration.status().entered == 0


def test_the_datapath_remembers_a_connection_whose_packets_it_does_not_see(
    node: Node, folder: Path, cgroup: Path
) -> None:
    made(folder, config=Config(hz=tick_rate(), tcp_open_j=1000 * tick_rate())).enable(cgroup)
    node.target("10.9.0.2", TARGET_EGRESS_POLICY)
    node.target("10.9.0.3")
    node.flow(7003, 7001, generation=1, lasts_s=60)
    key = FlowKey(address_bytes("10.9.0.2"), address_bytes("10.9.0.3"), 7003, 7001, socket.IPPROTO_TCP).pack()

    def expires_j() -> int:
        with Map.pinned(folder / "maps" / "flows") as flows:
            return Flow.unpack(flows.lookup(key) or b"").expires_j

    before = expires_j()
    with node.connected(server_port=7001, port=7003) as (one, other):
        exchanged(one, other, count=2)
        assert expires_j() == before, "once a second is enough"
        time.sleep(1.1)
        exchanged(one, other, count=2)
        assert node.acceleration.status().redirected_messages == 8
        assert expires_j() - before & 0xFFFFFFFF > 900 * tick_rate()
