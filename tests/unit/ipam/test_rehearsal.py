"""Imagined pools: by the rules of real ones, and missing the pods that those would."""

from __future__ import annotations

import heapq
from dataclasses import replace

import pytest

from ipam import review
from ipam.config import IpamConfig
from ipam.model import Limits, Watermarks
from ipam.rehearsal import PATIENCE, Imagined, Rehearsal, Rules
from ipam.simulation.engine import simulate
from ipam.simulation.examples import example
from ipam.simulation.model import Variant
from ipam.simulation.streams import spans

NODES = 5
CALL_S = 0.55


def test_the_rules_are_those_of_the_service() -> None:
    config = IpamConfig("1", "r")
    rules = Rules(config.coalesce_s, config.urgent_fraction, config.release_delay_s)
    assert (rules, PATIENCE) == (Rules(), review.PATIENCE)


@pytest.mark.parametrize("mark", [5, 7, 10])
def test_an_imagined_pool_misses_the_pods_that_a_simulated_one_does(mark: int) -> None:
    work = replace(example("batch"), measure_from_s=600.0)
    cloud = replace(work.cloud, types={"m5.4xlarge": Limits("m5.4xlarge", 2, 200)})  # no interface is ever made
    work = replace(work, cloud=cloud, groups=(replace(work.groups[0], nodes=NODES, join_over_s=0.0),))
    rules = Rules()
    marks = Watermarks(mark, max_above_watermark=rules.slack(mark))
    variant = Variant("fixed", IpamConfig("1", "r", watermarks=marks))
    found = simulate(work, variant)
    missed = pods = 0.0
    for number in range(NODES):
        pool = Imagined(mark, rules)
        coming_back: list[float] = []
        for start, end in spans(
            work.groups[0].pods, seed=f"{work.seed}/batch-{number}", from_s=0.0, to_s=work.duration_s
        ):
            while coming_back and coming_back[0] <= start:
                pool.live(heapq.heappop(coming_back), 0, 1, 0, CALL_S, rules)
            pool.live(start, 1, 0, 0, CALL_S, rules)
            if start >= work.measure_from_s:
                missed += pool.misses(1) == 1
                pods += 1
            heapq.heappush(coming_back, end + variant.cooldown_s)
    assert pods == found.pods
    assert missed == pytest.approx(len(found.waits_s), rel=0.2, abs=3)


def test_pools_are_imagined_up_to_the_first_that_is_enough() -> None:
    rehearsal = Rehearsal(32, Rules())
    for number in range(20):
        rehearsal.live(number * 600.0, 5, 0, 0, 1.0, counts=True)
        rehearsal.live(number * 600.0 + 300.0, 0, 5, 0, 1.0, counts=True)
    assert 5 <= rehearsal.enough(0.001) <= 6
    assert len(rehearsal) <= 7
    assert 5 <= rehearsal.enough_now(0.001) <= 6
    for number in range(400):
        rehearsal.live(12_000.0 + number * 600.0, 1, 1, 0, 1.0, counts=True)
    assert rehearsal.enough_now(0.001) <= 2
    assert rehearsal.enough(0.001) <= 2
    assert len(rehearsal) <= 3, "those that nobody needs any more are forgotten"


def test_weights_stay_numbers_after_a_year() -> None:
    rehearsal = Rehearsal(32, Rules())
    for day in range(2000):
        rehearsal.live(day * 86400.0, 4, 4 if day else 0, 0, 1.0, counts=True)
    assert 1 <= rehearsal.enough(0.01) <= 6
