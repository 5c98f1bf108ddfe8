"""Levels: what each leaves out, what the calls of the last minutes say, and that it ends by itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipam.degradation import (
    PERSIST_S,
    RECOVER_S,
    WINDOW_S,
    ByBudget,
    ByHand,
    Degradation,
    Throttle,
    allows,
    by_hand,
)
from ipam.model import IntentKind, OperationCount

NORMAL, NO_RELEASE, NO_MUTATION, FROZEN = Degradation


@pytest.mark.parametrize(
    ("level", "left_out"),
    [
        (NORMAL, set()),
        (NO_RELEASE, {"release", "release-interface", "collect"}),
        (NO_MUTATION, {"release", "release-interface", "collect", "allocate", "repair"}),
        (FROZEN, set(IntentKind)),
    ],
)
def test_what_each_level_leaves_out(level: Degradation, left_out: set[str]) -> None:
    assert {str(kind) for kind in IntentKind if not allows(level, kind)} == left_out


def hear(budget: ByBudget, since: float, until: float, *, throttled: int, calls: int = 10) -> None:
    at = since
    while at < until:
        budget.hear(at, [OperationCount("assign-addresses", calls, throttled)], denied=False)
        at += 10.0


@pytest.mark.parametrize(
    ("throttled", "lasts_s", "expected"),
    [
        pytest.param(0, 600.0, NORMAL, id="all is well"),
        pytest.param(2, 600.0, NORMAL, id="a fifth is throttled: the budget's own cut is enough"),
        pytest.param(4, 30.0, NORMAL, id="four in ten, but not for long"),
        pytest.param(4, 600.0, NO_RELEASE, id="four in ten, and it persists"),
        pytest.param(8, 600.0, NO_MUTATION, id="nearly all"),
    ],
)
def test_persistent_throttling_lowers_the_level(throttled: int, lasts_s: float, expected: Degradation) -> None:
    budget = ByBudget()
    hear(budget, 0.0, lasts_s, throttled=throttled)
    assert budget.level is expected
    assert bool(budget.why) == (expected > NORMAL)


def test_many_reports_cost_no_more_than_the_seconds_they_came_in() -> None:
    budget = ByBudget()
    for number in range(20_000):
        budget.hear(number / 200.0, [OperationCount("assign-addresses", 10, 8)], denied=False)
    assert len(budget._heard) <= 101, "a hundred seconds"
    assert (budget.level, budget._calls) == (NO_MUTATION, 200_000)
    budget.judge(100.0 + WINDOW_S + 1.0)
    assert (budget._calls, budget._throttled) == (0, 0)


def test_refused_credentials_stop_changes_and_success_takes_them_up_again() -> None:
    budget = ByBudget()
    failed = [OperationCount("assign-addresses", 1, failed=1)]
    for second in range(5):
        assert budget.level is NORMAL
        budget.hear(float(second), failed, denied=True)
    assert budget.level is NO_MUTATION
    assert "credentials" in budget.why
    at = 5.0
    while budget.level and at < 3000.0:
        budget.hear(at, [OperationCount("read-inventory", 3)], denied=False)
        at += 60.0
    assert RECOVER_S <= at <= 3 * RECOVER_S + 120.0


def test_recovery_goes_one_level_at_a_time() -> None:
    budget = ByBudget()
    hear(budget, 0.0, 600.0, throttled=9)
    seen = [budget.level]
    for at in range(600, 600 + int(WINDOW_S + 3 * RECOVER_S), 10):
        budget.judge(float(at))
        if budget.level != seen[-1]:
            seen.append(budget.level)
    assert seen == [NO_MUTATION, NO_RELEASE, NORMAL]


def test_a_level_set_by_hand_ends_with_its_time() -> None:
    throttle = Throttle(ByHand(FROZEN, until_at=100.0, why="a move"), ByBudget())
    assert (throttle.level(99.0), throttle.why(99.0)) == (FROZEN, "by hand: a move")
    assert (throttle.level(100.0), throttle.why(100.0)) == (NORMAL, "")
    assert Throttle(ByHand(NO_RELEASE), ByBudget()).level(1e12) is NO_RELEASE


@pytest.mark.parametrize(
    ("memo", "expected"),
    [
        (None, ByHand()),
        ({"level": "frozen", "until_at": 5, "why": "x"}, ByHand(FROZEN, 5.0, "x")),
        ({"level": "of another release", "until_at": 5}, ByHand()),
        ({"level": "frozen", "until_at": "soon"}, ByHand()),
    ],
)
def test_what_was_written_down(memo: dict[str, object] | None, expected: ByHand) -> None:
    assert by_hand(memo) == expected


reports = st.lists(st.tuples(st.floats(0.0, 200.0), st.integers(0, 40), st.integers(0, 40), st.booleans()), max_size=80)


@given(reports)
def test_the_budget_never_freezes_climbs_for_a_reason_and_ends_in_silence(
    heard: list[tuple[float, int, int, bool]],
) -> None:
    budget, now = ByBudget(), 0.0
    for after_s, calls, throttled, denied in heard:
        now += after_s
        before = budget.level
        budget.hear(now, [OperationCount("x", calls, min(throttled, calls))], denied=denied)
        assert budget.level <= NO_MUTATION
        assert budget.level >= before - 1
        assert not budget.level or budget.why
    for _ in range(200):
        now += PERSIST_S
        budget.judge(now)
    assert budget.level is NORMAL or budget._denials >= 5
