"""Labels of pods: as CNI's conventions give them, kept with the lease, told to the registry."""

from __future__ import annotations

from typing import Any

import pytest

from ipam.local import LocalPool
from services.node.clients import registry_endpoint
from services.node.pods import Pods

A, B = "10.0.0.10", "10.0.0.11"
SHOP = "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-1"


def args(*labels: Any) -> dict[str, Any]:
    return {"args": {"cni": {"labels": list(labels)}}}


def label(key: Any, value: Any) -> dict[str, Any]:
    return {"key": key, "value": value}


def told(memory_node: Any) -> dict[str, str]:
    [attached] = memory_node.pods.attached()
    return dict(registry_endpoint("node-1", attached).labels)


def test_labels_go_to_the_registry_with_the_runtimes_word_on_the_pod(memory_node) -> None:
    memory_node.give(A)
    claimed = label("io.kubernetes.pod.namespace", "kube-system")
    assert memory_node.ask("ADD", args=SHOP, config=args(label("app", "web"), label("tier", ""), claimed))[0] == 0
    assert told(memory_node) == {
        "app": "web",
        "tier": "",
        "io.kubernetes.pod.namespace": "shop",
        "io.kubernetes.pod.name": "web-1",
    }


def test_labels_survive_a_restart(memory_node) -> None:
    memory_node.give(A)
    memory_node.ask("ADD", config=args(label("app", "web")))
    pool = LocalPool(memory_node.journal, memory_node.pool._clock, boot_id="boot", cooldown_s=30.0)
    memory_node.pods = Pods(pool, memory_node.endpoints, mtu_of=lambda _: 9001)
    assert told(memory_node) == {"app": "web"}


def test_an_add_that_is_asked_again_takes_the_new_labels_and_keeps_the_address(memory_node) -> None:
    memory_node.give(A, B)
    before = memory_node.ask("ADD", config=args(label("app", "web"), label("old", "1")))
    assert memory_node.ask("ADD", config=args(label("app", "db"))) == before
    assert told(memory_node) == {"app": "db"}


@pytest.mark.parametrize("config", [{}, {"args": {}}, {"args": {"cni": {}}}, args(), {"args": {"cni": None}}])
def test_a_pod_may_have_no_labels(memory_node, config: dict[str, Any]) -> None:
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
def test_wrong_labels_are_named_and_lease_nothing(memory_node, config: dict[str, Any], says: str) -> None:
    memory_node.give(A)
    code, error = memory_node.ask("ADD", config=config)
    assert (code, error["code"]) == (1, 7)
    assert says in error["msg"]
    assert error["details"]
    assert not memory_node.pool.leases()
    assert memory_node.ask("DEL", config=config) == (0, {}), "the end of a pod does not fail for it"
