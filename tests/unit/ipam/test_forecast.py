"""What a node's past starts make of its marks: stories with their numbers, and what holds for every past."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipam.forecast import DAY_S, LEARN_S, Bounds, Forecast
from ipam.model import Watermarks

HOUR_S = 3600.0
FIXED = Watermarks(pre_allocate=8, min_allocate=3, max_above_watermark=2)
TTA_S = 10.0


def bursts(size: int, every_s: float, count: int) -> Iterator[tuple[float, int, int]]:
    for number in range(count):
        yield number * every_s, size, 0
        yield number * every_s + every_s / 2, 0, size


def learnt(past: Iterator[tuple[float, int, int]], until_s: float, bounds: Bounds | None = None) -> tuple[int, str]:
    forecast = Forecast(bounds or Bounds())
    forecast.observe(0.0, 0, 0)
    for at_s, starts, stops in past:
        if at_s > until_s:
            break
        forecast.observe(at_s, starts, stops)
    estimate = forecast.estimate(until_s, FIXED, TTA_S)
    return estimate.marks.pre_allocate, estimate.why


STORIES = [
    pytest.param([], 60.0, 8, "configured mark stands", id="a node that was not watched long keeps its mark"),
    pytest.param([], HOUR_S, 1, "no pod started", id="a node on which nothing happens keeps one address"),
    pytest.param(bursts(1, 600.0, 12), 2 * HOUR_S, 1, "lately", id="single pods need a single address"),
    pytest.param(bursts(6, 600.0, 12), 2 * HOUR_S, 6, "lately", id="bursts of six need six"),
    pytest.param(bursts(60, 600.0, 12), 2 * HOUR_S, 32, "bounded to 32", id="no more than the bound, ever"),
    pytest.param(bursts(20, 600.0, 2), 12 * HOUR_S, 1, "no pod started", id="a burst of long ago is forgotten"),
    pytest.param(
        ((each * 2.0, 1, 1) for each in range(4000)), 2 * HOUR_S, 9, "", id="a steady stream of one in two seconds"
    ),
]


@pytest.mark.parametrize(("past", "until_s", "expected", "why"), STORIES)
def test_the_mark_is_what_the_past_would_have_needed(
    past: Iterator[tuple[float, int, int]], until_s: float, expected: int, why: str
) -> None:
    mark, words = learnt(iter(past), until_s)
    assert mark == pytest.approx(expected, abs=0 if expected < 9 else 3)
    assert why in words


def test_only_the_free_addresses_follow_demand() -> None:
    forecast = Forecast()
    forecast.observe(0.0, 0, 0)
    marks = forecast.marks(HOUR_S, FIXED, TTA_S)
    assert marks == Watermarks(pre_allocate=1, min_allocate=3, max_above_watermark=2)


def test_one_great_burst_among_many_small_ones_is_not_paid_for_by_the_hour() -> None:
    """One pod in a hundred may wait: 2 pods of 300 did when a group of 4 came once."""
    many = [(each * 20.0, 2, 2) for each in range(150)] + [(3010.0, 4, 0)]
    assert learnt(iter(many), 3100.0)[0] == 2
    forecast = Forecast()
    for each in many:
        forecast.observe(*each)
    assert forecast.marks(3012.0, FIXED, TTA_S).pre_allocate >= 4, "but while it lasts, more of it are expected"


def test_what_happens_each_morning_is_prepared_for() -> None:
    forecast = Forecast()
    forecast.observe(0.0, 0, 0)
    for day in range(4):
        forecast.observe(day * DAY_S + 8.01 * HOUR_S, 16, 0)
        forecast.observe(day * DAY_S + 18 * HOUR_S, 0, 16)
    fifth = 4 * DAY_S
    assert forecast.marks(fifth + 6 * HOUR_S, FIXED, TTA_S).pre_allocate == 1
    early = forecast.estimate(fifth + 7.95 * HOUR_S, FIXED, TTA_S)
    assert early.marks.pre_allocate == 15
    assert "days before" in early.why


def test_a_longer_way_to_an_address_asks_for_more_of_them() -> None:
    forecast = Forecast()
    for each in range(1200):
        forecast.observe(each * 6.0, 1, 0)
    now_s = 7200.0
    marks = [forecast.marks(now_s, FIXED, tta_s).pre_allocate for tta_s in (5.0, 20.0, 60.0)]
    assert marks == sorted(marks)
    assert marks[0] < marks[-1]


def test_most_pods_of_a_random_day_find_an_address_with_fewer_idle_than_by_a_fixed_mark() -> None:
    chance = random.Random(7)
    forecast, now_s, waited, pods, free, idle = Forecast(), 0.0, 0, 0, 0.0, 0.0
    while now_s < DAY_S:
        pause_s = chance.expovariate(1 / 300.0) + 2 * TTA_S
        free = forecast.marks(now_s + pause_s, FIXED, TTA_S).pre_allocate  # had the time to be filled again
        idle += free * pause_s
        now_s += pause_s
        size = chance.choice((1, 1, 1, 2, 3))
        forecast.observe(now_s, size, size)
        pods += size
        waited += max(size - int(free), 0)
    assert waited / pods <= 0.03
    assert idle / now_s < 0.6 * FIXED.pre_allocate


events = st.lists(st.tuples(st.floats(-100.0, 5000.0), st.integers(-2, 50), st.integers(-2, 50)), max_size=60)


@given(events, st.integers(0, 10), st.integers(10, 60), st.integers(0, 40), st.floats(0.0, 1000.0))
def test_whatever_happened_the_mark_is_within_its_bounds_and_the_same_each_time(
    past: list[tuple[float, int, int]], least: int, most: int, limit: int, tta_s: float
) -> None:
    def once() -> Watermarks:
        forecast, now_s = Forecast(Bounds(least, most)), 0.0
        for after_s, starts, stops in past:
            now_s += after_s
            forecast.observe(now_s, starts, stops)
        return forecast.marks(now_s + LEARN_S, Watermarks(max_allocate=limit), tta_s)

    marks = once()
    assert marks == once()
    assert min(least, limit or least) <= marks.pre_allocate <= (min(most, limit) if limit else most)
