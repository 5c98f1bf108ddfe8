"""The daemon stops, crashes and comes back; pods notice nothing."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from services.api.node.v1 import node_pb2, node_pb2_grpc
from tests.datapath.bed import Bed, Eni, Node, children_left

pytestmark = [pytest.mark.root, pytest.mark.tool("ip", "ping", "cc", "make")]


@pytest.fixture
def bed() -> Iterator[Bed]:
    with Bed() as one:
        yield one
    assert not children_left(one.tag)


@pytest.fixture
def lone_node(bed: Bed) -> Node:
    """
    pods ── node ── ens0, ens1 ── router          (no central service anywhere)
    """
    node = bed.node(
        "a", Eni(0, "10.0.0.5", ["10.0.0.10", "10.0.0.11"]), Eni(1, "10.0.0.6", ["10.0.0.20", "10.0.0.21"]),
        cooldown_s=600, address_wait_s=0,
    )  # fmt: skip
    node.fill_journal()
    node.start()
    return node


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_no_packet_is_lost_while_the_daemon_restarts(bed: Bed, lone_node: Node, how: str) -> None:
    (one, _), (_, second), (three, _) = (lone_node.add(f"pod{n}") for n in range(3))
    pings = [
        subprocess.Popen(
            ["ip", "netns", "exec", source, "ping", "-n", "-q", "-i", "0.01", "-c", "200", target],
            stdout=subprocess.PIPE,
            text=True,
        )
        for source, target in [(one, second), (three, "10.0.0.1")]
    ]
    if how == "SIGTERM":
        lone_node.stop()
    else:
        lone_node.kill()
    lone_node.start()
    for ping in pings:
        said = ping.communicate(timeout=30)[0]
        counted = re.search(r"(\d+) packets .* (\d+) received", said)
        assert counted is not None, said
        sent, received = map(int, counted.groups())
        assert sent == received == 200, said


def test_leases_and_cooldowns_are_as_before(bed: Bed, lone_node: Node) -> None:
    one, first = lone_node.add("pod0")
    two, _ = lone_node.add("pod1")
    lone_node.cni("DEL", "pod1", two)
    devices = _devices(bed, lone_node)
    lone_node.kill()
    lone_node.start()
    assert _devices(bed, lone_node) == devices, "the same devices, not others of the same name"
    assert lone_node.cni("ADD", "pod0", one).body["ips"][0]["address"] == f"{first}/32"
    assert lone_node.add("pod2")[1] == "10.0.0.20"
    assert lone_node.add("pod3")[1] == "10.0.0.21"
    answer = lone_node.cni("ADD", "pod4", one, interface="eth4")
    assert answer.body["code"] == 11, "what cools is not leased, whoever forgot the time"
    assert "1 cooling" in answer.body["msg"]


def test_what_is_missing_on_the_nodes_side_is_put_back(bed: Bed, lone_node: Node) -> None:
    one, first = lone_node.add("pod0")
    lone_node.stop()
    bed.ip(lone_node.namespace, f"route del {first}/32 metric 0", "rule del priority 5010 from 10.0.0.10")
    assert not bed.ping(lone_node.namespace, first), "programs may do without the route, the node's stack may not"
    lone_node.start()
    assert bed.ping(lone_node.namespace, first)
    assert bed.ping(one, "10.0.0.1")


def test_a_pod_whose_namespace_is_gone_keeps_its_lease_until_del(bed: Bed, lone_node: Node) -> None:
    namespace, _ = lone_node.add("pod0")
    lone_node.stop()
    bed.forget(namespace)
    lone_node.start()
    assert lone_node.add("pod1")[1] == "10.0.0.11"
    assert lone_node.cni("DEL", "pod0").code == 0


def test_gc_after_a_reboot_of_the_runtime(bed: Bed, lone_node: Node) -> None:
    lone_node.add("pod0")
    _, second = lone_node.add("pod1")
    valid = {"cni.dev/valid-attachments": [{"containerID": "pod1", "ifname": "eth0"}]}
    assert lone_node.cni("GC", config=lone_node.config("1.1.0", **valid)).code == 0
    assert len(_devices(bed, lone_node)) == 1
    assert bed.ping(lone_node.namespace, second)


def test_a_lost_journal_costs_no_running_pod_its_address(bed: Bed, lone_node: Node) -> None:
    one, first = lone_node.add("pod0")
    lone_node.stop()
    for file in lone_node.folder.glob("node.db*"):
        file.unlink()
    lone_node.fill_journal()
    lone_node.start()
    assert bed.ping(one, "10.0.0.1")
    assert lone_node.add("pod1")[1] != first, "the kernel remembers whose it is"
    assert lone_node.cni("ADD", "pod0", one).body["ips"][0]["address"] == f"{first}/32"
    assert lone_node.cni("DEL", "pod0", one).code == 0
    assert len(_devices(bed, lone_node)) == 1


def test_a_second_daemon_is_refused(bed: Bed, lone_node: Node) -> None:
    twin = Node.__new__(Node)
    twin.__dict__.update(lone_node.__dict__)
    aside = lone_node.cni_socket.with_suffix(".old")
    lone_node.cni_socket.rename(aside)
    with pytest.raises(RuntimeError, match="stop the other node daemon"):
        twin.start()
    aside.rename(lone_node.cni_socket)
    assert lone_node.cni("STATUS").code == 0


def test_a_stop_does_not_wait_for_those_who_wait(bed: Bed) -> None:
    node = bed.node("a", Eni(0, "10.0.0.5", []), address_wait_s=60)
    node.fill_journal()
    node.start()
    namespace = bed.namespace("pod")
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(node.cni, "ADD", "pod", namespace)
        while _waiting_pods(node) == 0:
            time.sleep(0.02)
        began = time.monotonic()
        node.stop()
        assert time.monotonic() - began < 3
        assert waiting.result(5).body["code"] == 11


def _waiting_pods(node: Node) -> int:
    with grpc.insecure_channel(f"unix:{node.socket}") as channel:
        status = node_pb2_grpc.NodeServiceStub(channel).GetStatus(node_pb2.GetStatusRequest())
    return int(status.waiting_pods)


def test_without_a_daemon_the_plugin_says_so_at_once(bed: Bed, lone_node: Node) -> None:
    namespace = bed.namespace("pod")
    lone_node.stop()
    began = time.monotonic()
    answer = lone_node.cni("ADD", "pod", namespace)
    assert (answer.code, answer.body["code"]) == (1, 11)
    assert time.monotonic() - began < 1


def _devices(bed: Bed, node: Node) -> dict[str, int]:
    links = bed.show(node.namespace, "link", "show", "type", "veth")
    return {link["ifname"]: link["ifindex"] for link in links if link["ifname"].startswith("plm")}
