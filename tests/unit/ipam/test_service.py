"""The service's life with its nodes and workers, told as stories."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from ipam.errors import AddressConflict, InvalidInput, NotFound, NotLeader, StaleFence, StoreError
from ipam.model import (
    AddressState,
    Done,
    GiveUp,
    IntentKind,
    Inventory,
    Level,
    Limits,
    NodeSpec,
    Report,
    Retry,
    Subnet,
    Usage,
    Watermarks,
)
from ipam.service import PoolService
from ipam.testing import DirectQueue, FakeCloud, IpamSite
from ipam.testing.site import CONFIG

Sites = Callable[..., IpamSite]


def marked(site: IpamSite, node: str = "n1") -> frozenset[str]:
    return frozenset(address for address, state in site.states(node).items() if state == AddressState.MARKED)


def mutating_intent(site: IpamSite) -> str:
    return next(intent.id for intent in site.service.intents() if intent.node)


def test_a_node_announces_itself_and_gets_its_pool(ipam_site: IpamSite) -> None:
    ipam_site.node()
    assert ipam_site.told["n1"] == {}
    ipam_site.work()
    assert len(ipam_site.addresses()) == 8
    interface = next(iter(ipam_site.told["n1"].values()))
    assert (interface.subnet_cidr, interface.gateway) == ("10.0.0.0/16", "10.0.0.1")


def test_the_intent_is_durable_before_it_is_enqueued(ipam_site: IpamSite) -> None:
    spec = NodeSpec("n1", ipam_site.cloud.launch().id)
    ipam_site.store.fail = [StoreError("disk full")]
    with pytest.raises(StoreError):
        ipam_site.run(ipam_site.service.announce(spec, Usage()))
    assert not [i for i in ipam_site.queue.enqueued if i.startswith("allocate")]


def test_a_queue_that_is_down_only_delays(ipam_site: IpamSite) -> None:
    ipam_site.queue.down = True
    ipam_site.node()
    ipam_site.queue.down = False
    assert ipam_site.work() == 0
    ipam_site.advance(15)
    assert len(ipam_site.addresses()) == 8


def test_one_call_serves_the_pods_of_half_a_minute(ipam_site: IpamSite) -> None:
    ipam_site.node()
    ipam_site.work()
    for pods in (1, 1, 2):
        ipam_site.report(in_use=frozenset(ipam_site.addresses()[:pods]))
        ipam_site.advance(5)
    assert ipam_site.cloud.calls["assign-addresses"] == 1
    ipam_site.advance(30)
    assert ipam_site.cloud.calls["assign-addresses"] == 2
    assert len(ipam_site.addresses()) == 10


def test_a_pod_that_waits_is_served_at_once(ipam_sites: Sites) -> None:
    site = ipam_sites()
    site.node(watermarks=Watermarks(pre_allocate=0))
    site.work()
    site.report(pending_pods=2)
    site.work()
    assert len(site.addresses()) == 2


def test_a_released_address_passes_every_state(ipam_site: IpamSite) -> None:
    ipam_site.node()
    ipam_site.work()
    ipam_site.report(in_use=frozenset(ipam_site.addresses()[:8]))
    ipam_site.work()
    assert len(ipam_site.addresses()) == 16
    ipam_site.report()
    ipam_site.advance(100)
    assert not marked(ipam_site), "the release delay has not passed"
    ipam_site.advance(100)
    leaving = marked(ipam_site)
    assert len(leaving) in (7, 8)
    ipam_site.report(ready=leaving)
    assert {ipam_site.states()[each] for each in leaving} == {AddressState.READY}
    ipam_site.work()
    assert not leaving & set(ipam_site.addresses())


def excess_marked(site: IpamSite) -> frozenset[str]:
    site.node()
    site.work()
    site.report(in_use=frozenset(site.addresses()[:8]))
    site.work()
    site.report()
    site.advance(200)
    return marked(site)


def test_a_node_that_refuses_keeps_its_addresses(ipam_site: IpamSite) -> None:
    leaving = excess_marked(ipam_site)
    ipam_site.report(refused=leaving)
    assert not marked(ipam_site)
    ipam_site.work()
    assert leaving <= set(ipam_site.addresses())


def test_demand_that_returns_takes_fenced_addresses_back(ipam_site: IpamSite) -> None:
    leaving = excess_marked(ipam_site)
    free = [each for each in ipam_site.addresses() if each not in leaving]
    ipam_site.report(ready=leaving)
    ipam_site.report(ready=leaving, in_use=frozenset(free))
    assert {ipam_site.states()[each] for each in leaving} == {AddressState.AVAILABLE}
    ipam_site.work()
    assert leaving <= set(ipam_site.addresses())


def test_the_newest_usage_decides_at_the_moment_of_release(ipam_site: IpamSite) -> None:
    leaving = excess_marked(ipam_site)
    ipam_site.report(ready=leaving)
    intent_id = mutating_intent(ipam_site)
    claim = ipam_site.run(ipam_site.service.claim(intent_id, "w1"))
    assert claim is not None
    kept = next(iter(leaving))
    ipam_site.report(ready=leaving - {kept}, in_use=frozenset({kept}))
    allowed = ipam_site.run(ipam_site.service.confirm_release(intent_id, claim.fence, tuple(leaving)))
    assert set(allowed) == leaving - {kept}


def test_a_node_that_goes_away_aborts_its_release(ipam_site: IpamSite) -> None:
    leaving = excess_marked(ipam_site)
    ipam_site.report(ready=leaving)
    ipam_site.run(ipam_site.service.disconnected("n1"))
    ipam_site.work()
    assert leaving <= set(ipam_site.addresses())


def test_a_node_that_never_answers_is_not_waited_for(ipam_site: IpamSite) -> None:
    leaving = excess_marked(ipam_site)
    ipam_site.advance(70)
    assert not marked(ipam_site)
    ipam_site.report(ready=leaving)
    ipam_site.work()
    assert leaving <= set(ipam_site.addresses()), "a late answer is no answer to a later marking"


def test_a_release_that_fails_goes_on_after_a_restart(ipam_site: IpamSite) -> None:
    leaving = excess_marked(ipam_site)
    ipam_site.report(ready=leaving)
    claim = ipam_site.run(ipam_site.service.claim(mutating_intent(ipam_site), "w1"))
    assert claim is not None
    ipam_site.run(ipam_site.service.confirm_release(claim.intent.id, claim.fence, claim.intent.addresses))
    ipam_site.new_service()
    ipam_site.advance(120)
    assert not leaving & set(ipam_site.addresses())


def test_a_claim_is_exclusive_until_its_lease_ends(ipam_site: IpamSite) -> None:
    ipam_site.node()
    service, run = ipam_site.service, ipam_site.run
    intent_id = mutating_intent(ipam_site)
    first = run(service.claim(intent_id, "w1"))
    assert first is not None
    assert run(service.claim(intent_id, "w2")) is None
    ipam_site.clock.jump(3600)
    assert run(service.claim(intent_id, "w2")) is None, "a jump of the wall clock ends no lease"
    ipam_site.clock.advance(CONFIG.lease_s + 1)
    second = run(service.claim(intent_id, "w2"))
    assert second is not None
    assert second.fence > first.fence
    for stale in (
        service.record(intent_id, first.fence, ()),
        service.confirm_release(intent_id, first.fence, ()),
        service.complete(intent_id, first.fence, Done(), Report()),
    ):
        with pytest.raises(StaleFence):
            run(stale)


def test_a_worker_goes_on_over_a_restart_of_the_service(ipam_site: IpamSite) -> None:
    ipam_site.node()
    claim = ipam_site.run(ipam_site.service.claim(mutating_intent(ipam_site), "w1"))
    assert claim is not None
    ipam_site.new_service()
    ipam_site.run(ipam_site.service.record(claim.intent.id, claim.fence, ()))
    assert ipam_site.run(ipam_site.service.claim(claim.intent.id, "w2")) is None


def test_what_gives_up_is_kept_and_can_be_replayed(ipam_site: IpamSite) -> None:
    ipam_site.node()
    intent_id = mutating_intent(ipam_site)
    claim = ipam_site.run(ipam_site.service.claim(intent_id, "w1"))
    assert claim is not None
    ipam_site.run(ipam_site.service.complete(intent_id, claim.fence, GiveUp("no permission"), Report()))
    (letter,) = ipam_site.service.dead_letters()
    assert (letter.why, letter.intent.kind) == ("no permission", IntentKind.ALLOCATE)
    kinds = {each.kind for each in ipam_site.service.intents()}
    assert IntentKind.ALLOCATE not in kinds, "not tried again at once"
    assert any(each.level is Level.PROBLEM for each in ipam_site.service.explain("n1"))
    ipam_site.run(ipam_site.service.replay(letter.id))
    ipam_site.work()
    assert len(ipam_site.addresses()) == 8
    assert ipam_site.service.dead_letters() == []
    with pytest.raises(NotFound):
        ipam_site.run(ipam_site.service.replay(letter.id))


def test_attempts_end_in_a_dead_letter(ipam_sites: Sites) -> None:
    site = ipam_sites(max_attempts=3, retry_base_s=0.1)
    site.node()
    for _ in range(3):
        intent_id = mutating_intent(site)
        claim = site.run(site.service.claim(intent_id, "w"))
        assert claim is not None
        site.run(site.service.complete(intent_id, claim.fence, Retry(1.0, "busy"), Report()))
        site.clock.advance(2.0)
    assert [each.why for each in site.service.dead_letters()] == ["busy"]


def test_a_resync_corrects_drift_and_counts_it(ipam_site: IpamSite) -> None:
    spec = ipam_site.node()
    ipam_site.work()
    primary = ipam_site.cloud.instance(spec.instance_id).interfaces[0]
    ipam_site.cloud.unassign_addresses(interface_id=primary.id, addresses=primary.addresses[:2])
    ipam_site.clock.advance(1)
    ipam_site.run(ipam_site.service.resync())
    ipam_site.work()
    assert len(ipam_site.addresses()) == 6
    ipam_site.advance(60)
    assert len(ipam_site.addresses()) == 8


def test_listings_tell_when_a_subnet_runs_out(ipam_site: IpamSite) -> None:
    run, service = ipam_site.run, ipam_site.service
    for free in (120, 110, 100, 90):
        claim = run(service.claim(run(service.resync()), "w1"))
        assert claim is not None
        subnet = Subnet("subnet-falling", "10.9.0.0/24", "z1", "vpc-1", free)
        page = Inventory(
            instances=(),
            detached=(),
            subnets=(subnet,),
            security_groups=(),
            started_at=ipam_site.clock.now(),
            last=True,
        )
        run(service.inventory_page(claim.intent.id, claim.fence, page))
        run(service.complete(claim.intent.id, claim.fence, Done(), Report()))
        ipam_site.clock.advance(600)
    (seen,) = [each for each in service.status().subnets if each.id == "subnet-falling"]
    assert seen.exhaustion is not None
    assert seen.exhaustion.taken_per_hour == pytest.approx(60.0)
    assert seen.exhaustion.in_s == pytest.approx(1.5 * 3600)


def test_a_listing_older_than_a_node_does_not_drop_it(ipam_site: IpamSite) -> None:
    run, service = ipam_site.run, ipam_site.service
    intent_id = run(service.resync())
    claim = run(service.claim(intent_id, "w1"))
    assert claim is not None
    ipam_site.clock.advance(1)
    ipam_site.node()
    ipam_site.queue.lose()
    page = Inventory((), (), (), (), ipam_site.clock.now(), last=True)
    assert run(service.inventory_page(intent_id, claim.fence, page)) == (0, 0)
    assert service.pool("n1").connected


def test_an_instance_that_a_listing_lacks_is_read_before_anything_is_dropped(ipam_site: IpamSite) -> None:
    ipam_site.node()
    ipam_site.work()
    ipam_site.clock.advance(1)
    run, service = ipam_site.run, ipam_site.service
    claim = run(service.claim(run(service.resync()), "w1"))
    assert claim is not None
    run(service.inventory_page(claim.intent.id, claim.fence, Inventory((), (), (), (), 0.0, last=True)))
    assert len(ipam_site.addresses()) == 8
    ipam_site.work()
    assert service.pool("n1").attached == 8


def test_a_terminated_instance_takes_its_node_along(ipam_site: IpamSite) -> None:
    spec = ipam_site.node()
    ipam_site.work()
    ipam_site.cloud.terminate(spec.instance_id)
    ipam_site.run(ipam_site.service.disconnected("n1"))
    ipam_site.advance(130)
    with pytest.raises(NotFound):
        ipam_site.service.pool("n1")


def test_an_address_that_the_cloud_gives_to_two_stays_with_the_first(ipam_site: IpamSite) -> None:
    ipam_site.node("n1")
    ipam_site.work()
    spec = ipam_site.node("n2")
    stolen = ipam_site.addresses("n1")[0]
    claim = ipam_site.run(ipam_site.service.claim(mutating_intent(ipam_site), "w1"))
    assert claim is not None
    instance = ipam_site.cloud.instance(spec.instance_id)
    lying = replace(instance, interfaces=(replace(instance.interfaces[0], addresses=(stolen,)),))
    ipam_site.run(ipam_site.service.complete(claim.intent.id, claim.fence, Done(), Report(instance=lying)))
    assert stolen in ipam_site.addresses("n1")
    assert stolen not in ipam_site.addresses("n2")
    assert any(stolen in each.message for each in ipam_site.service.explain("n2"))


def test_leaked_interfaces_are_deleted_and_those_of_others_are_not(ipam_site: IpamSite) -> None:
    def create(**tags: str) -> str:
        return ipam_site.cloud.create_interface(
            subnet_id="subnet-a", security_group_ids=["sg-1"], secondary_count=0, tags=tags, description="",
            client_token="",
        ).id  # fmt: skip

    ours = create(**{"plimsoll:cluster": "plimsoll"})
    others = create(**{"plimsoll:cluster": "another"})
    ipam_site.advance(300)
    assert ours in ipam_site.cloud.interfaces(), "not old enough"
    ipam_site.advance(400)
    assert ours not in ipam_site.cloud.interfaces()
    assert others in ipam_site.cloud.interfaces()


def test_only_one_replica_leads(ipam_site: IpamSite) -> None:
    other = PoolService(
        CONFIG, ipam_site.cloud.capabilities, ipam_site.store, DirectQueue(), ipam_site.clock, holder="other"
    )
    assert ipam_site.run(other.start()) is False
    with pytest.raises(NotLeader):
        other.pool("n1")
    assert not other.status().leader
    ipam_site.clock.advance(16)
    assert ipam_site.run(other.start()) is True
    ipam_site.clock.advance(6)
    ipam_site.tick()
    assert not ipam_site.service.leads


def test_a_failed_write_starts_anew_without_losing_the_connection(ipam_site: IpamSite) -> None:
    ipam_site.node()
    ipam_site.work()
    ipam_site.store.fail = [StoreError("disk full")]
    with pytest.raises(StoreError):
        ipam_site.run(ipam_site.service.resync())
    ipam_site.tick()
    assert ipam_site.service.pool("n1").connected


def test_a_cancelled_caller_takes_nothing_back(ipam_site: IpamSite) -> None:
    spec = NodeSpec("n1", ipam_site.cloud.launch().id)

    async def impatient() -> None:
        task = asyncio.create_task(ipam_site.service.announce(spec, Usage()))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    ipam_site.run(impatient())
    ipam_site.tick()
    ipam_site.work()
    assert len(ipam_site.addresses()) == 8


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (NodeSpec("", "i-1"), "name"),
        (NodeSpec("n1", ""), "instance_id"),
        (NodeSpec("n1", "i-1", watermarks=Watermarks(pre_allocate=-1)), "watermarks.pre_allocate"),
        (NodeSpec("n1", "i-1", watermarks=Watermarks(min_allocate=9, max_allocate=3)), "watermarks.max_allocate"),
        (NodeSpec("n1", "i-1", first_interface_index=-1), "first_interface_index"),
        (NodeSpec("n1", "i-1", subnet_tags={"": "x"}), "subnet_tags"),
    ],
)
def test_what_a_node_may_not_say(ipam_site: IpamSite, spec: NodeSpec, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        ipam_site.run(ipam_site.service.announce(spec, Usage()))
    assert caught.value.field == field
    assert caught.value.remedy


def test_two_nodes_cannot_hold_one_instance(ipam_site: IpamSite) -> None:
    spec = ipam_site.node()
    with pytest.raises(AddressConflict):
        ipam_site.run(ipam_site.service.announce(replace(spec, name="n2"), Usage()))
    ipam_site.run(ipam_site.service.disconnected("n1"))
    ipam_site.run(ipam_site.service.announce(replace(spec, name="n2"), Usage()))
    assert [pool.spec.name for pool in ipam_site.service.pools()] == ["n2"]


def test_an_unknown_type_is_explained_and_helped_by_an_override(ipam_sites: Sites) -> None:
    cloud = FakeCloud(limits=())
    site = ipam_sites(cloud=cloud)
    cloud._limits["odd.large"] = Limits("odd.large", 3, 10)
    site.node(type_="odd.large")
    del cloud._limits["odd.large"]
    site.work()
    assert any("odd.large" in each.message for each in site.service.explain("n1") if each.level is Level.PROBLEM)
    helped = ipam_sites(cloud=cloud, limits_override={"odd.large": Limits("odd.large", 3, 10)})
    cloud._limits["odd.large"] = Limits("odd.large", 3, 10)
    helped.node(type_="odd.large")
    helped.work()
    assert len(helped.addresses()) == 8


def test_reports_of_an_earlier_connection_are_ignored(ipam_site: IpamSite) -> None:
    spec = ipam_site.node()
    ipam_site.work()
    old = ipam_site.service._term.fleet.pools["n1"].session  # type: ignore[union-attr]
    ipam_site.run(ipam_site.service.announce(spec, Usage(sequence=5)))
    ipam_site.run(ipam_site.service.disconnected("n1", old))
    ipam_site.run(ipam_site.service.report("n1", Usage(pending_pods=9, sequence=9), old))
    view = ipam_site.service.pool("n1")
    assert (view.connected, view.pending_pods) == (True, 0)
