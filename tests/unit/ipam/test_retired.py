"""A named pool is taken out of its node's settings: its interfaces go once nothing of them is used, and not before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from ipam.degradation import Degradation
from ipam.model import CloudInterface, IntentKind, NodeSpec, Usage, Watermarks
from ipam.tags import CLUSTER_TAG, POOL_TAG
from ipam.testing import IpamSite

Sites = Callable[..., IpamSite]
PAYMENTS = "n1/payments"


class Node:
    """A node with a default pool and one for payments, which is then taken out of its settings."""

    def __init__(self, site: IpamSite, pre_allocate: int = 3) -> None:
        self.site = site
        self.spec = site.node(watermarks=Watermarks(pre_allocate=4))
        self.payments = replace(self.spec, name=PAYMENTS, watermarks=Watermarks(pre_allocate=pre_allocate))
        self.connect(self.payments)
        site.work()
        self.theirs = site.addresses(PAYMENTS)

    def connect(self, spec: NodeSpec, names: tuple[str, ...] | None = None, *used: str) -> None:
        self.site.run(self.site.service.announce(spec, Usage(in_use=frozenset(used)), names))

    def restart(self, *used: str, names: tuple[str, ...] | None = ()) -> None:
        """The daemon comes back, without the pool if `names` lacks it; pods that run have `used`."""
        for key in (PAYMENTS, "n1"):
            self.site.run(self.site.service.disconnected(key))
        self.connect(self.spec, names, *used)

    def interfaces(self) -> list[CloudInterface]:
        there = self.site.cloud.instance(self.spec.instance_id).interfaces
        return [each for each in there if each.tags.get(POOL_TAG) == "payments"]

    def known(self) -> bool:
        return PAYMENTS in self.site.service.names()


@pytest.fixture
def node(ipam_site: IpamSite) -> Node:
    return Node(ipam_site)


def test_its_interfaces_go_and_then_the_pool(node: Node) -> None:
    before = node.site.addresses()
    node.restart()
    node.site.advance(170)
    assert node.interfaces(), "an excess lasts for a while first"
    node.site.advance(60)
    assert node.interfaces() == []
    assert not node.known()
    assert node.site.addresses() == before
    assert node.site.cloud.calls["delete-interface"] == 1


def test_all_of_several_interfaces_go(ipam_site: IpamSite) -> None:
    node = Node(ipam_site, pre_allocate=12)
    assert len(node.interfaces()) == 2
    node.restart()
    node.site.advance(400)
    assert node.interfaces() == []
    assert not node.known()


def test_what_a_running_pod_has_stays_until_it_ends(node: Node) -> None:
    used = node.theirs[1]
    node.restart(used)
    node.site.advance(1000)
    assert node.interfaces()[0].addresses == tuple(node.theirs)
    node.site.report(cooling=frozenset([used]))
    node.site.advance(200)
    assert node.interfaces(), "it rests"
    node.site.report()
    node.site.advance(170)
    assert node.interfaces()
    node.site.advance(60)
    assert node.interfaces() == []


@pytest.mark.parametrize("names", [None, ("payments", "other")], ids=["an older daemon", "only its stream broke"])
def test_a_pool_that_the_node_may_have_stays(node: Node, names: tuple[str, ...] | None) -> None:
    node.restart(names=names)
    node.site.advance(2000)
    assert len(node.interfaces()[0].addresses) == len(node.theirs)
    assert node.known()


def test_while_its_node_is_away_it_stays(node: Node) -> None:
    node.restart()
    node.site.advance(100)
    node.site.run(node.site.service.disconnected("n1"))
    node.site.advance(2000)
    assert node.interfaces()


def ready(node: Node) -> str:
    """To the moment when a worker could have the release of the interface; returns the intent."""
    node.restart()
    for _ in range(60):
        node.site.clock.advance(5)
        node.site.tick()
        opened = [each.id for each in node.site.service.intents() if each.kind is IntentKind.RELEASE_INTERFACE]
        if opened:
            return opened[0]
    raise AssertionError("never")


def test_the_node_goes_away_just_before_the_cloud_is_called(node: Node) -> None:
    intent_id = ready(node)
    claim = node.site.run(node.site.service.claim(intent_id, "w"))
    assert claim is not None
    node.site.run(node.site.service.disconnected("n1"))
    assert node.site.run(node.site.service.confirm_release(intent_id, claim.fence, node.theirs)) == []
    node.site.advance(500)
    assert node.interfaces()
    assert node.site.work() == 0, "nobody asks again and again"
    node.connect(node.spec, ())
    node.site.advance(300)
    assert node.interfaces() == []


def test_a_pod_turns_up_just_before_the_cloud_is_called(node: Node) -> None:
    intent_id = ready(node)
    node.site.report(in_use=frozenset(node.theirs[:1]))  # told late: its journal was lost, and the kernel has it
    assert intent_id
    node.site.advance(500)
    assert node.interfaces()
    assert node.site.cloud.calls["detach-interface"] == 0


def test_it_comes_back_into_the_settings_just_before_the_cloud_is_called(node: Node) -> None:
    intent_id = ready(node)
    node.connect(node.spec, ("payments",))
    node.connect(node.payments)
    node.site.advance(500)
    assert intent_id not in {each.id for each in node.site.service.intents()}
    assert node.site.addresses(PAYMENTS) == node.theirs
    assert set(node.site.states(PAYMENTS).values()) == {"available"}


def test_a_service_that_starts_anew_hears_it_anew(node: Node) -> None:
    node.restart()
    node.site.advance(100)
    node.site.new_service()
    node.site.advance(500)
    assert node.interfaces(), "nobody has said anything yet"
    node.connect(node.spec, ())
    node.site.advance(300)
    assert node.interfaces() == []


def test_a_level_and_settings_that_keep_addresses_keep_these(ipam_site: IpamSite) -> None:
    node = Node(ipam_site)
    node.site.run(node.site.service.set_level(Degradation.NO_RELEASE))
    node.restart()
    node.site.advance(1000)
    assert node.interfaces()
    node.site.run(node.site.service.set_level(Degradation.NORMAL))
    node.site.advance(300)
    assert node.interfaces() == []


def test_a_pool_that_keeps_its_excess_stays(ipam_site: IpamSite) -> None:
    node = Node(ipam_site)
    node.connect(replace(node.payments, release_excess=False))
    node.restart()
    node.site.advance(1000)
    assert node.interfaces()


def test_what_others_made_stays(node: Node) -> None:
    (made,) = node.interfaces()
    node.site.cloud.change(made.id, tags={POOL_TAG: "payments", CLUSTER_TAG: "another"})
    node.site.advance(130)
    node.restart()
    node.site.advance(1000)
    assert node.interfaces()
    assert node.site.cloud.calls["detach-interface"] == 0


def test_it_is_explained(node: Node) -> None:
    node.restart(node.theirs[0])
    messages = [each.message for each in node.site.service.explain("n1")]
    assert any("has no such pool any more" in each and "use 1 of its" in each for each in messages)
