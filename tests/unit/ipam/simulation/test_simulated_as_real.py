"""The simulator says what the real service does with the same pods: service, executor and a fake cloud beside it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ipam.config import IpamConfig
from ipam.model import Limits, Operation, Watermarks
from ipam.simulation.clouds import AWS
from ipam.simulation.engine import simulate
from ipam.simulation.model import CallRate, Group, RecordedPod, Variant, Workload
from tests.bench import churn

CALL_S = 0.3
NODES = 8
MARKS = Watermarks(pre_allocate=8)


@pytest.mark.parametrize("seed", [1, 3, 5])
def test_calls_waits_and_idle_addresses(seed: int) -> None:
    events = churn.workload(seed=seed, nodes=NODES, pods=200, hours=2.0)
    real = churn.ours(events, NODES, MARKS, CALL_S)
    starts = {event.pod: event for event in events if event.starts}
    spans = [(starts[event.pod].at, event) for event in events if not event.starts]
    pods = [RecordedPod(f"n{end.node}", str(end.pod), at, end.at) for at, end in sorted(spans)]
    cloud = replace(
        AWS, types={"m5.4xlarge": Limits("m5.4xlarge", 8, 30, prefixes=True)},
        seconds=dict.fromkeys(Operation, CALL_S), throttle=CallRate(1e6, 1e6),
    )  # fmt: skip
    work = Workload("churn", cloud, (Group("g", "m5.4xlarge", 0),), duration_s=real.seconds, recorded=tuple(pods))
    config = IpamConfig("1", "r", watermarks=MARKS, release_delay_s=churn.RELEASE_DELAY_S, resync_interval_s=1e9)
    # As on that site: nothing cools, and what is decided is done at once.
    free = CallRate(1e6, 1e6)
    found = simulate(work, Variant("v", config, budget=free, cooldown_s=0.0, reaction_s=0.0))
    assert found.pods == 200
    assert found.mutating_calls == pytest.approx(real.calls, rel=0.02)
    assert found.waits_s == pytest.approx(sorted(wait for wait in real.waits if wait), abs=1e-6)
    assert found.idle_mean == pytest.approx(real.idle_seconds / real.seconds, rel=0.02)
