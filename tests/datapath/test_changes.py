"""The node's network changes under a running daemon: addresses, devices, the gateway's MAC. Pods notice little."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.datapath.asking import ask, until
from tests.datapath.bed import Bed, Eni, Node, children_left

pytestmark = [pytest.mark.root, pytest.mark.tool("ip", "ping", "cc", "make", "clang-19")]
OUTSIDE = "198.51.100.1"
SECOND = Eni(1, "10.0.0.6", ["10.0.0.20"])


@pytest.fixture
def bed() -> Iterator[Bed]:
    with Bed() as one:
        one.ip(one.router, f"addr add {OUTSIDE}/32 dev lo")
        # A machine that takes over an address tells everybody, as gateways do.
        one.sysctl(one.router, "conf/all/arp_notify", "1")
        one.sysctl(one.router, "conf/default/arp_notify", "1")
        yield one
    assert not children_left(one.tag)


@pytest.fixture
def node(bed: Bed) -> Node:
    """
    pods ── node ── ens0 ── router; ens1 is the pool's, but not plugged yet
    """
    one = bed.node(
        "a", Eni(0, "10.0.0.5", ["10.0.0.10", "10.0.0.11"]), cooldown_s=0,
        **{"datapath.masquerade": True, "datapath.cluster_cidrs": ["10.0.0.0/16"]},
    )  # fmt: skip
    one.enis.append(SECOND)
    one.fill_journal()
    one.start()
    return one


def refusal(namespace: str, address: str) -> str:
    command = ["ip", "netns", "exec", namespace, "ping", "-n", "-c", "1", "-W", "2", address]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def masquerade(node: Node) -> dict[str, str]:
    return {one["name"]: one["masquerade4"] for one in ask(node, "datapath", "devices")}


def test_addresses_and_devices_come_and_go(bed: Bed, node: Node) -> None:
    pod, _ = node.add("pod0")
    assert bed.ping(pod, OUTSIDE)

    # An address of the pool that no pod has is unreachable, until one has it.
    assert "Unreachable" in refusal(pod, "10.0.0.11")
    node.add("idle")
    assert bed.ping(pod, "10.0.0.11")
    assert node.cni("DEL", "idle").code == 0
    assert "Unreachable" in refusal(pod, "10.0.0.11")

    bed.ip(node.namespace, "addr add 192.0.2.77/32 dev ens0")
    until(lambda: bed.ping(pod, "192.0.2.77"), 3)
    until(lambda: any(one["address"] == "192.0.2.77" for one in ask(node, "datapath", "addresses")))
    bed.ip(node.namespace, "addr del 192.0.2.77/32 dev ens0")
    until(lambda: all(one["address"] != "192.0.2.77" for one in ask(node, "datapath", "addresses")))

    # Another address of its own: what leaves the cluster bears that one.
    assert masquerade(node) == {"ens0": "10.0.0.5"}
    bed.ip(bed.router, "route add 10.0.0.50/32 dev port1")
    bed.ip(
        node.namespace,
        "addr del 10.0.0.5/24 dev ens0",
        "addr add 10.0.0.50/24 dev ens0",
        "route replace default via 10.0.0.1",
    )
    until(lambda: masquerade(node) == {"ens0": "10.0.0.50"})
    until(lambda: bed.ping(pod, OUTSIDE), 3)
    listed = ask(node, "datapath", "nat", "list")
    assert "10.0.0.50" in str(listed)

    # A second interface is plugged: it gets its programs, and its pods talk.
    bed.plug(node, SECOND)
    node.add("pod1")
    until(lambda: "ens1" in masquerade(node))
    [second] = [one for one in ask(node, "datapath", "devices") if one["name"] == "ens1"]
    assert {one["hook"] for one in second["attachments"]} == {"from-device", "to-device"}
    other, address = node.add("pod2")
    assert address == "10.0.0.20"
    assert bed.ping(other, "10.0.0.1")
    bed.ip(node.namespace, "link del ens1")
    until(lambda: "ens1" not in masquerade(node))
    assert bed.ping(pod, OUTSIDE)


def test_flows_follow_a_gateway_that_moves(bed: Bed, node: Node) -> None:
    pod, _ = node.add("pod0")
    command = ["ip", "netns", "exec", pod, "ping", "-n", "-q", "-i", "0.02", "-c", "150", "-W", "1", OUTSIDE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as pings:
        until(lambda: any(one["forth"]["packets"] > 10 for one in ask(node, "datapath", "ct", "list")))
        bed.ip(bed.router, "link set port1 address 02:00:00:00:99:99")
        out, _ = pings.communicate(timeout=20)
    received = int(out.split(" received")[0].split()[-1])
    assert received >= 100, f"at most a second of packets is lost: {out}"
    [neighbour] = bed.show(node.namespace, "neigh", "show", "10.0.0.1", "dev", "ens0")
    assert neighbour["lladdr"] == "02:00:00:00:99:99"
