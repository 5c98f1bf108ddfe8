"""Free counts of a subnet, told as the resyncs that saw them."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipam.capacity import FreeTrend

MINUTE_S = 60.0
HOUR_S = 3600.0


def seen(counts: Iterable[tuple[float, int]]) -> FreeTrend:
    trend = FreeTrend()
    for at_s, free in counts:
        trend.observe(at_s, free)
    return trend


def test_a_subnet_never_listed_has_no_forecast() -> None:
    assert FreeTrend().exhaustion().in_s == math.inf


@pytest.mark.parametrize("start_s", [0.0, 1.7e9])
def test_a_steady_loss_ends_where_its_line_does(start_s: float) -> None:
    said = seen((start_s + n * MINUTE_S, 1000 - 2 * n) for n in range(240)).exhaustion()
    assert said.free == 522
    assert said.taken_per_hour == pytest.approx(120.0, rel=1e-3)
    assert said.in_s == pytest.approx(522 / 120 * HOUR_S, rel=1e-3)


@pytest.mark.parametrize("step", [0, 3])
def test_a_subnet_that_keeps_or_regains_addresses_does_not_run_out(step: int) -> None:
    said = seen((n * MINUTE_S, 100 + step * n) for n in range(60)).exhaustion()
    assert said.in_s == math.inf
    assert said.taken_per_hour == pytest.approx(-60.0 * step)


def test_a_few_minutes_say_nothing_yet() -> None:
    assert seen((n * MINUTE_S, 100 - 20 * n) for n in range(4)).exhaustion().in_s == math.inf


def test_an_empty_subnet_has_run_out_whatever_its_trend() -> None:
    assert seen([(0.0, 0)]).exhaustion().in_s == 0.0


def test_yesterdays_calm_does_not_hide_todays_loss() -> None:
    calm = [(n * 600.0, 4000) for n in range(144)]
    loss = [(24 * HOUR_S + n * 600.0, 4000 - 50 * n) for n in range(72)]
    assert seen(calm + loss).exhaustion().taken_per_hour == pytest.approx(300.0, rel=0.2)


def test_a_count_that_comes_late_is_ignored() -> None:
    counts = [(n * MINUTE_S, 500 - n) for n in range(60)]
    assert seen([*counts, (30.0, 3)]).exhaustion() == seen(counts).exhaustion()


@given(st.lists(st.tuples(st.floats(1.0, 1e6), st.integers(0, 65_000)), max_size=60))
def test_whatever_was_counted_the_forecast_is_a_time_to_come(steps: list[tuple[float, int]]) -> None:
    now_s, trend = 0.0, FreeTrend()
    for passed_s, free in steps:
        now_s += passed_s
        trend.observe(now_s, free)
    said = trend.exhaustion()
    assert said.in_s >= 0.0
    assert math.isfinite(said.taken_per_hour)
