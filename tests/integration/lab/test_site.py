"""A site of real processes on the clouds that no other test starts it on, as the bench runs it."""

from __future__ import annotations

import pytest

from lab.clouds import CloudName
from tests.bench.fleet import CALLS_PER_NODE
from tests.bench.fullstack import Shape, run

pytestmark = pytest.mark.redis


@pytest.mark.parametrize("cloud", ["azure", "alibaba"])
def test_nodes_of_each_cloud_are_filled_through_its_own_sdk(cloud: CloudName) -> None:
    rows = run(Shape(cloud, nodes=2, addresses=10, workers=1, threads=4))
    told = {row.name.rpartition(": ")[2]: row.value for row in rows}
    assert told["mutating cloud calls a node"] >= CALLS_PER_NODE[cloud]
    assert {name for name in told if name.startswith("memory") and "peak" not in name} == {
        f"memory of {each}" for each in ("redis", f"ipam-{cloud}", "worker", f"fake-{cloud}")
    }
