"""Labels of pods: as CNI's conventions give them, kept with the lease, told to the registry."""

from __future__ import annotations

from typing import Any

import pytest

from ipam.local import LocalPool
from ipam.model import PoolInterface
from services.api.ipam import convert
from services.node.clients import registry_endpoint
from services.node.metadata import cloud_labels
from services.node.pods import Pods
from tests.unit.node.conftest import MemoryNode

A, B = "10.0.0.10", "10.0.0.11"
SHOP = "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-1"


def args(*labels: Any) -> dict[str, Any]:
    return {"args": {"cni": {"labels": list(labels)}}}


def label(key: Any, value: Any) -> dict[str, Any]:
    return {"key": key, "value": value}


def told(memory_node: Any) -> dict[str, str]:
    [attached] = memory_node.pods.attached()
    return dict(registry_endpoint("node-1", attached).labels)


def test_labels_go_to_the_registry_with_the_runtimes_word_on_the_pod(memory_node: MemoryNode) -> None:
    memory_node.give(A)
    claimed = label("io.kubernetes.pod.namespace", "kube-system")
    assert memory_node.ask("ADD", args=SHOP, config=args(label("app", "web"), label("tier", ""), claimed))[0] == 0
    assert told(memory_node) == {
        "app": "web",
        "tier": "",
        "io.kubernetes.pod.namespace": "shop",
        "io.kubernetes.pod.name": "web-1",
    }


def test_labels_survive_a_restart(memory_node: MemoryNode) -> None:
    memory_node.give(A)
    memory_node.ask("ADD", config=args(label("app", "web")))
    pool = LocalPool(memory_node.journal, memory_node.pool._clock, boot_id="boot", cooldown_s=30.0)
    memory_node.pods = Pods(pool, memory_node.endpoints, mtu_of=lambda _: 9001)
    assert told(memory_node) == {"app": "web"}


def test_an_add_that_is_asked_again_takes_the_new_labels_and_keeps_the_address(memory_node: MemoryNode) -> None:
    memory_node.give(A, B)
    before = memory_node.ask("ADD", config=args(label("app", "web"), label("old", "1")))
    assert memory_node.ask("ADD", config=args(label("app", "db"))) == before
    assert told(memory_node) == {"app": "db"}


@pytest.mark.parametrize("config", [{}, {"args": {}}, {"args": {"cni": {}}}, args(), {"args": {"cni": None}}])
def test_a_pod_may_have_no_labels(memory_node: MemoryNode, config: dict[str, Any]) -> None:
    memory_node.give(A)
    assert memory_node.ask("ADD", config=config)[0] == 0
    assert told(memory_node) == {}


@pytest.mark.parametrize(
    ("config", "says"),
    [
        pytest.param({"args": []}, "args is list", id="args is no object"),
        pytest.param({"args": {"cni": "x"}}, "cni is str", id="cni is no object"),
        pytest.param({"args": {"cni": {"labels": {"app": "web"}}}}, "labels is dict", id="labels as an object"),
        pytest.param(args("app=web"), "[0] is no label", id="text"),
        pytest.param(args(label("app", "web"), {"key": "tier"}), "[1] is no label", id="no value"),
        pytest.param(args(label("", "web")), "[0] is no label", id="no name"),
        pytest.param(args(label("app", 7)), "[0] is no label", id="a number"),
        pytest.param(args(label("app", "w" * 513)), "[0] is too long", id="too long"),
        pytest.param(args(label("a\0", "w")), "[0] is too long or no text", id="NUL"),
        pytest.param(args(label("app", "web"), label("app", "db")), "second value", id="two values"),
        pytest.param(args(*(label(str(n), "") for n in range(129))), "129 labels", id="too many"),
    ],
)
def test_wrong_labels_are_named_and_lease_nothing(memory_node: MemoryNode, config: dict[str, Any], says: str) -> None:
    memory_node.give(A)
    code, error = memory_node.ask("ADD", config=config)
    assert (code, error["code"]) == (1, 7)
    assert says in error["msg"]
    assert error["details"]
    assert not memory_node.pool.leases()
    assert memory_node.ask("DEL", config=config) == (0, {}), "the end of a pod does not fail for it"


def interface(**changes: Any) -> PoolInterface:
    facts: dict[str, Any] = {
        "id": "eni-1", "mac": "02:00:00:00:00:01", "device_index": 0, "subnet_id": "subnet-1",
        "subnet_cidr": "10.0.0.0/24", "gateway": "10.0.0.1", "primary_address": "10.0.0.4", "vpc_id": "vpc-1",
        "zone": "eu-west-1a", "vpc_cidrs": ("10.0.0.0/16",), "security_group_ids": ("sg-1", "sg-2"), "addresses": {},
        "instance_tags": {"team": "shop"},
    }  # fmt: skip
    return PoolInterface(**{**facts, **changes})


def test_what_the_cloud_says_of_the_interface_is_told_beside_the_pods_own_labels(memory_node: MemoryNode) -> None:
    memory_node.give(A)
    memory_node.ask("ADD", config=args(label("app", "web")))
    [attached] = memory_node.pods.attached()
    passed_on = convert.interface_from(convert.interface_to(interface()))
    assert dict(registry_endpoint("node-1", attached, passed_on).labels) == {
        "app": "web",
        "cloud.plimsoll/vpc": "vpc-1",
        "cloud.plimsoll/subnet": "subnet-1",
        "cloud.plimsoll/zone": "eu-west-1a",
        "cloud.plimsoll/interface": "eni-1",
        "cloud.plimsoll/security-group/sg-1": "",
        "cloud.plimsoll/security-group/sg-2": "",
        "cloud.plimsoll/tag/team": "shop",
    }


def test_a_pod_cannot_say_itself_what_only_its_cloud_may(memory_node: MemoryNode) -> None:
    memory_node.give(A)
    memory_node.ask("ADD", config=args(label("cloud.plimsoll/security-group/sg-admin", ""), label("app", "web")))
    assert told(memory_node) == {"app": "web"}


def test_a_range_of_the_nodes_own_is_of_no_cloud() -> None:
    own = interface(id="own", mac="", subnet_id="", vpc_id="", zone="", security_group_ids=(), instance_tags={})
    assert cloud_labels(own) == {}


def test_tags_that_the_registry_would_refuse_are_left_out() -> None:
    tags = {f"k{n:03}": "v" for n in range(100)} | {"a-long-one": "x" * 600}
    labels = cloud_labels(interface(instance_tags=tags))
    assert sum(name.startswith("cloud.plimsoll/tag/") for name in labels) <= 64
    assert all(len(value.encode()) <= 512 for value in labels.values())
