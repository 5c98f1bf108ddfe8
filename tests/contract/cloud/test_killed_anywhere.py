"""A worker killed at any point of its work: a first run counts the points, then one run dies at each of them.

A point lies before and after everything that a worker waits for: calls of the cloud, of the budget and of the service.
Whoever comes next has to end what was begun: no address leased is taken away, none is lost, no interface left behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import pytest

from ipam.executor import Executor
from ipam.model import Instance
from ipam.ports import Capabilities, CloudProvider
from ipam.tags import CLUSTER_TAG
from ipam.testing import FakeCloud, IpamSite
from ipam.testing.bridge import LocalJournal
from ipam.testing.site import CONFIG


class Site(Protocol):
    """A cloud, as conftest.py makes it."""

    provider: CloudProvider
    instance_type: str

    def launch(self, type_: str, /) -> str: ...
    def terminate(self, instance_id: str, /) -> None: ...
    def add_public_address(self, tags: dict[str, str], /) -> str: ...


class Killed(BaseException):
    """What no handler of the worker may catch, as none could catch SIGKILL."""


@dataclass
class Points:
    """Counts the points that are passed, and kills at one of them, by its number or the first of that name."""

    kill_at: int | None = None
    kill_where: str = ""
    passed: int = 0
    where: str = ""

    def pass_(self, name: str) -> None:
        if self.passed == self.kill_at or name == self.kill_where:
            self.passed += 1  # the next worker lives
            self.kill_where = ""
            self.where = name
            raise Killed(name)
        self.passed += 1


class Watched:
    """Puts points around each call of `inner`; a listing has them around each page."""

    def __init__(self, inner: Any, points: Points, name: str) -> None:
        self._inner, self._points, self._name = inner, points, name

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return found
        words = f"{self._name}.{name}"

        def call(*args: Any, **more: Any) -> Any:
            self._points.pass_(f"before {words}")
            answer = found(*args, **more)
            self._points.pass_(f"after {words}")
            return self._pages(answer, words) if isinstance(answer, Iterator) else answer

        return call

    def _pages(self, pages: Iterator[Any], words: str) -> Iterator[Any]:
        for page in pages:
            self._points.pass_(f"page of {words}")
            yield page


class LaunchingCloud:
    """The provider of a site as IpamSite wants its cloud: it can launch, and takes a clock that it does not need."""

    clock: Any = None

    def __init__(self, site: Site) -> None:
        self._site = site
        self.capabilities: Capabilities = site.provider.capabilities

    def launch(self, type_: str, *, subnet_id: str = "") -> Instance:
        return self._site.provider.instance(self._site.launch(type_))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._site.provider, name)


class MortalSite(IpamSite):
    """An IPAM whose workers die where `points` says; the next worker comes when the lease of the dead one ends."""

    def __init__(self, site: Site, points: Points) -> None:
        self.points = points
        self._provider = site.provider
        self.held: frozenset[str] = frozenset()
        config = replace(
            CONFIG, release_delay_s=20.0, coalesce_s=0.0, lease_s=30.0, leak_age_s=1.0, collect_interval_s=60.0,
            resync_interval_s=3600.0,
        )  # fmt: skip
        super().__init__(config, LaunchingCloud(site))  # type: ignore[arg-type]

    def new_service(self) -> None:
        super().new_service()
        # What is not the cloud's is the same for every cloud: it is watched beside the cloud in memory, the fastest.
        every = isinstance(self._provider, FakeCloud)
        journal = LocalJournal(self.service, self.run)
        self.executor = Executor(
            Watched(self.cloud, self.points, "cloud"),
            Watched(self.budget, self.points, "budget") if every else self.budget,
            Watched(journal, self.points, "service") if every else journal,
            self.clock,
            cluster=self.config.cluster,
        )

    def work(self, limit: int = 1000) -> int:
        done = 0
        while True:
            try:
                return done + super().work(limit)
            except Killed:
                done += 1

    def holds(self, count: int) -> None:
        """The node has `count` pods from now on, and fences what it is asked to give back."""
        told = self.states()
        self.held = frozenset(sorted(told)[:count])
        self.answer()

    def answer(self) -> None:
        leaving = {each for each, state in self.states().items() if state in ("marked", "ready", "releasing")}
        self.report(in_use=self.held, ready=frozenset(leaving - self.held), refused=frozenset(leaving & self.held))

    def live(self, seconds: float) -> None:
        """Time passes while the node goes on answering."""
        for _ in range(int(seconds / 5)):
            self.advance(5)
            self.answer()
            self.work()


def live_a_life(site: MortalSite, type_: str, most: int, **wanted: Any) -> None:
    """Grow over two interfaces, be used, shrink, be listed, and have what leaked collected."""
    site.node(type_=type_, **{"watermarks": replace(CONFIG.watermarks, pre_allocate=12), **wanted})
    site.work()
    site.live(45)
    site.holds(most)
    site.live(45)
    site.holds(2)
    site.live(100)
    site.run(site.service.resync())
    site.live(65)


def check(site: MortalSite, instance_id: str, provider: CloudProvider) -> None:
    pool = site.service.pool("n1")
    whole = provider.capabilities.prefix_size if pool.spec.prefix_delegation else 1
    assert (pool.needed, pool.excess // whole, pool.open_intents) == (0, 0, 0)
    instance = provider.instance(instance_id)
    at_cloud = sorted(address for each in instance.interfaces for address in each.all_addresses)
    assert at_cloud == sorted(site.addresses()), "the cloud and the pool agree"
    assert site.held <= set(at_cloud), "no pod has lost its address"
    assert not loose(site, provider), "nothing of ours lies about"
    ours = [each for each in instance.interfaces if CLUSTER_TAG in each.tags]
    if provider.capabilities.delete_on_termination:
        assert all(each.delete_on_termination for each in ours), "nothing of ours outlives the instance"


def loose(site: MortalSite, provider: CloudProvider) -> list[str]:
    return [
        each.id
        for _, detached in provider.inventory()
        for each in detached
        if each.tags.get(CLUSTER_TAG) == site.config.cluster
    ]


def check_more(site: MortalSite, provider: CloudProvider, wanted: dict[str, Any]) -> None:
    """What is brought once is there once, however often its bringer died; what nobody uses has gone in prefixes."""
    instance = provider.instance(site.service.pool("n1").spec.instance_id)
    assert [len(each.ipv6_prefixes) for each in instance.interfaces] == [1] * len(instance.interfaces)
    assert sum(len(each.prefixes) for each in instance.interfaces) == 11  # of 13, when 40 pods ran
    public = provider.public_addresses(tags=wanted["public_address_tags"])
    assert [each.interface_id for each in public if each.interface_id] == [instance.interfaces[0].id]


def one_life(make: Callable[[], Site], points: Points, **wanted: Any) -> None:
    cloud = make()
    if "public_address_tags" in wanted:
        cloud.add_public_address(wanted["public_address_tags"])
        cloud.add_public_address(wanted["public_address_tags"])
    site = MortalSite(cloud, points)
    try:
        live_a_life(site, cloud.instance_type, 40 if wanted else 10, **wanted)
        check(site, site.service.pool("n1").spec.instance_id, cloud.provider)
        if wanted:
            check_more(site, cloud.provider, wanted)
    finally:
        site.close()


@pytest.mark.timeout(300)
def test_prefixes_ipv6_and_a_public_address_survive_workers_killed_at_any_point(
    fresh_memory: Callable[[], Site],
) -> None:
    wanted = {
        "prefix_delegation": True, "ipv6": True, "public_address_tags": {"pool": "egress"},
        "watermarks": replace(CONFIG.watermarks, pre_allocate=160),
    }  # fmt: skip
    counted = Points()
    one_life(fresh_memory, counted, **wanted)
    for number in range(counted.passed):
        points = Points(kill_at=number)
        try:
            one_life(fresh_memory, points, **wanted)
        except AssertionError as error:
            raise AssertionError(f"killed at point {number} of {counted.passed}, {points.where}: {error}") from error


@pytest.mark.timeout(300)
def test_a_worker_killed_at_any_point_is_followed_by_one_that_ends_its_work(fresh_cloud: Callable[[], Site]) -> None:
    counted = Points()
    one_life(fresh_cloud, counted)
    assert counted.passed > 20, "the life of this test is too short to prove much"
    for number in range(counted.passed):
        points = Points(kill_at=number)
        try:
            one_life(fresh_cloud, points)
        except AssertionError as error:
            raise AssertionError(f"killed at point {number} of {counted.passed}, {points.where}: {error}") from error


def test_what_was_made_for_an_instance_that_is_gone_is_collected(fresh_cloud: Callable[[], Site]) -> None:
    """Its maker died before it was attached: that it is to go with an instance is of no use to one that has none."""
    cloud = fresh_cloud()
    if not cloud.provider.capabilities.creates_interfaces:
        pytest.skip("interfaces of this cloud come with the instance")
    site = MortalSite(cloud, Points(kill_where="before cloud.attach_interface"))
    try:
        spec = site.node(type_=cloud.instance_type, watermarks=replace(CONFIG.watermarks, pre_allocate=12))
        site.work()
        assert site.points.where, "the worker died"
        assert len(loose(site, cloud.provider)) == 1
        cloud.terminate(spec.instance_id)
        site.advance(45)
        site.run(site.service.resync())
        site.advance(65)
        assert not loose(site, cloud.provider)
        assert not site.service.dead_letters()
    finally:
        site.close()
