"""Real packets of pods on one node and on two, through a router that knows each address at one interface only."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.datapath.bed import Bed, Eni, Node, children_left

pytestmark = [pytest.mark.root, pytest.mark.tool("ip", "ping", "cc", "make")]


@pytest.fixture
def bed() -> Iterator[Bed]:
    with Bed() as one:
        yield one
    assert not children_left(one.tag)


@pytest.fixture
def one_node(bed: Bed) -> Node:
    """
    pod ── node ── ens0 (10.0.0.5; pods 10.0.0.10, .11)  ── router
              └─── ens1 (10.0.0.6; pods 10.0.0.20, .21)  ──┘
    """
    node = bed.node(
        "a", Eni(0, "10.0.0.5", ["10.0.0.10", "10.0.0.11"]), Eni(1, "10.0.0.6", ["10.0.0.20", "10.0.0.21"]),
        address_wait_s=0.2, reconcile_interval_s=1,
    )  # fmt: skip
    # The strictest that an administrator may set.
    bed.sysctl(node.namespace, "conf/all/rp_filter", "1")
    node.fill_journal()
    node.start()
    return node


def test_pods_of_one_node_reach_each_other_and_their_node(bed: Bed, one_node: Node) -> None:
    (one, first), (two, second), (three, third) = (one_node.add(f"pod{n}") for n in range(3))
    assert (first, second, third) == ("10.0.0.10", "10.0.0.11", "10.0.0.20")
    for source, target in [(one, second), (two, first), (one, third), (three, first)]:
        assert bed.ping(source, target)
    for pod, address in [(one, first), (three, third)]:
        assert bed.ping(pod, "10.0.0.5"), "a pod reaches its node"
        assert bed.ping(pod, "10.0.0.6"), "by each of the node's addresses"
        assert bed.ping(one_node.namespace, address), "and the node its pod"


def test_packets_leave_by_the_interface_that_owns_their_source(bed: Bed, one_node: Node) -> None:
    """The router drops what comes in by the wrong port, so an answer proves the way."""
    pods = [one_node.add(f"pod{n}") for n in range(4)]
    for namespace, address in pods:
        assert bed.ping(namespace, "10.0.0.1"), f"{address} to the gateway"
        assert bed.ping(bed.router, address), f"the gateway to {address}"
    sent = {link["ifname"]: link["stats64"]["tx"]["packets"] for link in bed.show(one_node.namespace, "-s", "link")}
    assert bed.ping(pods[3][0], "10.0.0.1", count=20)
    after = {link["ifname"]: link["stats64"]["tx"]["packets"] for link in bed.show(one_node.namespace, "-s", "link")}
    assert after["ens1"] - sent["ens1"] >= 20
    assert after["ens0"] - sent["ens0"] < 5


def test_pods_of_two_nodes_reach_each_other(bed: Bed) -> None:
    """
    pods ── a ── ens0, ens1 ── router ── ens0, ens1 ── b ── pods
    """
    nodes = []
    for number, name in enumerate("ab"):
        base = 10 + 100 * number
        node = bed.node(
            name,
            Eni(0, f"10.0.0.{base - 5}", [f"10.0.0.{base}"]),
            Eni(1, f"10.0.0.{base - 4}", [f"10.0.0.{base + 1}"]),
        )
        node.fill_journal()
        node.start()
        nodes.append(node)
    pods = {node.name: [node.add(f"{node.name}{n}") for n in range(2)] for node in nodes}
    for namespace, _ in pods["a"]:
        for other, address in pods["b"]:
            assert bed.ping(namespace, address)
            assert bed.ping(other, next(own for name, own in pods["a"] if name == namespace))
    assert bed.ping(nodes[0].namespace, pods["b"][0][1]), "a node reaches another node's pod"


def test_whole_frames_pass_and_larger_ones_do_not(bed: Bed, one_node: Node) -> None:
    (one, _), (_, second) = one_node.add("pod0"), one_node.add("pod1")
    [link] = bed.show(one, "link", "show", "eth0")
    assert link["mtu"] == 9001
    whole = ("-M", "do", "-s", str(9001 - 28))
    assert bed.ping(one, second, options=whole)
    assert bed.ping(one, "10.0.0.1", options=whole)
    assert not bed.ping(one, second, options=("-M", "do", "-s", str(9002 - 28)))


def test_an_mtu_can_be_set(bed: Bed) -> None:
    node = bed.node("a", Eni(0, "10.0.0.5", ["10.0.0.10"]), mtu=1400)
    node.fill_journal()
    node.start()
    namespace, _ = node.add("pod")
    assert bed.show(namespace, "link", "show", "eth0")[0]["mtu"] == 1400


def test_del_leaves_nothing(bed: Bed, one_node: Node) -> None:
    before = _kernel(bed, one_node)
    namespace, address = one_node.add("pod")
    assert _kernel(bed, one_node) != before
    assert one_node.cni("DEL", "pod", namespace).code == 0
    assert _kernel(bed, one_node) == before
    assert not bed.show(namespace, "link", "show", "type", "veth")
    assert not bed.ping(one_node.namespace, address)
    assert one_node.cni("DEL", "pod", "").code == 0


def test_del_after_the_namespace_is_gone(bed: Bed, one_node: Node) -> None:
    before = _kernel(bed, one_node)
    namespace, _ = one_node.add("pod")
    bed.forget(namespace)
    assert one_node.cni("DEL", "pod", namespace).code == 0
    assert _kernel(bed, one_node) == before


def test_a_burst_of_pods_and_their_end(bed: Bed) -> None:
    addresses = [f"10.0.0.{n}" for n in range(100, 120)]
    node = bed.node("a", Eni(0, "10.0.0.5", addresses))
    node.fill_journal()
    node.start()
    before = _kernel(bed, node)
    with ThreadPoolExecutor(20) as threads:
        pods = list(threads.map(lambda n: node.add(f"pod{n}"), range(20)))
        assert {address for _, address in pods} == set(addresses)
        assert all(threads.map(lambda pod: bed.ping(pod[0], "10.0.0.1"), pods))
        assert not any(answer.code for answer in threads.map(lambda n: node.cni("DEL", f"pod{n}"), range(20)))
    assert _kernel(bed, node) == before


def test_check_finds_what_was_changed_behind_our_back(bed: Bed, one_node: Node) -> None:
    namespace = bed.namespace("pod")
    result = one_node.cni("ADD", "pod", namespace).body
    config = one_node.config(prevResult=result)
    assert one_node.cni("CHECK", "pod", namespace, config=config).code == 0
    bed.ip(namespace, "addr del 10.0.0.10/32 dev eth0")
    answer = one_node.cni("CHECK", "pod", namespace, config=config)
    assert (answer.code, answer.body["code"]) == (1, 101)
    assert "10.0.0.10" in answer.body["msg"]
    again = one_node.cni("ADD", "pod", namespace)
    assert again.body == result, "and a repeated ADD mends it"
    assert bed.ping(namespace, "10.0.0.1")


def test_somebody_elses_interface_is_not_touched(bed: Bed, one_node: Node) -> None:
    namespace = bed.namespace("pod")
    bed.ip(namespace, "link add eth0 type veth peer name eth9")
    before = bed.show(namespace, "link", "show", "eth0")
    answer = one_node.cni("ADD", "pod", namespace)
    assert (answer.code, answer.body["code"]) == (1, 4)
    assert bed.show(namespace, "link", "show", "eth0") == before
    assert one_node.cni("ADD", "pod", namespace, interface="net1").code == 0


def test_a_namespace_that_is_none_or_the_nodes_own(bed: Bed, one_node: Node) -> None:
    assert one_node.process is not None
    for path, says in [
        ("/etc/hostname", "no network namespace"),
        (f"/proc/{one_node.process.pid}/ns/net", "node's own"),
        ("/proc/self/ns/pid", "no network namespace"),
        ("/run/netns/never-made", "cannot be opened"),
    ]:
        answer = one_node.cni("ADD", "pod", path)
        assert (answer.code, answer.body["code"]) == (1, 4)
        assert says in answer.body["msg"]
    assert one_node.add("pod")[1] == "10.0.0.10", "no address was lost to them"


def test_a_spoofed_source_does_not_leave_the_vpc(bed: Bed, one_node: Node) -> None:
    (one, _), (_, second) = one_node.add("pod0"), one_node.add("pod1")
    bed.ip(one, "addr add 10.9.9.9/32 dev eth0")
    assert not bed.ping(one, second, options=("-I", "10.9.9.9"))


def test_drift_is_repaired_and_others_are_left_alone(bed: Bed, one_node: Node) -> None:
    namespace, _ = one_node.add("pod0")
    foreign = ["rule add priority 4000 from 192.0.2.1 lookup 77", "route add 192.0.2.0/24 dev ens0 table 77"]
    bed.ip(one_node.namespace, *foreign)
    before = _kernel(bed, one_node)
    bed.ip(
        one_node.namespace,
        "rule del priority 5010 from 10.0.0.10",
        "route flush table 20001",
        "rule add priority 5010 from 10.0.0.99 lookup 20000 protocol 80",
        "neigh del proxy 10.0.0.20 dev ens1",
    )
    _until(lambda: _kernel(bed, one_node) == before)
    assert bed.ping(namespace, "10.0.0.1")


def test_an_interface_that_is_plugged_in_later_is_brought_up(bed: Bed) -> None:
    late = Eni(1, "10.0.0.6", ["10.0.0.20"])
    node = bed.node("a", Eni(0, "10.0.0.5", []), address_wait_s=10, reconcile_interval_s=600)
    node.enis.append(late)
    node.fill_journal()
    node.start()
    assert node.cni("STATUS").code == 0
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(node.add, "pod")
        bed.plug(node, late)
        namespace, address = waiting.result(15)
    assert address == "10.0.0.20"
    # The node may have asked for its gateway before the far end was up: it asks again a second later.
    _until(lambda: bed.ping(namespace, "10.0.0.1"))


def _until(condition, wait_s: float = 15) -> None:  # type: ignore[no-untyped-def]
    """For what the daemon does by itself: it tells nobody."""
    deadline = time.monotonic() + wait_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _kernel(bed: Bed, node: Node) -> list[str]:
    """Everything of a node's network that pods and cloud interfaces may touch, in comparable form."""
    found = []
    for what in (["link"], ["addr"], ["rule"], ["route", "show", "table", "all"], ["neigh", "show", "proxy"]):
        for one in bed.show(node.namespace, "-4", *what):
            for noise in ("ifindex", "link_index", "stats64", "flags", "operstate", "linkinfo"):
                one.pop(noise, None)
            found.append(json.dumps([what[0], one], sort_keys=True))
    return sorted(found)


