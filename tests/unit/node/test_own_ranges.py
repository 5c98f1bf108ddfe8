"""Pods of a node with ranges of its own: both families through CNI, journal, registry and a lost journal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from datapath.testing import FakeRouting
from ipam.journal import Journal, Owner
from ipam.local import LocalPool
from ipam.model import Level, PoolInterface
from ipam.ranges import PodRanges, parse
from services.node.clients import registry_endpoint
from services.node.explain import node_findings, pod_findings
from services.node.handlers import _endpoint
from services.node.network import Network
from services.node.pods import Attached, Pods
from services.node.settings import Settings
from tests.unit.node.conftest import MemoryNode

DUAL, ALONE6, ALONE4 = ["10.1.0.0/24", "fd00:1::/64"], ["fd00:1::/64"], ["10.1.0.0/24"]


class OwnNode:
    """A node's pool, network and pods, which can be started again on its journal, or on a lost one."""

    def __init__(self, memory_node: Any) -> None:
        self._node = memory_node
        self.routing = FakeRouting()

    def hold(self, texts: list[str]) -> PodRanges:
        ranges = parse(texts)
        node = self._node
        node.pods = Pods(node.pool, node.endpoints, mtu_of=lambda _: 0, address6_of=ranges.address6_of, wait_s=0)
        node.handler._pods = node.pods
        self.network = Network(self.routing, node.pool)
        self.network.restore()
        node.pods.restore()
        assert self.network.hold({one.id: one for one in [ranges.interface()]}) == {}
        return ranges

    @property
    def attached(self) -> Attached:
        one: Attached
        [one] = self._node.pods.attached()
        return one


@pytest.fixture
def own(memory_node: MemoryNode) -> OwnNode:
    return OwnNode(memory_node)


@pytest.mark.parametrize(
    ("texts", "addresses"),
    [
        pytest.param(ALONE4, ["10.1.0.2"], id="IPv4"),
        pytest.param(DUAL, ["10.1.0.2", "fd00:1::a01:2"], id="both"),
        pytest.param(ALONE6, ["fd00:1::1000"], id="IPv6"),
    ],
)
@pytest.mark.parametrize("version", ["0.4.0", "1.1.0"])
def test_pods_get_addresses_and_routes_of_each_family(
    memory_node: MemoryNode, own: OwnNode, texts: list[str], addresses: list[str], version: str
) -> None:
    own.hold(texts)
    code, result = memory_node.ask("ADD", version=version)
    assert code == 0
    lengths = {False: 32, True: 128}
    assert [one["address"] for one in result["ips"]] == [f"{one}/{lengths[':' in one]}" for one in addresses]
    assert [one["dst"] for one in result["routes"]] == ["::/0" if ":" in one else "0.0.0.0/0" for one in addresses]
    if version == "0.4.0":
        assert [one["version"] for one in result["ips"]] == ["6" if ":" in one else "4" for one in addresses]
    attached = own.attached
    assert list(attached.endpoint.addresses) == addresses
    assert list(registry_endpoint("node-1", attached).addresses) == addresses
    told = _endpoint(attached, 256)
    assert [one for one in (told.address, told.address6) if one] == addresses
    assert told.identity == 256
    assert memory_node.ask("CHECK", version=version, config={"prevResult": result}) == (0, {})
    short = {**result, "ips": result["ips"][:-1]}
    code, error = memory_node.ask("CHECK", version=version, config={"prevResult": short})
    assert (code, error["code"]) == (1, 101)
    assert memory_node.ask("DEL") == (0, {})
    assert not memory_node.endpoints.wired


def test_no_cloud_interface_is_looked_for(memory_node: MemoryNode, own: OwnNode) -> None:
    own.hold(DUAL)
    assert own.routing.reconciles == 0
    assert [one.unusable for one in memory_node.pool.counts()] == [""]
    assert memory_node.ask("STATUS") == (0, {})


