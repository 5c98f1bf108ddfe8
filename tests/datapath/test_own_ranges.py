"""A node daemon without any cloud: pods of its own ranges, in each family, with real packets, through a restart."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from tests.datapath.bed import Bed, Node, children_left

pytestmark = [pytest.mark.root, pytest.mark.tool("ip", "ping", "cc", "make")]

NODE4, NODE6 = "192.168.50.1", "fd50::1"
RANGES = {
    "IPv4": ["10.1.0.0/24"],
    "both": ["10.1.0.0/24", "fd00:1::/64"],
    "IPv6": ["fd00:1::/64"],
}


@pytest.fixture
def bed() -> Iterator[Bed]:
    with Bed() as one:
        yield one
    assert not children_left(one.tag)


@pytest.fixture(params=RANGES)
def own_node(bed: Bed, request: pytest.FixtureRequest) -> Node:
    """A node with an address of each family and no cloud interface."""
    node = bed.node("a", pod_cidrs=RANGES[request.param], cooldown_s=0.5)
    bed.ip(
        node.namespace,
        "link add outside mtu 1400 type veth peer name wire",
        "link set wire up",
        "link set outside up",
        f"addr add {NODE4}/24 dev outside",
        f"addr add {NODE6}/64 dev outside nodad",
        "route add default via 192.168.50.254",
        "route add ::/0 via fd50::fe",
    )
    node.start()
    return node


def addresses(node: Node, container: str, namespace: str) -> list[str]:
    answer = node.cni("ADD", container, namespace)
    assert answer.code == 0, answer.body
    return [one["address"].partition("/")[0] for one in answer.body["ips"]]


def refusal(namespace: str, address: str) -> str:
    command = ["ip", "netns", "exec", namespace, "ping", "-n", "-c", "1", "-W", "2", address]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_pods_reach_each_other_and_the_node_and_a_restart_changes_nothing(bed: Bed, own_node: Node) -> None:
    pods = {}
    for name in ("one", "two"):
        namespace = bed.namespace(name)
        pods[namespace] = addresses(own_node, name, namespace)
    (one, of_one), (two, of_two) = pods.items()
    assert set(of_one).isdisjoint(of_two)

    def all_is_well() -> None:
        for mine, others in ((one, of_two), (two, of_one)):
            for other in others:
                assert bed.ping(mine, other)
                assert bed.ping(own_node.namespace, other)
                assert bed.ping(mine, NODE6 if ":" in other else NODE4)

    all_is_well()
    assert [one["mtu"] for one in bed.show(one, "link", "show", "eth0")] == [1400], "that of the device that leads out"
    for address in of_one:
        unused = str(ip_address(address) + 77)
        assert "nreachable" in refusal(one, unused), "not sent to the gateway, which would send it back"
        assert "No route to host" in refusal(own_node.namespace, unused)
    own_node.kill()
    all_is_well()
    own_node.start()
    assert addresses(own_node, "one", one) == of_one
    all_is_well()
    own_node.stop()
    for file in own_node.folder.glob("node.db*"):
        file.unlink()
    own_node.start()
    assert addresses(own_node, "two", two) == of_two, "taken back from the kernel"
    third = bed.namespace("three")
    assert set(addresses(own_node, "three", third)).isdisjoint({*of_one, *of_two})
    all_is_well()
    assert own_node.cni("DEL", "one", one).code == 0
    assert not bed.ping(two, of_one[0])
