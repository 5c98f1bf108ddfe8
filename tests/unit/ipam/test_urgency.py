"""Pods that come to wait overtake nodes that only top up, also when their node's work was in the queue before."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ipam.model import NodeSpec, Watermarks
from ipam.testing import FakeCloud, IpamSite


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