async def test_a_cloud_interface_that_carries_pods_still_goes_on(
    memory_node: MemoryNode, make_eni: Callable[..., PoolInterface], own: OwnNode
) -> None:
    network = Network(own.routing, memory_node.pool)
    await network.take({"eni-1": make_eni("eni-1", ["10.0.0.10", "10.0.0.11"])})
    memory_node.ask("ADD", "old")
    own.hold(DUAL)
    [link] = own.routing.links
    assert (link.name, link.addresses) == ("eni-1", frozenset({"10.0.0.10"}))
    code, result = memory_node.ask("ADD", "new")
    assert (code, result["ips"][0]["address"]) == (0, "10.1.0.2/32")
    memory_node.ask("DEL", "old")
    own.hold(DUAL)
    assert own.routing.links == (), "its tables go with its last pod"


def test_a_running_pod_keeps_its_addresses_whatever_the_settings_say_later(
    memory_node: MemoryNode, own: OwnNode
) -> None:
    own.hold(DUAL)
    before = memory_node.ask("ADD")
    endpoint = own.attached.endpoint
    own.hold(["10.1.0.0/24", "fd00:2::/64"])
    assert own.attached.endpoint == endpoint
    assert memory_node.ask("ADD") == before
    own.hold(ALONE4)
    assert own.attached.endpoint == endpoint
    memory_node.ask("ADD", "c2")
    assert {one.endpoint.address6 for one in memory_node.pods.attached()} == {"fd00:1::a01:2", ""}


@pytest.mark.parametrize("texts", [DUAL, ALONE6, ALONE4], ids=["both", "IPv6", "IPv4"])
def test_pods_of_a_lost_journal_are_taken_back_with_all_addresses(
    memory_node: MemoryNode, own: OwnNode, texts: list[str], tmp_path: Path
) -> None:
    own.hold(texts)
    memory_node.ask("ADD", args="K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web")
    endpoint = own.attached.endpoint
    with Journal(tmp_path / "fresh.db") as journal:
        clock = memory_node.pool._clock
        memory_node.pool = LocalPool(journal, clock, boot_id="boot", cooldown_s=30.0)
        own.hold(texts)
        assert own.attached.endpoint == endpoint
        assert own.attached.lease.interface_id == texts[0]
        assert own.attached.lease.pod == "shop/web"
        other = memory_node.pods.add(Owner("c2", "eth0"), netns="/run/netns/c2")
        assert set(other.endpoint.addresses).isdisjoint(endpoint.addresses)


def test_settings_make_ranges_canonical_and_need_no_cloud() -> None:
    settings = Settings(name="n", pod_cidrs=["FD00:1::/64", "10.1.0.0/24"])
    assert settings.pod_cidrs == ["10.1.0.0/24", "fd00:1::/64"]
    assert settings.pod_ranges == parse(DUAL)
    assert Settings(name="n").pod_ranges is None


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"ipam": "10.0.0.2:7202"}, "ipam needs instance_id"),
        ({"ipam": "10.0.0.2:7202", "instance_id": "i-1", "pod_cidrs": ALONE4}, "not from both"),
        ({"pod_cidrs": ["10.1.0.0/24", "10.2.0.0/24"]}, "both IPv4"),
        ({"pod_cidrs": ["fd00::/116"]}, "no room"),
        ({"pod_cidrs": ["fd00::/112"], "pod_cidr6_size": 61441}, "61440"),
    ],
)
def test_settings_that_cannot_be_are_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Settings(name="n", **given)


def test_what_a_used_up_range_needs_is_said(memory_node: MemoryNode, own: OwnNode) -> None:
    own.hold(["10.1.0.0/30", "fd00:1::/64"])
    memory_node.ask("ADD", args="K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web")
    code, error = memory_node.ask("ADD", "c2")
    assert (code, error["code"]) == (1, 11)
    assert "pod_cidrs" in error["details"]
    [finding, *_] = node_findings(memory_node.pool, {})
    assert (finding.level, "pod_cidrs" in finding.remedy) == (Level.PROBLEM, True)
    found = pod_findings(memory_node.pods.attached(), memory_node.pool, memory_node.endpoints, "shop/web")
    assert found is not None
    assert "10.1.0.2 and fd00:1::a01:2 by 10.1.0.0/30" in found[0].message
    memory_node.ask("DEL")
    [finding, *_] = node_findings(memory_node.pool, {})
    assert "larger range" in finding.remedy
