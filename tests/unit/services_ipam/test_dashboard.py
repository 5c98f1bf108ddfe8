"""The dashboard in deploy/grafana asks for nothing that no service tells: neither metrics, nor labels, nor values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import Metric

from ipam.model import Done, IntentKind, Operation, OperationClass
from ipam.testing import IpamSite
from services.ipam.metrics import IpamMetrics, PoolCollector
from services.node import metrics as node_metrics
from services.runtime import metrics as runtime_metrics
from services.worker.buckets import Verdict
from services.worker.metrics import WorkerMetrics

DASHBOARDS = sorted((Path(__file__).parents[3] / "deploy" / "grafana").glob("*.json"))
# What Prometheus itself adds to each sample, and what a histogram's buckets have.
ADDED = {"job", "instance"}
_SELECTOR = re.compile(r"(plimsoll_\w+)(\{[^}]*\})?")
_GROUPED = re.compile(r"\b(?:by|without) \(([^)]*)\)")
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"')


@pytest.fixture(scope="module")
def told() -> Mapping[str, set[str]]:
    """Names of samples with their labels, of services that have done a little of everything."""
    registry = CollectorRegistry()
    site = IpamSite()
    try:
        site.node()
        site.work()
        ipam, worker = IpamMetrics(registry), WorkerMetrics(registry)
        ipam.completed(IntentKind.ALLOCATE, Done(), 0.1)
        ipam.release_asked(allowed=1, refused=1)
        ipam.resynced(1)
        worker("DescribeSubnets", "ok", 0.1)
        worker.mutated(Operation.ASSIGN_ADDRESSES, "subnet-a", "ok", 0.1, 3)
        worker.waited(OperationClass.MUTATE, 0.1, granted=True)
        worker.cut(OperationClass.MUTATE)
        worker.seen(OperationClass.MUTATE, Verdict(True, 0.0, 0, 1.0, 0, 0, 0.0), shared=True)
        worker.performed("done", 0.1)
        registry.register(PoolCollector(site.service))
        node_metrics.CNI_SECONDS.labels("ADD", "ok").observe(0.1)
        runtime_metrics.READY.set(1)
        found: dict[str, set[str]] = {}
        for metric in (*registry.collect(), *REGISTRY.collect(), *_of_a_node()):
            for sample in metric.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
        return found
    finally:
        site.close()


def _of_a_node() -> Iterator[Metric]:
    class Pool:
        def counts(self) -> list[Any]:
            return []

        def pending(self) -> int:
            return 0

    class Connection:
        service = "registry"
        state = type("State", (), {"connected": True})

    connections: list[Any] = [Connection()]
    yield from node_metrics.NodeCollector(Pool(), lambda: connections).collect()  # type: ignore[arg-type]


def expressions(path: Path) -> Iterator[tuple[str, str]]:
    """Each expression with the title of its panel, and those of variables."""
    dashboard = json.loads(path.read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]["query"]


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_what_is_asked_for_is_told(path: Path, told: Mapping[str, set[str]]) -> None:
    asked = 0
    for title, expression in expressions(path):
        selectors = _SELECTOR.findall(expression)
        assert selectors, f"{title}: {expression} asks for nothing of ours"
        known: set[str] = set(ADDED)
        for name, matchers in selectors:
            asked += 1
            assert name in told, f"{title}: nobody tells {name}"
            labels = told[name] | ADDED
            unknown = set(_MATCHER.findall(matchers)) - labels
            assert not unknown, f"{title}: {name} has no label {unknown}"
            known |= labels
        for group in _GROUPED.findall(expression):
            unknown = {each.strip() for each in group.split(",")} - known
            assert not unknown, f"{title}: nothing in {expression} has {unknown}"
    assert asked > 20


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_panels_do_not_lie_on_each_other_and_have_numbers_of_their_own(path: Path) -> None:
    panels = json.loads(path.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: dict[tuple[int, int], str] = {}
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies on {taken[x, y]}"
                taken[x, y] = panel["title"]


def test_there_is_a_dashboard() -> None:
    assert DASHBOARDS
