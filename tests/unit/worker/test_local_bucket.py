"""The bucket of one process: what it grants, in which order, and never more than its limits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipam.model import OperationClass
from ipam.ports import Standing
from services.worker.buckets import BudgetLimits, LocalBucket, Place, Rate

MUTATE, READ = OperationClass.MUTATE, OperationClass.READ
BEGUN, FRESH = Standing(begun=True).rank, Standing().rank


class Now:
    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        return self.s


def limits(mutate: tuple[float, float], read: tuple[float, float], total: tuple[float, float]) -> BudgetLimits:
    return BudgetLimits(Rate(*mutate), Rate(*read), Rate(*total))


def test_a_new_bucket_is_empty_and_fills_to_its_burst() -> None:
    now = Now()
    bucket = LocalBucket(limits((10, 2), (10, 2), (100, 10)), monotonic=now)
    first = bucket.attempt(Place(MUTATE, FRESH))
    assert not first.granted
    assert first.wait_s == pytest.approx(0.1)
    now.s += 60.0
    assert [bucket.attempt(Place(READ, FRESH)).granted for _ in range(3)] == [True, True, False]


def test_nodes_already_begun_go_first_then_by_arrival() -> None:
    now = Now()
    bucket = LocalBucket(limits((1, 1), (1, 1), (10, 10)), monotonic=now)
    early, late, begun = (
        Place(MUTATE, FRESH),
        Place(MUTATE, FRESH),
        Place(MUTATE, BEGUN),
    )
    assert not any(bucket.attempt(place).granted for place in (early, late, begun))
    order: list[Place] = []
    while len(order) < 3:
        now.s += 1.0
        # The wrong order of asking: the line decides, not who asks first.
        order += [place for place in (late, early, begun) if place not in order and bucket.attempt(place).granted]
    assert order == [begun, early, late]


def test_a_late_head_does_not_hold_up_those_behind_it() -> None:
    now = Now()
    bucket = LocalBucket(limits((10, 4), (1, 1), (100, 10)), monotonic=now)
    head, second = Place(MUTATE, FRESH), Place(MUTATE, FRESH)
    assert not bucket.attempt(head).granted
    assert not bucket.attempt(second).granted
    now.s += 0.2
    assert bucket.attempt(second).granted
    assert bucket.attempt(head).granted


def test_who_leaves_the_line_holds_nobody_up() -> None:
    now = Now()
    bucket = LocalBucket(limits((1, 1), (1, 1), (10, 10)), monotonic=now)
    gone, next_one = Place(MUTATE, BEGUN), Place(MUTATE, FRESH)
    bucket.attempt(gone)
    bucket.attempt(next_one)
    bucket.leave(gone)
    now.s += 1.0
    assert bucket.attempt(next_one).granted


def test_reads_take_only_what_waiting_mutations_leave_of_the_total() -> None:
    now = Now()
    bucket = LocalBucket(limits((10, 10), (10, 10), (1, 1)), monotonic=now)
    mutation, read = Place(MUTATE, FRESH), Place(READ, BEGUN)
    assert not bucket.attempt(read).granted
    assert not bucket.attempt(mutation).granted
    now.s += 1.0
    assert not bucket.attempt(read).granted, "the mutation's share of the total is set aside"
    assert bucket.attempt(mutation).granted
    now.s += 1.0
    assert bucket.attempt(read).granted


def test_reads_go_on_while_mutations_wait_for_their_own_rate() -> None:
    now = Now()
    bucket = LocalBucket(limits((1, 1), (100, 10), (50, 10)), monotonic=now)
    assert not bucket.attempt(Place(MUTATE, FRESH)).granted
    now.s += 0.5
    assert bucket.attempt(Place(READ, FRESH)).granted


def test_throttling_cuts_once_an_interval_and_success_regains_the_ceiling() -> None:
    now = Now()
    bucket = LocalBucket(limits((10, 10), (10, 10), (100, 10)), monotonic=now)
    assert bucket.throttled(MUTATE).rate_per_s == 5
    now.s += 1.0
    assert bucket.throttled(MUTATE).rate_per_s == 5, "one burst of refusals is one event"
    now.s += 2.0
    assert bucket.throttled(MUTATE).rate_per_s == 2.5
    assert bucket.succeeded(READ).rate_per_s == 10, "classes are cut apart"
    for _ in range(100):
        now.s += 1.0
        rate = bucket.succeeded(MUTATE).rate_per_s
    assert rate == 10


def test_throttling_never_stops_calls_for_good() -> None:
    now = Now()
    bucket = LocalBucket(limits((10, 10), (10, 10), (100, 10)), monotonic=now)
    for _ in range(50):
        now.s += 3.0
        rate = bucket.throttled(MUTATE).rate_per_s
    assert rate == pytest.approx(0.5)


@given(
    rate=st.floats(0.5, 50),
    burst=st.integers(1, 10),
    total=st.floats(0.5, 50),
    steps=st.lists(st.tuples(st.floats(0, 3), st.sampled_from([MUTATE, READ]), st.booleans()), max_size=60),
)
def test_no_window_holds_more_than_rate_times_length_and_burst(
    rate: float, burst: int, total: float, steps: list[tuple[float, OperationClass, bool]]
) -> None:
    now = Now()
    bucket = LocalBucket(limits((rate, burst), (rate, burst), (total, burst)), monotonic=now)
    places: list[Place] = []
    granted: list[tuple[float, OperationClass]] = []
    for pause_s, operation_class, begun in steps:
        now.s += pause_s
        places.append(Place(operation_class, Standing(begun=begun).rank))
        for place in list(places):
            if bucket.attempt(place).granted:
                places.remove(place)
                granted.append((now.s, place.operation_class))
    for wanted, allowed in (({MUTATE}, rate), ({READ}, rate), ({MUTATE, READ}, total)):
        times = [at for at, operation_class in granted if operation_class in wanted]
        for first in range(len(times)):
            for last in range(first, len(times)):
                assert last - first + 1 <= allowed * (times[last] - times[first]) + burst + 1e-3
