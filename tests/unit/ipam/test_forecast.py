"""What a node's past starts make of its marks: stories with their numbers, and what holds for every past."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipam.forecast import DAY_S, LEARN_S, MOST_GROUPS, SETTLE_S, SLOTS, Bounds, Forecast
from ipam.model import Watermarks
from ipam.rehearsal import LITTLE

HOUR_S = 3600.0
FIXED = Watermarks(pre_allocate=8, min_allocate=3)
TTA_S = 10.0

Past = Iterable[tuple[float, int, int]]


def bursts(size: int, every_s: float, count: int, from_s: float = 600.0) -> Iterator[tuple[float, int, int]]:
    """Pods that start together, and are gone before the next ones come."""
    for number in range(count):
        yield from_s + number * every_s, size, 0
        yield from_s + (number + 0.5) * every_s, 0, size


def alone(every_s: float, count: int, stay: int, from_s: float = 600.0) -> Iterator[tuple[float, int, int]]:
    """Pods one by one, each gone when `stay` more have come."""
    for number in range(count):
        yield from_s + number * every_s, 1, 0
        if number >= stay:
            yield from_s + (number + 0.5) * every_s, 0, 1


def learnt(past: Past, until_s: float, bounds: Bounds | None = None, reach_s: float = TTA_S) -> tuple[Watermarks, str]:
    forecast = Forecast(bounds or Bounds())
    forecast.observe(0.0, 0, 0, reach_s)
    for at_s, starts, returns in past:
        if at_s > until_s:
            break
        forecast.observe(at_s, starts, returns, reach_s)
    estimate = forecast.estimate(until_s, FIXED, reach_s)
    return estimate.marks, estimate.why


STORIES = [
    pytest.param([], 60.0, 8, 8, "configured mark stands", id="a node that was not watched long keeps its mark"),
    pytest.param([], HOUR_S, 1, 1, "no pod started", id="a node on which nothing happens keeps one address"),
    pytest.param([(5.0, 12, 0)], HOUR_S, 1, 1, "lately", id="pods that it begins with are no demand"),
    pytest.param(alone(600.0, 12, 3), 3 * HOUR_S, 1, 2, "lately", id="single pods need next to nothing"),
    pytest.param(bursts(6, 600.0, 12), 2 * HOUR_S, 6, 7, "lately", id="bursts of six need six, and not quite the last"),
    pytest.param(bursts(60, 600.0, 12), 2 * HOUR_S, 32, 32, "lately", id="no more than the bound, ever"),
    pytest.param(bursts(20, 600.0, 2), 12 * HOUR_S, 1, 1, "no pod started", id="a burst of long ago is forgotten"),
    pytest.param(alone(2.0, 4000, 50, 10.0), 2 * HOUR_S, 1, 4, "lately", id="as many come back as are taken"),
]


@pytest.mark.parametrize(("past", "until_s", "least", "most", "why"), STORIES)
def test_the_mark_is_what_the_past_would_have_needed(
    past: Past, until_s: float, least: int, most: int, why: str
) -> None:
    marks, words = learnt(iter(past), until_s)
    assert least <= marks.pre_allocate <= most
    assert why in words


def test_what_is_kept_at_least_and_at_most_does_not_follow_demand() -> None:
    forecast = Forecast()
    forecast.observe(0.0, 0, 0, TTA_S)
    base = Watermarks(8, min_allocate=3, max_allocate=20, max_above_watermark=6)
    assert forecast.marks(HOUR_S, base, TTA_S) == Watermarks(1, 3, 20, 6)


def test_a_small_mark_has_room_above_it_and_a_great_one_hardly() -> None:
    """So that pods which come and go one by one do not make a call each."""
    few, many = learnt(alone(300.0, 20, 3), 2 * HOUR_S)[0], learnt(bursts(12, 600.0, 10), 2 * HOUR_S)[0]
    assert few.pre_allocate + few.max_above_watermark == LITTLE
    assert (many.pre_allocate >= 12, many.max_above_watermark) == (True, 1)
    assert learnt([], 2 * HOUR_S)[0].max_above_watermark == 0


def test_one_great_burst_is_not_paid_for_ever_after() -> None:
    small = list(bursts(2, 60.0, 300))
    with_one = [*small[:200], (small[200][0] - 10.0, 12, 0), (small[200][0] - 1.0, 0, 12), *small[200:]]
    before, after = learnt(with_one, small[199][0])[0], learnt(with_one, small[-1][0])[0]
    assert before.pre_allocate <= after.pre_allocate < 12


def test_groups_that_came_before_say_how_many_more_come() -> None:
    forecast = Forecast()
    forecast.observe(0.0, 0, 0, 0.5)
    for at_s, starts, returns in bursts(14, 1800.0, 5):
        for each in range(max(starts, 1)):
            forecast.observe(at_s + each * 0.1, min(starts, 1), returns, 0.5)
    now_s = 5 * 1800.0
    marks = []
    for each in range(14):
        forecast.observe(now_s + each * 0.1, 1, 0, 0.5)
        marks.append(forecast.marks(now_s + each * 0.1, FIXED, 0.5).pre_allocate)
    lately = marks[0]
    assert lately < 11
    assert marks[2] == 11, "with the third it is no chance any more"
    assert marks[-1] == forecast.marks(now_s + 60.0, FIXED, 0.5).pre_allocate == lately, "none is left to come"


def test_what_happens_each_morning_is_prepared_for() -> None:
    forecast = Forecast()
    forecast.observe(0.0, 0, 0, TTA_S)
    for day in range(4):
        forecast.observe(day * DAY_S + 8.01 * HOUR_S, 16, 0, TTA_S)
        forecast.observe(day * DAY_S + 18 * HOUR_S, 0, 16, TTA_S)
    fifth = 4 * DAY_S
    assert forecast.marks(fifth + 6 * HOUR_S, FIXED, TTA_S).pre_allocate == 1
    early = forecast.estimate(fifth + 7.95 * HOUR_S, FIXED, TTA_S)
    assert 14 <= early.marks.pre_allocate <= 16
    assert "days before" in early.why


def test_a_longer_way_to_an_address_asks_for_more_of_them() -> None:
    marks = [learnt(alone(6.0, 1100, 2000), 7200.0, reach_s=each)[0].pre_allocate for each in (5.0, 20.0, 60.0)]
    assert marks == sorted(marks)
    assert marks[0] < marks[-1]


events = st.lists(st.tuples(st.floats(-100.0, 5000.0), st.integers(-2, 50), st.integers(-2, 50)), max_size=60)


@given(events, st.integers(0, 10), st.integers(10, 60), st.integers(0, 40), st.floats(0.0, 1000.0))
def test_whatever_happened_the_mark_is_within_its_bounds_and_the_same_each_time(
    past: list[tuple[float, int, int]], least: int, most: int, limit: int, tta_s: float
) -> None:
    def once() -> Watermarks:
        forecast, now_s = Forecast(Bounds(least, most)), 0.0
        for after_s, starts, returns in past:
            now_s += after_s
            forecast.observe(now_s, starts, returns, tta_s)
        return forecast.marks(now_s + LEARN_S, Watermarks(max_allocate=limit), tta_s)

    marks = once()
    assert marks == once()
    assert min(least, limit or least) <= marks.pre_allocate <= (min(most, limit) if limit else most)
    assert marks.pre_allocate + marks.max_above_watermark <= most or not marks.max_above_watermark


@given(events, st.integers(1, 4096))
def test_what_is_remembered_does_not_grow_with_the_past(past: list[tuple[float, int, int]], most: int) -> None:
    forecast, now_s = Forecast(Bounds(1, most)), SETTLE_S
    for after_s, starts, returns in past * 3:
        now_s += after_s
        forecast.observe(now_s, 40 * starts, returns, TTA_S)
    assert forecast.imagined <= 50
    assert len(forecast._groups) <= MOST_GROUPS
    assert len(forecast._slots) <= SLOTS
