"""The generation is raised for every change, but not once for each of many small ones."""

from __future__ import annotations

import itertools
import time

from datapath.raises import Raises


def test_a_lone_change_waits_for_nothing() -> None:
    raised: list[float] = []
    raises = Raises(lambda: raised.append(time.monotonic()), apart_s=5)
    raises.soon()
    assert len(raised) == 1


def test_many_changes_are_few_raises_and_the_last_is_not_lost() -> None:
    raised: list[float] = []
    raises = Raises(lambda: raised.append(time.monotonic()), apart_s=0.05)
    began = last = time.monotonic()
    while last < began + 0.2:
        raises.soon()
        last = time.monotonic()
        time.sleep(0.001)
    time.sleep(0.2)
    assert 2 <= len(raised) <= 6
    assert raised[-1] >= last - 0.001, "what came last is raised too"
    assert min(after - before for before, after in itertools.pairwise(raised)) >= 0.045


def test_what_must_be_now_is_now_and_takes_what_waits_along() -> None:
    raised: list[str] = []
    raises = Raises(lambda: raised.append("raised"), apart_s=0.05)
    raises.soon()
    raises.soon()
    raises.now()
    assert len(raised) == 2
    time.sleep(0.1)
    assert len(raised) == 2, "nothing is left to raise"
    raises.now()
    raises.now()
    assert len(raised) == 4


def test_what_waits_is_raised_when_the_daemon_ends() -> None:
    raised: list[str] = []
    raises = Raises(lambda: raised.append("raised"), apart_s=60)
    raises.soon()
    raises.soon()
    raises.close()
    assert len(raised) == 2
