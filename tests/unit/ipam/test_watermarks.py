"""Marks of a pool: rows that users of such pools know, then properties that hold for all numbers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipam.model import Watermarks
from ipam.watermarks import ask, due, excess, needed, surge

COUNTS = st.integers(0, 300)
MARKS = st.builds(
    Watermarks,
    pre_allocate=st.integers(0, 40),
    min_allocate=st.integers(0, 60),
    max_allocate=st.one_of(st.just(0), st.integers(1, 200)),
    max_above_watermark=st.integers(0, 30),
)


@pytest.mark.parametrize(
    ("attached", "used", "pre", "least", "most", "expected"),
    [
        (0, 0, 0, 16, 0, 16),
        (0, 0, 8, 16, 0, 16),
        (0, 0, 16, 8, 0, 16),
        (8, 4, 8, 0, 0, 4),
        (8, 4, 8, 0, 8, 0),
        (4, 4, 8, 0, 8, 4),
    ],
)
def test_needed(attached: int, used: int, pre: int, least: int, most: int, expected: int) -> None:
    assert needed(attached, used, Watermarks(pre, least, most)) == expected


@pytest.mark.parametrize(
    ("attached", "used", "pre", "least", "above", "expected"),
    [
        (15, 0, 8, 16, 8, 0),
        (17, 0, 8, 16, 0, 1),
        (21, 0, 8, 0, 4, 9),
        (20, 0, 8, 20, 8, 0),
        (20, 4, 8, 0, 0, 8),
    ],
)
def test_excess(attached: int, used: int, pre: int, least: int, above: int, expected: int) -> None:
    assert excess(attached, used, Watermarks(pre, least, 0, above)) == expected


def test_pre_allocate_is_eight_where_nothing_is_said() -> None:
    assert needed(0, 0, Watermarks()) == 8


@pytest.mark.parametrize(
    ("story", "attached", "used", "expected"),
    [
        ("a node starts with its pre-allocation", 0, 0, 8),
        ("seven pods started: it is filled up to fifteen", 8, 7, 15),
    ],
)
def test_a_node_with_the_default_marks(story: str, attached: int, used: int, expected: int) -> None:
    assert attached + ask(attached, used, 0, Watermarks(), 100) == expected, story


def test_a_node_with_a_minimum_and_slack_above() -> None:
    marks = Watermarks(pre_allocate=4, min_allocate=15, max_above_watermark=4)
    attached = ask(0, 0, 0, marks, 100)
    assert attached == 19
    assert ask(attached, 11, 0, marks, 100) == 0
    attached += ask(attached, 19, 0, marks, 100)
    assert attached == 27
    assert excess(attached, 10, marks) == 8, "back at nineteen when the release ends"


def test_pods_that_wait_beyond_the_deficit_are_asked_for_too() -> None:
    assert surge(pending=10, missing=4) == 6
    assert ask(4, 4, 10, Watermarks(pre_allocate=4), 100) == 10
    assert ask(0, 0, 3, Watermarks(pre_allocate=0), 100) == 3, "zero-warm: addresses come with the pods"
    assert ask(10, 2, 3, Watermarks(pre_allocate=8), 100) == 0, "free addresses serve them"


def wait(attached: int, used: int, pending: int, marks: Watermarks, lasted_s: float) -> float:
    return due(attached, used, pending, marks, lasted_s=lasted_s, coalesce_s=30.0, urgent_fraction=0.5)


@pytest.mark.parametrize(
    ("story", "attached", "used", "pending", "marks", "lasted_s", "expected"),
    [
        ("nothing is missing", 8, 0, 0, Watermarks(8), 0, math.inf),
        ("one pod started: more will", 8, 1, 0, Watermarks(8), 0, 30.0),
        ("it has waited for a while", 8, 1, 0, Watermarks(8), 12, 18.0),
        ("it has waited long enough", 8, 1, 0, Watermarks(8), 31, 0.0),
        ("half of the free ones are left", 8, 4, 0, Watermarks(8), 0, 30.0),
        ("less than half are left", 8, 5, 0, Watermarks(8), 0, 0.0),
        ("a pod waits", 8, 8, 1, Watermarks(0), 0, 0.0),
        ("a pod waits, though an address is free for it", 8, 1, 1, Watermarks(8), 0, 30.0),
        ("the minimum is not reached yet", 9, 0, 0, Watermarks(1, 10), 0, 0.0),
        ("a new node", 0, 0, 0, Watermarks(8), 0, 0.0),
    ],
)
def test_when_to_act(
    story: str, attached: int, used: int, pending: int, marks: Watermarks, lasted_s: float, expected: float
) -> None:
    assert wait(attached, used, pending, marks, lasted_s) == expected, story


@given(COUNTS, COUNTS, COUNTS, MARKS, COUNTS)
def test_never_beyond_max_allocate_or_capacity(
    attached: int, used: int, pending: int, marks: Watermarks, room: int
) -> None:
    asked = ask(attached, min(used, attached), pending, marks, room)
    assert 0 <= asked <= room
    if marks.max_allocate:
        assert asked == 0 or attached + asked <= marks.max_allocate


@given(COUNTS, COUNTS, MARKS)
def test_a_release_never_takes_below_the_lower_mark(attached: int, used: int, marks: Watermarks) -> None:
    used = min(used, attached)
    left = attached - excess(attached, used, marks)
    assert left >= used
    assert needed(left, used, marks) == 0 or excess(attached, used, marks) == 0


@given(COUNTS, COUNTS, MARKS)
def test_never_both_needed_and_in_excess(attached: int, used: int, marks: Watermarks) -> None:
    assert not (needed(attached, used, marks) and excess(attached, used, marks))


@given(COUNTS, COUNTS, MARKS)
def test_monotonic(attached: int, used: int, marks: Watermarks) -> None:
    assert needed(attached, used + 1, marks) >= needed(attached, used, marks)
    assert needed(attached + 1, used, marks) <= needed(attached, used, marks)
    assert excess(attached + 1, used, marks) >= excess(attached, used, marks)
    assert excess(attached, used + 1, marks) <= excess(attached, used, marks)


@given(COUNTS, COUNTS, COUNTS, MARKS)
def test_one_ask_converges(attached: int, used: int, pending: int, marks: Watermarks) -> None:
    used = min(used, attached)
    if needed(attached, used, marks):
        after = attached + ask(attached, used, 0, marks, 10_000)
        assert needed(after, used, marks) == 0
        assert excess(after, used, marks) == 0


@given(COUNTS, COUNTS, MARKS)
def test_one_release_converges(attached: int, used: int, marks: Watermarks) -> None:
    used = min(used, attached)
    left = attached - excess(attached, used, marks)
    assert excess(left, used, marks) == 0


@given(COUNTS, COUNTS, COUNTS, MARKS)
def test_due_exactly_when_there_is_something_to_ask(attached: int, used: int, pending: int, marks: Watermarks) -> None:
    used = min(used, attached)
    never = math.isinf(wait(attached, used, pending, marks, 0))
    if ask(attached, used, pending, marks, 10_000):
        assert not never
