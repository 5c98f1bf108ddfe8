"""Numbers of sets of labels: which labels count, who gets which number, and when it may go to others."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.registry.errors import IdentitiesExhausted
from services.registry.identities import DEFAULT_PATTERNS, Identities, counting, digest
from services.registry.model import IDENTITY_FIRST, Identity
from services.registry.testing import FakeClock

REST_S = 600.0
WEB, DB = {"app": "web"}, {"app": "db"}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def few(clock: FakeClock) -> Identities:
    """Room for three sets."""
    return Identities(clock, rest_s=REST_S, first=256, last=258)


def sweep(identities: Identities) -> list[int]:
    gone = identities.rested()
    identities.forget(gone)
    return gone


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("app", True),
        ("io.kubernetes.pod.namespace", True),
        ("io.kubernetes.pod.name", False),
        ("statefulset.kubernetes.io/pod-name", False),
        ("pod-template-hash", False),
        ("batch.kubernetes.io/controller-uid", False),
        ("app.kubernetes.io/name", True),
    ],
)
def test_what_tells_pods_of_one_set_apart_does_not_count(name: str, expected: bool) -> None:
    assert counting(DEFAULT_PATTERNS)(name) is expected


@pytest.mark.parametrize(
    ("patterns", "counted"),
    [
        (["*"], {"app", "team", "team.cost"}),
        ([], set()),
        (["app"], {"app"}),
        (["team*", "!team.*"], {"team"}),
        (["!team*", "team.cost"], {"team.cost"}),
        (["!app"], set()),
    ],
)
def test_the_last_pattern_that_matches_decides(patterns: list[str], counted: set[str]) -> None:
    counts = counting(patterns)
    assert {name for name in ("app", "team", "team.cost") if counts(name)} == counted


def test_equal_sets_have_one_number_whatever_their_order_and_other_labels(few: Identities) -> None:
    number = few.take({"app": "web", "tier": "1", "io.kubernetes.pod.name": "web-1"})
    assert number == IDENTITY_FIRST
    assert few.take({"tier": "1", "io.kubernetes.pod.name": "web-2", "app": "web"}) == number
    assert few.uses(number) == 2
    assert few.all[number] == Identity(number, {"app": "web", "tier": "1"})


def test_a_number_rests_before_it_goes_and_comes_back_to_its_set_meanwhile(few: Identities, clock: FakeClock) -> None:
    number = few.take(WEB)
    few.give_back(number)
    clock.advance(REST_S - 1)
    assert sweep(few) == []
    assert few.take(WEB) == number
    few.give_back(number)
    clock.advance(REST_S - 1)
    assert sweep(few) == []
    clock.advance(1)
    assert sweep(few) == [number]
    assert few.take(WEB) != number, "numbers are given out upwards, so a rest is long"


def test_the_end_is_a_clear_error_and_over_once_a_number_has_rested(few: Identities, clock: FakeClock) -> None:
    numbers = [few.take({"app": name}) for name in "abc"]
    with pytest.raises(IdentitiesExhausted, match="all 3") as refused:
        few.take(WEB)
    assert refused.value.remedy
    assert (few.free, few.refusals) == (0, 1)
    few.give_back(numbers[1])
    with pytest.raises(IdentitiesExhausted, match="1 of them at rest"):
        few.take(WEB)
    clock.advance(REST_S)
    sweep(few)
    assert few.take(WEB) == numbers[1]


def test_a_restart_gives_every_unused_number_its_whole_rest(few: Identities, clock: FakeClock) -> None:
    few.load([Identity(257, WEB), Identity(256, DB)])
    assert few.resting == 2
    assert few.take(WEB) == 257
    clock.advance(REST_S)
    assert sweep(few) == [256]
    assert few.take({"app": "new"}) == 258


def test_only_what_the_store_may_lack_is_written(few: Identities) -> None:
    number = few.take(WEB)
    assert few.unwritten([number, 4]) == [Identity(number, WEB)]
    few.written(few.unwritten([number]))
    few.take(WEB)
    assert few.unwritten([number]) == []


def test_reserved_numbers_are_given_back_for_nothing(few: Identities) -> None:
    few.give_back(0)
    few.give_back(4)
    assert len(few) == 0


@settings(deadline=None)
@given(st.dictionaries(st.text(), st.text(), max_size=4), st.dictionaries(st.text(), st.text(), max_size=4))
def test_digests_are_equal_for_equal_sets_only(one: dict[str, str], other: dict[str, str]) -> None:
    assert (digest(one) == digest(other)) == (one == other)
    assert digest(dict(reversed(one.items()))) == digest(one)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.sampled_from("abcde")),
        st.tuples(st.just("give back"), st.integers(0, 30)),
        st.tuples(st.just("pass"), st.sampled_from([1.0, REST_S / 2, REST_S])),
        st.tuples(st.just("sweep"), st.just(0)),
        st.tuples(st.just("restart"), st.just(0)),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(steps)
def test_no_number_stands_for_two_sets_while_used_or_at_rest(sequence: list[tuple[str, object]]) -> None:
    clock = FakeClock()

    def make() -> Identities:
        return Identities(clock, rest_s=REST_S, first=256, last=258)

    identities, held = make(), list[tuple[str, int]]()
    # When each number was last used, and for which set.
    last: dict[int, tuple[str, float]] = {}
    for step, value in sequence:
        if step == "take":
            try:
                number = identities.take({"app": str(value)})
            except IdentitiesExhausted:
                assert len(identities) == 3
                continue
            if number in last and last[number][0] != value:
                assert clock.monotonic() - last[number][1] >= REST_S
            held.append((str(value), number))
        elif step == "give back" and held:
            assert isinstance(value, int)
            _, number = held.pop(value % len(held))
            identities.give_back(number)
        elif step == "pass":
            assert isinstance(value, float)
            clock.advance(value)
        elif step == "sweep":
            sweep(identities)
        elif step == "restart":
            stored = [identities.all[number] for number in sorted(identities.all)]
            identities = make()
            identities.load(stored)
            for name, number in held:
                assert identities.take({"app": name}) == number
        for name, number in held:
            last[number] = (name, clock.monotonic())
        by_set: dict[str, set[int]] = {}
        for name, number in held:
            by_set.setdefault(name, set()).add(number)
        assert all(len(numbers) == 1 for numbers in by_set.values())
        assert len({number for _, number in held}) == len(by_set)
        for number in {number for _, number in held}:
            assert identities.uses(number) == sum(one == number for _, one in held)
