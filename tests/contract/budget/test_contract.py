"""What every budget does, whoever keeps its tokens: the fake, one process alone, Redis."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from ipam.errors import StaleFence, Throttled
from ipam.model import OperationClass
from ipam.ports import Budget, Standing
from services.worker.buckets import BudgetLimits, Rate
from services.worker.budget import RedisBudget, connect

MUTATE, READ = OperationClass.MUTATE, OperationClass.READ
AMPLE = BudgetLimits(Rate(2000, 50), Rate(2000, 50), Rate(4000, 100))
SCARCE = BudgetLimits(Rate(0.1, 1), Rate(0.1, 1), Rate(0.1, 1))

MakeBudget = Callable[[BudgetLimits], RedisBudget]


def _away() -> redis.Redis:
    return connect("unix:///nonexistent/redis.sock")


@pytest.fixture(params=["alone", pytest.param("redis", marks=pytest.mark.redis)])
def make_budget(request: pytest.FixtureRequest) -> Iterator[MakeBudget]:
    yield from _budgets(request.param, request)


@pytest.fixture(params=["fake", "alone", pytest.param("redis", marks=pytest.mark.redis)])
def ample(request: pytest.FixtureRequest) -> Iterator[Budget]:
    if request.param == "fake":
        yield pytest.importorskip("ipam.testing").FreeBudget()
    else:
        yield from (make(AMPLE) for make in _budgets(request.param, request))


def _budgets(kind: str, request: pytest.FixtureRequest) -> Iterator[MakeBudget]:
    budgets: list[RedisBudget] = []
    client = _away() if kind == "alone" else connect(request.getfixturevalue("redis_server"))

    def make(limits: BudgetLimits) -> RedisBudget:
        budgets.append(RedisBudget(client, "aws:1:r", limits, fallback_share=1.0))
        return budgets[-1]

    yield make
    for budget in budgets:
        budget.stop()
    client.close()


@pytest.mark.parametrize("operation_class", [MUTATE, READ])
@pytest.mark.parametrize("begun", [True, False])
def test_a_free_turn_comes_at_once(ample: Budget, operation_class: OperationClass, begun: bool) -> None:
    assert 0 <= ample.acquire(operation_class, standing=lambda: Standing(begun=begun), deadline_s=5.0) < 1.0


def test_throttling_and_success_are_taken_at_any_time(ample: Budget) -> None:
    ample.succeeded(READ)
    ample.throttled(MUTATE)
    ample.succeeded(MUTATE)
    assert ample.acquire(MUTATE, standing=Standing, deadline_s=5.0) >= 0


def test_many_threads_all_get_their_turn(ample: Budget) -> None:
    with ThreadPoolExecutor(16) as threads:
        waits = list(threads.map(lambda _: ample.acquire(MUTATE, standing=Standing, deadline_s=30.0), range(64)))
    assert len(waits) == 64


def test_a_turn_beyond_the_deadline_is_refused_at_once(make_budget: MakeBudget) -> None:
    budget = make_budget(SCARCE)
    started = time.monotonic()
    with pytest.raises(Throttled, match="no call of class mutate") as refusal:
        budget.acquire(MUTATE, standing=Standing, deadline_s=1.0)
    assert time.monotonic() - started < 0.9
    assert refusal.value.retry_after_s == pytest.approx(10.0, abs=1.0)
    assert refusal.value.remedy


def test_a_refused_waiter_leaves_no_place_behind(make_budget: MakeBudget) -> None:
    budget = make_budget(BudgetLimits(Rate(5, 1), Rate(5, 1), Rate(10, 2)))
    with pytest.raises(Throttled):
        budget.acquire(MUTATE, standing=lambda: Standing(begun=True), deadline_s=0.05)
    assert budget.acquire(MUTATE, standing=Standing, deadline_s=2.0) < 0.5


def test_a_waiter_that_pods_come_to_wait_for_overtakes(make_budget: MakeBudget) -> None:
    """Sixteen are before it, four a second go; what it stands for is asked again after two seconds at the latest."""
    budget = make_budget(BudgetLimits(Rate(4, 1), Rate(4, 1), Rate(40, 10)))
    granted: list[str] = []

    def wait(name: str, standing: Callable[[], Standing]) -> None:
        with contextlib.suppress(Throttled):  # those that the end of the test has stopped
            budget.acquire(MUTATE, standing=standing, deadline_s=30.0)
            granted.append(name)

    looks = itertools.count()
    threads = [threading.Thread(target=wait, args=("calm", Standing)) for _ in range(16)]
    for each in threads:
        each.start()
    wait("urgent", lambda: Standing(urgent=next(looks) > 0))
    assert granted.index("urgent") < 14
    budget.stop()
    for each in threads:
        each.join()


def test_what_standing_raises_ends_the_wait_and_leaves_no_place(make_budget: MakeBudget) -> None:
    budget = make_budget(BudgetLimits(Rate(5, 1), Rate(5, 1), Rate(10, 2)))
    looks = itertools.count()

    def standing() -> Standing:
        if next(looks) > 0:
            raise StaleFence("followed by another")
        return Standing(urgent=True)

    budget.acquire(MUTATE, standing=Standing, deadline_s=5.0)
    with pytest.raises(StaleFence):
        budget.acquire(MUTATE, standing=standing, deadline_s=5.0)
    assert budget.acquire(MUTATE, standing=Standing, deadline_s=5.0) < 0.5


def test_stopping_wakes_those_who_wait(make_budget: MakeBudget) -> None:
    budget = make_budget(SCARCE)
    refused = threading.Event()

    def wait() -> None:
        with pytest.raises(Throttled, match="stopping"):
            budget.acquire(MUTATE, standing=Standing, deadline_s=60.0)
        refused.set()

    waiter = threading.Thread(target=wait)
    waiter.start()
    budget.stop()
    assert refused.wait(5.0)
    waiter.join()


def test_throttling_lowers_the_rate_and_success_raises_it(make_budget: MakeBudget) -> None:
    limits = BudgetLimits(Rate(100, 1), Rate(100, 1), Rate(200, 2), cut_factor=0.1, growth_share=10.0)
    budget = make_budget(limits)
    budget.throttled(MUTATE)
    slow = [budget.acquire(MUTATE, standing=Standing, deadline_s=5.0) for _ in range(4)]
    assert sum(slow) > 0.25, "ten calls a second by now"
    time.sleep(0.6)  # growth counts seconds of success; no event tells that they passed
    budget.succeeded(MUTATE)
    fast = [budget.acquire(MUTATE, standing=Standing, deadline_s=5.0) for _ in range(4)]
    assert sum(fast) < 0.2, "back at a hundred"
