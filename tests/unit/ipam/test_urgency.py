"""Pods that come to wait overtake nodes that only top up, also when their node's work was in the queue before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ipam.errors import StoreError
from ipam.model import NodeSpec, OperationClass, Watermarks
from ipam.ports import Standing
from ipam.testing import FakeCloud, IpamSite, LocalJournal


@pytest.fixture
def site() -> Iterator[IpamSite]:
    made = IpamSite(cloud=FakeCloud())
    yield made
    made.close()


def settled(site: IpamSite, name: str) -> NodeSpec:
    """A node with eight free addresses and nothing to do."""
    spec = site.node(name, type_="m5.4xlarge", watermarks=Watermarks(pre_allocate=8))
    site.work()
    return spec


def test_work_that_pods_come_to_wait_for_is_hurried(site: IpamSite) -> None:
    for name in ("calm-1", "calm-2", "busy"):
        settled(site, name)
    for name in ("calm-1", "calm-2", "busy"):  # each tops up, in this order
        site.report(name, in_use=frozenset(site.addresses(name)[:6]))
    site.report("busy", in_use=frozenset(site.addresses("busy")[:8]), pending_pods=4)
    first = site.queue.take()
    assert first is not None
    site.executor.perform(first, "worker-1")
    site.run(site.service.settle())
    assert len(site.addresses("busy")) == 8 + 8  # the four that waited are among the next eight
    assert len(site.addresses("calm-1")) == 8


def test_the_copy_that_was_overtaken_comes_to_nothing(site: IpamSite) -> None:
    settled(site, "busy")
    site.report("busy", in_use=frozenset(site.addresses("busy")[:6]))
    for sequence in range(3):  # told again and again, it is hurried once
        site.report("busy", in_use=frozenset(site.addresses("busy")[:8]), pending_pods=4 + sequence)
    assert len(site.queue) == 2
    before = site.cloud.mutating_calls()
    site.work()
    assert site.cloud.mutating_calls() == before + 1
    assert not site.service.intents()


def test_work_that_a_worker_holds_is_not_hurried(site: IpamSite) -> None:
    settled(site, "busy")
    site.report("busy", in_use=frozenset(site.addresses("busy")[:6]))
    (intent,) = site.service.intents()
    assert site.queue.take() == intent.id
    site.run(site.service.claim(intent.id, "worker-1"))
    site.report("busy", in_use=frozenset(site.addresses("busy")[:8]), pending_pods=4)
    assert len(site.queue) == 0


class SlowLine:
    """In the budget's place: one call waits `waits_s`, and things happen meanwhile.

    :ivar stood: what calls stood for, the one that waited at its beginning and at its end.
    """

    def __init__(self, site: IpamSite, waits_s: float, meanwhile: Callable[[], None]) -> None:
        self._site, self._waits_s, self._meanwhile = site, waits_s, meanwhile
        self.stood: list[Standing] = []

    def acquire(self, operation_class: OperationClass, *, standing: Callable[[], Standing], deadline_s: float) -> float:
        if operation_class is OperationClass.READ:
            return 0.0
        before = standing()
        if self._waits_s:
            self._meanwhile()
            self._site.clock.advance(self._waits_s)
            standing()
            waited_s, self._waits_s = self._waits_s, 0.0
            self.stood += [before, standing()]
            return waited_s
        self.stood.append(before)
        return 0.0


def small(site: IpamSite) -> None:
    """An m4.large with eight of the nine addresses that its first interface holds, all free."""
    site.node("busy", type_="m4.large", watermarks=Watermarks(pre_allocate=8))
    site.work()
    assert len(site.addresses("busy")) == 8


def take(site: IpamSite) -> str:
    intent_id = site.queue.take()
    assert intent_id is not None
    return intent_id


def test_pods_that_wait_are_served_by_the_first_call_and_spare_addresses_come_later(site: IpamSite) -> None:
    small(site)
    before = site.cloud.mutating_calls()
    site.report("busy", in_use=frozenset(site.addresses("busy")), pending_pods=1)
    site.executor.perform(take(site), "worker-1")
    site.run(site.service.settle())
    assert site.cloud.mutating_calls() == before + 1
    assert len(site.addresses("busy")) == 9  # and told, while an interface for the rest is still to come
    spare = site.service.intents()[0]
    assert not site.service._term.fleet.intents[spare.id].urgent  # type: ignore[union-attr]
    site.work()
    assert site.cloud.mutating_calls() == before + 1 + 3
    assert len(site.addresses("busy")) == 16


def test_a_call_brings_what_is_wanted_at_its_turn_not_when_it_came_into_the_line(
    site: IpamSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled(site, "busy")
    site.report("busy", in_use=frozenset(site.addresses("busy")[:6]))
    line = SlowLine(
        site, 10.0, lambda: site.report("busy", in_use=frozenset(site.addresses("busy")[:8]), pending_pods=5)
    )
    monkeypatch.setattr(site.budget, "acquire", line.acquire)
    before = site.cloud.mutating_calls()
    site.executor.perform(take(site), "worker-1")
    site.run(site.service.settle())
    assert [each.urgent for each in line.stood] == [False, True]
    assert site.cloud.mutating_calls() == before + 1
    assert len(site.addresses("busy")) == 8 + 8


def test_a_call_that_nobody_wants_any_more_is_not_made(site: IpamSite, monkeypatch: pytest.MonkeyPatch) -> None:
    settled(site, "busy")
    site.report("busy", in_use=frozenset(site.addresses("busy")), pending_pods=2)
    line = SlowLine(site, 10.0, lambda: site.report("busy", in_use=frozenset()))
    monkeypatch.setattr(site.budget, "acquire", line.acquire)
    before = site.cloud.mutating_calls()
    site.executor.perform(take(site), "worker-1")
    site.run(site.service.settle())
    assert site.cloud.mutating_calls() == before
    assert not site.service.intents()
    site.report("busy", in_use=frozenset(site.addresses("busy")), pending_pods=2)
    site.work()  # it did not count as of no avail
    assert len(site.addresses("busy")) == 16


@pytest.mark.parametrize("away", [0, 1])
def test_what_a_call_brought_is_told_while_the_next_one_waits(
    site: IpamSite, monkeypatch: pytest.MonkeyPatch, away: int
) -> None:
    """Also if the service was away when it was to be told first."""
    small(site)
    record = LocalJournal.record

    def fails(journal: LocalJournal, intent_id: str, fence: int, steps: Any, instance: Any = None) -> Any:
        nonlocal away
        if instance is not None and away:
            away -= 1
            raise StoreError("the service is away")
        return record(journal, intent_id, fence, steps, instance)

    monkeypatch.setattr(LocalJournal, "record", fails)
    site.report("busy", in_use=frozenset(site.addresses("busy")[:7]))
    seen: list[int] = []
    line = SlowLine(site, 0.0, lambda: None)

    def acquire(operation_class: OperationClass, *, standing: Callable[[], Standing], deadline_s: float) -> float:
        if len(line.stood) == 1:  # the second call's turn is far away
            for _ in range(2):
                site.clock.advance(6.0)
                standing()
            site.run(site.service.settle())
            seen.append(len(site.addresses("busy")))
        return line.acquire(operation_class, standing=standing, deadline_s=deadline_s)

    monkeypatch.setattr(site.budget, "acquire", acquire)
    site.executor.perform(take(site), "worker-1")
    site.run(site.service.settle())
    assert seen == [9]
    assert len(site.addresses("busy")) == 15


def test_pods_need_not_wait_for_the_pause_of_what_found_no_turn(site: IpamSite) -> None:
    settled(site, "busy")
    site.report("busy", in_use=frozenset(site.addresses("busy")[:6]))
    site.budget.refuse = True
    site.work()
    (intent,) = site.service.intents()
    assert intent.attempts == 0, "nothing was tried"
    site.budget.refuse = False
    site.report("busy", in_use=frozenset(site.addresses("busy")), pending_pods=3)
    site.executor.perform(take(site), "worker-1")
    site.run(site.service.settle())
    assert len(site.addresses("busy")) == 16
