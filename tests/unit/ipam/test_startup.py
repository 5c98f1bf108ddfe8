"""A node comes up while something is not there yet, or not any more: it gets its addresses promptly all the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from ipam.errors import Denied, NotFound, StaleFence, Unavailable
from ipam.model import Done, GiveUp, Inventory, Level, NodeSpec, Report, Subnet, Usage, Watermarks
from ipam.service import PoolService
from ipam.testing import DirectQueue, FakeCloud, IpamSite
from ipam.testing.site import CONFIG

Sites = Callable[..., IpamSite]


def intent_of(site: IpamSite, node: str = "n1") -> str:
    return next(intent.id for intent in site.service.intents(node))


def seconds_until(site: IpamSite, reached: Callable[[], bool], *, within_s: float) -> float:
    """Passes time second by second; returns how long it took."""
    for second in range(int(within_s)):
        if reached():
            return second
        site.advance(1, step_s=1)
    assert reached(), site.service.explain("n1")
    return within_s


def test_an_attempt_that_did_not_hear_its_claim_asks_again(ipam_site: IpamSite) -> None:
    ipam_site.node()
    first = ipam_site.run(ipam_site.service.claim(intent_of(ipam_site), "w1/attempt-1"))
    again = ipam_site.run(ipam_site.service.claim(intent_of(ipam_site), "w1/attempt-1"))
    assert first is not None
    assert again is not None
    assert (again.fence, again.intent.attempts) == (first.fence, first.intent.attempts)
    assert ipam_site.run(ipam_site.service.claim(intent_of(ipam_site), "w1/attempt-2")) is None


def test_two_attempts_of_one_worker_are_told_apart(ipam_site: IpamSite) -> None:
    ipam_site.node()
    intent_id = intent_of(ipam_site)
    held = ipam_site.run(ipam_site.service.claim(intent_id, "worker-1"))
    assert held is not None
    assert ipam_site.executor.perform(intent_id, "worker-1") == Done()
    assert ipam_site.cloud.mutating_calls() == 0, "the first attempt is at it"


def test_an_instance_that_the_cloud_does_not_show_yet_is_looked_for(ipam_site: IpamSite) -> None:
    instance = ipam_site.cloud.launch()
    ipam_site.cloud.hide(instance.id)
    ipam_site.run(ipam_site.service.announce(NodeSpec("n1", instance.id), Usage()))
    ipam_site.work()
    assert any("no instance" in each.message for each in ipam_site.service.explain("n1"))
    ipam_site.advance(9, step_s=1)
    ipam_site.cloud.show(instance.id)
    assert seconds_until(ipam_site, lambda: len(ipam_site.addresses()) == 8, within_s=20) <= 20


def test_a_node_that_is_alive_keeps_its_pool_while_the_cloud_denies_its_instance_for_a_moment(
    ipam_site: IpamSite,
) -> None:
    spec = ipam_site.node()
    ipam_site.work()
    before = ipam_site.addresses()
    ipam_site.cloud.hide(spec.instance_id)
    ipam_site.clock.advance(1)
    ipam_site.run(ipam_site.service.resync())
    ipam_site.advance(20, step_s=1)
    assert ipam_site.cloud.calls["read-instance"] > 2
    assert ipam_site.addresses() == before
    ipam_site.cloud.show(spec.instance_id)
    ipam_site.report(in_use=frozenset(before))
    ipam_site.advance(20, step_s=1)
    assert len(ipam_site.addresses()) == 16


def test_an_instance_that_stays_away_is_forgotten(ipam_site: IpamSite) -> None:
    spec = ipam_site.node()
    ipam_site.work()
    ipam_site.cloud.terminate(spec.instance_id)
    ipam_site.advance(150)
    assert ipam_site.addresses() == []
    calls = ipam_site.cloud.calls["read-instance"]
    ipam_site.advance(600)
    assert ipam_site.cloud.calls["read-instance"] - calls < 30, "looked for ever more seldom"
    ipam_site.run(ipam_site.service.disconnected("n1"))
    with pytest.raises(NotFound):
        ipam_site.service.pool("n1")


def test_a_node_without_a_free_address_waits_for_no_long_backoff(ipam_site: IpamSite) -> None:
    ipam_site.node()
    ipam_site.cloud.fail("read-instance", Unavailable("cloud away"), count=10_000)
    ipam_site.advance(400, step_s=1)
    ipam_site.cloud.faults.clear()
    assert seconds_until(ipam_site, lambda: len(ipam_site.addresses()) == 8, within_s=16) <= 16


def test_permissions_that_come_late_end_the_wait_of_an_empty_node(ipam_site: IpamSite) -> None:
    ipam_site.node()
    ipam_site.cloud.fail("assign-addresses", Denied("not authorised yet"))
    ipam_site.work()
    assert [each.why for each in ipam_site.service.dead_letters()]
    seconds_until(ipam_site, lambda: len(ipam_site.addresses()) == 8, within_s=40)
    assert ipam_site.service.dead_letters() == []


def test_a_queue_that_was_away_for_a_moment_costs_a_moment(ipam_site: IpamSite) -> None:
    ipam_site.queue.down = True
    ipam_site.node()
    ipam_site.queue.down = False
    assert seconds_until(ipam_site, lambda: len(ipam_site.addresses()) == 8, within_s=3) <= 3


def test_workers_that_are_away_do_not_fill_the_queue(ipam_site: IpamSite) -> None:
    ipam_site.node()
    intent_id = intent_of(ipam_site)
    for _ in range(720):
        ipam_site.clock.advance(5)
        ipam_site.tick()
    assert ipam_site.queue.enqueued[intent_id] < 60


def test_another_instance_under_the_same_name_begins_anew(ipam_site: IpamSite) -> None:
    spec = ipam_site.node(watermarks=Watermarks(12))
    claim = ipam_site.run(ipam_site.service.claim(intent_of(ipam_site), "w1"))
    assert claim is not None
    ipam_site.cloud.terminate(spec.instance_id)
    replaced = replace(spec, instance_id=ipam_site.cloud.launch().id)
    ipam_site.run(ipam_site.service.announce(replaced, Usage()))
    with pytest.raises(StaleFence):
        ipam_site.run(ipam_site.service.record(claim.intent.id, claim.fence, ()))
    ipam_site.work()
    assert len(ipam_site.addresses()) == 12
    ipam_site.new_service()
    assert ipam_site.service.pool("n1").attached == 12


def test_dead_letters_end_with_their_node(ipam_site: IpamSite) -> None:
    spec = ipam_site.node()
    claim = ipam_site.run(ipam_site.service.claim(intent_of(ipam_site), "w1"))
    assert claim is not None
    ipam_site.run(ipam_site.service.complete(claim.intent.id, claim.fence, GiveUp("never"), Report()))
    ipam_site.cloud.terminate(spec.instance_id)
    ipam_site.run(ipam_site.service.disconnected("n1"))
    ipam_site.advance(200)
    assert ipam_site.service.dead_letters() == []
    ipam_site.new_service()
    assert ipam_site.service.dead_letters() == []


def test_a_dead_letter_is_replayed_in_the_world_as_it_is(ipam_site: IpamSite) -> None:
    ipam_site.node()
    claim = ipam_site.run(ipam_site.service.claim(intent_of(ipam_site), "w1"))
    assert claim is not None
    ipam_site.run(ipam_site.service.complete(claim.intent.id, claim.fence, GiveUp("never"), Report()))
    (letter,) = ipam_site.service.dead_letters()
    ipam_site.advance(60)
    assert len(ipam_site.addresses()) == 8
    assert ipam_site.service.dead_letters() == [], "what came true is no dead letter"
    with pytest.raises(NotFound):
        ipam_site.run(ipam_site.service.replay(letter.id))


def test_a_replica_that_is_followed_while_its_store_fails_ends_the_streams_of_nodes(ipam_site: IpamSite) -> None:
    said: list[bool] = []
    ipam_site.service.on_leadership = said.append
    ipam_site.node()
    ipam_site.clock.advance(16)
    other = PoolService(
        CONFIG, ipam_site.cloud.capabilities, ipam_site.store, DirectQueue(), ipam_site.clock, holder="other"
    )
    assert ipam_site.run(other.start())
    with pytest.raises(StaleFence):
        ipam_site.run(ipam_site.service.resync())
    ipam_site.tick()
    assert said == [False]


TWO_SUBNETS = (
    Subnet("subnet-a", "10.0.0.0/28", "zone-a", "vpc-1", 0),
    Subnet("subnet-b", "10.0.1.0/24", "zone-a", "vpc-1", 0),
)


def test_a_subnet_that_was_deleted_is_not_tried_for_ever(ipam_sites: Sites) -> None:
    site = ipam_sites(cloud=FakeCloud(subnets=(*TWO_SUBNETS, Subnet("subnet-c", "10.0.2.0/23", "zone-a", "vpc-1", 0))))
    site.advance(1)
    wanted = ("subnet-b", "subnet-c")
    site.node("n2", watermarks=Watermarks(4), subnet_id="subnet-b", first_interface_index=1, subnet_ids=wanted)
    site.cloud.delete_subnet("subnet-c")
    site.work()
    assert len(site.addresses("n2")) == 4
    assert {each.subnet_id for each in site.told["n2"].values()} == {"subnet-b"}


def test_a_deleted_security_group_is_named(ipam_site: IpamSite) -> None:
    ipam_site.advance(1)
    ipam_site.cloud.delete_security_group("sg-1")
    ipam_site.node(first_interface_index=1, security_group_ids=("sg-1",))
    ipam_site.work()
    assert any("sg-1" in each.message for each in ipam_site.service.explain("n1") if each.level is Level.PROBLEM)
    assert len(ipam_site.cloud.interfaces()) == 1, "nothing is left of the attempt"


def test_a_subnet_that_has_room_again_is_used_at_once(ipam_sites: Sites) -> None:
    site = ipam_sites(cloud=FakeCloud(subnets=TWO_SUBNETS[1:]))
    site.node()
    taken = site.cloud.drain("subnet-b")
    site.advance(200)
    assert site.addresses() == []
    site.cloud.refill("subnet-b", taken)
    seconds_until(site, lambda: len(site.addresses()) == 8, within_s=70)


def test_an_interface_whose_subnet_is_unknown_is_read_again(ipam_site: IpamSite) -> None:
    """Its addresses are attached, but the node cannot be told of them: it would wait for ever."""
    ipam_site.node()
    claim = ipam_site.run(ipam_site.service.claim(intent_of(ipam_site), "w1"))
    assert claim is not None
    assert claim.node is not None
    ipam_site.cloud.assign_addresses(
        interface_id=ipam_site.cloud.instance(claim.node.instance_id).interfaces[0].id, count=8
    )
    instance = ipam_site.cloud.instance(claim.node.instance_id)
    ipam_site.queue.lose()
    assert not ipam_site.service.status().subnets
    ipam_site.run(ipam_site.service.complete(claim.intent.id, claim.fence, Done(), Report(instance=instance)))
    assert ipam_site.addresses() == []
    assert any("not among the subnets" in each.message for each in ipam_site.service.explain("n1"))
    ipam_site.advance(3, step_s=1)
    assert len(ipam_site.addresses()) == 8


def test_an_interface_detached_by_hand_is_made_up_for(ipam_site: IpamSite) -> None:
    spec = ipam_site.node(watermarks=Watermarks(12))
    ipam_site.work()
    second = ipam_site.cloud.instance(spec.instance_id).interfaces[1]
    ipam_site.cloud.detach_interface(attachment_id=second.attachment_id, interface_id=second.id)
    ipam_site.cloud.delete_interface(interface_id=second.id)
    ipam_site.report(in_use=frozenset(ipam_site.addresses()))
    ipam_site.work()
    assert second.id not in ipam_site.told["n1"]
    ipam_site.advance(60)
    held = {a for each in ipam_site.cloud.instance(spec.instance_id).interfaces for a in each.addresses}
    assert set(ipam_site.addresses()) == held
    assert ipam_site.service.pool("n1").needed == 0


def test_a_page_that_a_restart_overtook_is_not_merged(ipam_site: IpamSite) -> None:
    spec = ipam_site.node()
    claim = ipam_site.run(ipam_site.service.claim(ipam_site.run(ipam_site.service.resync()), "w1"))
    assert claim is not None
    old = ipam_site.cloud.instance(spec.instance_id)
    ipam_site.work()
    ipam_site.new_service()
    page = Inventory((old,), (), (), (), 0.0, last=True)
    ipam_site.run(ipam_site.service.inventory_page(claim.intent.id, claim.fence, page))
    assert ipam_site.service.pool("n1").attached == 8


def test_addresses_are_never_brought_to_a_subnet_that_is_not_looked_at(ipam_sites: Sites) -> None:
    class Scoped(FakeCloud):
        def subnets(self) -> Sequence[Subnet]:
            return [each for each in super().subnets() if each.id == "subnet-b"]

    site = ipam_sites(cloud=Scoped(subnets=TWO_SUBNETS))
    site.node(subnet_id="subnet-a")
    site.work()
    assert len(site.addresses()) == 8
    assert {each.subnet_id for each in site.told["n1"].values()} == {"subnet-b"}
    assert any("subnet-a" in each.message for each in site.service.explain("n1"))


def test_a_leak_is_collected_though_the_wall_clock_was_set_back(ipam_site: IpamSite) -> None:
    leak = ipam_site.cloud.create_interface(
        subnet_id="subnet-a", security_group_ids=["sg-1"], secondary_count=0,
        tags={"plimsoll:cluster": "plimsoll"}, description="", client_token="",
    )  # fmt: skip
    ipam_site.clock.jump(-3600)
    ipam_site.advance(800)
    assert leak.id not in ipam_site.cloud.interfaces()


def test_no_call_begins_at_the_end_of_a_lease(ipam_site: IpamSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be on its way for half a minute, and must not take effect after somebody else has followed."""
    ipam_site.node()
    ends_at: list[float] = []

    def slow(operation_class: object, *, standing: object, deadline_s: float) -> float:
        ipam_site.clock.advance(25)
        return 25.0

    def watch(operation: str, phase: str) -> None:
        (opened,) = [each for each in ipam_site.service._term.fleet.intents.values() if each.intent.node]  # type: ignore[union-attr]
        ends_at.append(opened.lease_until - ipam_site.clock.monotonic())

    monkeypatch.setattr(ipam_site.budget, "acquire", slow)
    ipam_site.cloud.watch = watch
    ipam_site.executor.perform(intent_of(ipam_site), "w1")
    assert min(ends_at) >= CONFIG.lease_s * 2 / 3
    assert len(ipam_site.addresses()) == 8


def test_a_subnet_is_not_passed_over_for_hours_after_the_wall_clock_was_set_back(ipam_sites: Sites) -> None:
    site = ipam_sites(cloud=FakeCloud(subnets=TWO_SUBNETS[1:]), block_s=60.0)
    site.node()
    claim = site.run(site.service.claim(intent_of(site), "w1"))
    assert claim is not None
    report = Report(blocked_subnets={"subnet-b": "full"}, subnets=tuple(site.cloud.subnets()))
    site.run(site.service.complete(claim.intent.id, claim.fence, Done(), report))
    site.clock.jump(-3600)
    site.new_service()
    spec = NodeSpec("n1", claim.node.instance_id if claim.node else "")
    site.run(site.service.announce(spec, Usage()))
    seconds_until(site, lambda: len(site.addresses()) == 8, within_s=160)