def test_the_daemons_own_words(bed: Bed, one_node: Node) -> None:
    """The command-line's view over the real socket."""
    one_node.add("pod0")
    program = (
        "import grpc, sys; from services.api.node.v1 import node_pb2 as m, node_pb2_grpc as g\n"
        "s = g.NodeServiceStub(grpc.insecure_channel('unix:' + sys.argv[1]))\n"
        "st = s.GetStatus(m.GetStatusRequest()); print(st.node, st.available, st.in_use)\n"
        "print(s.ListEndpoints(m.ListEndpointsRequest()).endpoints[0].pod)\n"
        "print([f.level for f in s.Explain(m.ExplainRequest(pod='default/pod0')).findings])\n"
        "print(s.Explain(m.ExplainRequest(pod='default/none')).findings[0].message)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(one_node.socket)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "a 3 1", "default/pod0", "['ok', 'ok']", "no pod default/none has an address on this node",
    ]  # fmt: skip


def test_metrics_tell_of_addresses_and_requests(bed: Bed) -> None:
    listen = bed.folder / "metrics.sock"
    node = bed.node("a", Eni(0, "10.0.0.5", ["10.0.0.10", "10.0.0.11"]), metrics_listen=f"unix:{listen}")
    node.fill_journal()
    node.start()
    node.add("pod")
    told = _scrape(str(listen))
    eni = node.enis[0].id
    for line in (
        f'plimsoll_node_addresses{{interface="{eni}",state="available"}} 1.0',
        f'plimsoll_node_addresses{{interface="{eni}",state="in_use"}} 1.0',
        f'plimsoll_node_interface_usable{{interface="{eni}"}} 1.0',
        'plimsoll_node_cni_seconds_count{command="ADD",outcome="ok"} 1.0',
    ):
        assert line in told


def _scrape(path: str) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(path)
        connection.sendall(b"GET /metrics HTTP/1.0\r\nHost: node\r\n\r\n")
        with connection.makefile("rb") as answer:
            return answer.read().decode()
