"""Work that the queue may have lost is enqueued again; work that only waits for its turn in it is not."""

from __future__ import annotations

from collections.abc import Callable

from ipam.model import IntentKind
from ipam.testing import IpamSite

Sites = Callable[..., IpamSite]
SWEEP_S = 5.0


def fleet(site: IpamSite, count: int) -> list[str]:
    """New nodes, each a second after the one before; the ids of their intents in the queue's order."""
    for number in range(count):
        site.node(f"n{number}")
        site.clock.advance(1)
    made = sorted(site.service.intents(), key=lambda each: each.created_at)
    return [each.id for each in made if each.kind is IntentKind.ALLOCATE]


def perform_next(site: IpamSite) -> None:
    taken = site.queue.take()
    assert taken is not None
    site.executor.perform(taken, "worker-1")
    site.run(site.service.settle())


def test_a_long_queue_that_moves_is_not_filled_with_copies(ipam_sites: Sites) -> None:
    site = ipam_sites(sweep_interval_s=SWEEP_S)
    site.work()  # the listing of a new service
    waiting = fleet(site, 40)
    for _ in waiting:
        perform_next(site)
        site.clock.advance(4)
        site.tick()
    assert [site.queue.enqueued[each] for each in waiting] == [1] * 40
    assert all(len(site.addresses(f"n{number}")) == 8 for number in range(40))


def test_what_is_lost_from_a_queue_that_moves_is_found_once_it_is_passed(ipam_sites: Sites) -> None:
    site = ipam_sites(sweep_interval_s=SWEEP_S)
    site.work()
    waiting = fleet(site, 20)
    lost = site.queue.take()
    assert lost == waiting[0]
    for _ in range(10):
        perform_next(site)
        site.clock.advance(1)
        site.tick()
    assert site.queue.enqueued[lost] == 2
    site.work()
    assert len(site.addresses("n0")) == 8


def test_what_is_the_only_one_of_its_kind_is_found_though_workers_are_never_idle(ipam_sites: Sites) -> None:
    site = ipam_sites(sweep_interval_s=SWEEP_S)
    site.node("n", type_="m5.4xlarge")
    site.work()
    listing = site.run(site.service.resync())
    assert site.queue.take() == listing  # and it is lost
    busy: list[str] = []
    for second in range(320):
        site.clock.advance(1)
        if not second % 4:
            site.node(f"n{second}")
            busy += [each.id for each in site.service.intents() if each.node == f"n{second}"]
            perform_next(site)
        site.tick()
    assert site.queue.enqueued[listing] == 2
    assert {site.queue.enqueued[each] for each in busy} == {1}


def test_a_queue_that_was_emptied_is_filled_again_after_one_sweep(ipam_sites: Sites) -> None:
    site = ipam_sites(sweep_interval_s=SWEEP_S)
    site.work()
    waiting = fleet(site, 3)
    site.queue.lose()
    site.advance(2 * SWEEP_S, step_s=1)
    assert [site.queue.enqueued[each] for each in waiting] == [2] * 3
    assert all(len(site.addresses(f"n{number}")) == 8 for number in range(3))
