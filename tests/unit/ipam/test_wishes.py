"""What is heard of a node's demand, and the time to an address."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from ipam.config import IpamConfig
from ipam.fleet import Fleet
from ipam.model import NodeSpec, Policy, Usage
from ipam.pools import Pool
from ipam.simulation.agenda import SimulatedClock, SimulatedTime
from ipam.wishes import TimeToAddress, Wishes


def test_pods_that_wait_and_then_have_an_address_start_once_and_addresses_are_back_when_they_have_cooled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    time = SimulatedTime()
    wishes = Wishes(IpamConfig("1", "r"), SimulatedClock(time), Fleet(), lambda _: None)
    pool = Pool(NodeSpec("n1", "i-1", "m5.large", policy=Policy(follow_demand=True)))
    heard: list[tuple[int, int]] = []
    monkeypatch.setattr(wishes, "observe", lambda _, starts, returns: heard.append((starts, returns)))
    one = frozenset({"10.0.0.1"})
    story = [
        Usage(pending_pods=1), Usage(in_use=one), Usage(cooling=one), Usage(), Usage(in_use=one),
        Usage(in_use=frozenset({"10.0.0.2"})),
    ]  # fmt: skip
    before = None
    for usage in (Usage(), *story):
        wishes.hear(pool, before, usage)
        before = usage
    assert heard == [(0, 0), (1, 0), (0, 0), (0, 0), (0, 1), (1, 0), (1, 1)]


def test_other_bounds_hold_at_once_and_what_was_learnt_stays() -> None:
    time = SimulatedTime()
    wishes = Wishes(IpamConfig("1", "r"), SimulatedClock(time), Fleet(), lambda _: None)
    pool = Pool(NodeSpec("n1", "i-1", "m5.large", policy=Policy(follow_demand=True, demand_most=16)))
    wishes.observe(pool, 0, 0)
    for _ in range(8):
        time.now += 900.0
        wishes.observe(pool, 20, 0)
        time.now += 900.0
        wishes.observe(pool, 0, 20)
    assert wishes.marks(pool).pre_allocate == 16
    for least, most, expected in ((1, 12, 12), (1, 64, 16), (18, 64, 18)):
        policy = Policy(follow_demand=True, demand_least=least, demand_most=most)
        pool.spec = replace(pool.spec, policy=policy)
        wishes.observe(pool, 0, 0)
        assert wishes.marks(pool).pre_allocate == expected, "no pod has shown yet that it needs more than 16"
    for _ in range(4):
        time.now += 900.0
        wishes.observe(pool, 20, 0)
        time.now += 900.0
        wishes.observe(pool, 0, 20)
    assert 19 <= wishes.marks(pool).pre_allocate <= 22


@pytest.mark.parametrize(
    ("rare_s", "share", "least_s", "most_s"),
    [
        (0.5, 0.0, 0.45, 0.55),
        (6.0, 0.02, 0.45, 0.7),
        (6.0, 0.5, 4.0, 7.0),
        (0.0, 1.0, 0.0, 0.1),
    ],
    ids=["all alike", "one in fifty makes an interface", "every other one does", "at once"],
)
def test_the_time_to_an_address_is_what_one_in_five_exceeds(
    rare_s: float, share: float, least_s: float, most_s: float
) -> None:
    chance, time = random.Random(3), TimeToAddress()
    for _ in range(600):
        time.arrived(rare_s if chance.random() < share else 0.5)
    assert least_s <= time.seconds <= most_s


def test_the_first_time_takes_the_place_of_the_guess() -> None:
    time = TimeToAddress()
    time.arrived(40.0)
    assert time.seconds == pytest.approx(40.0, rel=0.05)
