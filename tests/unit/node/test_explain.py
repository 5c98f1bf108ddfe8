"""Why not: what an administrator is told, with the remedy."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from datapath.errors import NotWired
from ipam.model import Finding, Level
from services.node.explain import node_findings, pod_findings
from services.runtime.watch import FollowState
from tests.unit.node.conftest import MemoryNode

UP, DOWN = FollowState(connected=True), FollowState(last_error="connection refused")


def _worst(findings: Iterable[Finding]) -> list[tuple[Level, str]]:
    return [(one.level, one.subject) for one in findings if one.level is not Level.OK]


def test_all_is_well(memory_node: MemoryNode) -> None:
    memory_node.give("10.0.0.10")
    assert not _worst(node_findings(memory_node.pool, {"ipam": UP, "registry": UP}))


def test_a_lost_service_is_no_problem_while_the_pool_lasts(memory_node: MemoryNode) -> None:
    memory_node.give("10.0.0.10")
    assert _worst(node_findings(memory_node.pool, {"ipam": DOWN})) == [(Level.WAITING, "connection")]
    memory_node.ask("ADD")
    memory_node.ask("ADD", "c2")
    findings = node_findings(memory_node.pool, {"ipam": DOWN})
    assert (Level.PROBLEM, "connection") in _worst(findings)
    assert all(one.remedy for one in findings if one.level is not Level.OK)


def test_a_node_that_was_never_told_of_an_interface(memory_node: MemoryNode) -> None:
    [finding] = node_findings(memory_node.pool, {})
    assert finding.level is Level.WAITING
    assert "not been told" in finding.message


def test_an_interface_without_a_device_is_named(memory_node: MemoryNode) -> None:
    memory_node.give("10.0.0.10")
    memory_node.pool.set_unusable({"eni-1": "no device of this node has the MAC 02:00:00:00:00:00"})
    assert (Level.PROBLEM, "interface") in _worst(node_findings(memory_node.pool, {}))


def test_a_pod_is_found_by_name_and_by_container(memory_node: MemoryNode) -> None:
    memory_node.give("10.0.0.10")
    memory_node.ask("ADD", "abcdef", args="K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web")
    for wanted in ("shop/web", "abcdef", "abc"):
        findings = pod_findings(memory_node.pods.attached(), memory_node.pool, memory_node.endpoints, wanted)
        assert findings is not None
        assert not _worst(findings)
    assert pod_findings(memory_node.pods.attached(), memory_node.pool, memory_node.endpoints, "shop/db") is None


def test_a_pod_that_waits_is_known_by_name(memory_node: MemoryNode) -> None:
    memory_node.ask("ADD", "abcdef", args="K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web")
    findings = pod_findings(memory_node.pods.attached(), memory_node.pool, memory_node.endpoints, "shop/web")
    assert findings is not None
    assert "shop/web waits" in findings[0].message


def test_a_pod_whose_kernel_state_was_changed(memory_node: MemoryNode, monkeypatch: pytest.MonkeyPatch) -> None:
    memory_node.give("10.0.0.10")
    memory_node.ask("ADD", args="K8S_POD_NAME=web")

    def broken(endpoint: object) -> None:
        raise NotWired("eth0 lacks the address", remedy="delete and add the pod")

    monkeypatch.setattr(memory_node.endpoints, "check", broken)
    findings = pod_findings(memory_node.pods.attached(), memory_node.pool, memory_node.endpoints, "/web")
    assert findings is not None
    assert _worst(findings) == [(Level.PROBLEM, "kernel")]
