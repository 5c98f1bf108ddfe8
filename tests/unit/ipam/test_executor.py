"""What a worker does when the cloud, the budget or its own death gets in the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from ipam.errors import CloudError, Conflict, Denied, InProgress, LimitReached, Rejected, Throttled, Unavailable
from ipam.model import Done, OperationClass, Retry, Subnet, Watermarks
from ipam.testing import FakeCloud, IpamSite

Sites = Callable[..., IpamSite]
TWELVE = Watermarks(pre_allocate=12)  # more than the first interface of an m5.large holds
MUTATIONS = ["create-interface", "attach-interface", "protect-interface", "assign-addresses"]


class Killed(BaseException):
    pass


def kill(site: IpamSite, operation: str, phase: str) -> None:
    def watch(seen: str, at: str) -> None:
        if (seen, at) == (operation, phase):
            site.cloud.watch = None
            raise Killed

    site.cloud.watch = watch


def ours(site: IpamSite) -> list[str]:
    return [each.id for each in site.cloud.interfaces().values() if "plimsoll:cluster" in each.tags]


@pytest.mark.parametrize("phase", ["before", "after"])
@pytest.mark.parametrize("operation", MUTATIONS)
def test_a_worker_killed_at_any_call_leaks_nothing_and_brings_nothing_twice(
    ipam_site: IpamSite, operation: str, phase: str
) -> None:
    ipam_site.node(watermarks=TWELVE)
    kill(ipam_site, operation, phase)
    with pytest.raises(Killed):
        ipam_site.work()
    ipam_site.advance(120)
    assert len(ipam_site.addresses()) == 12
    assert len(ours(ipam_site)) == 1
    made = ipam_site.cloud.interfaces()[ours(ipam_site)[0]]
    assert made.instance_id
    assert made.delete_on_termination


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("operation", MUTATIONS)
def test_a_cut_connection_is_followed_up_whether_the_call_took_effect_or_not(
    ipam_site: IpamSite, operation: str, after: bool
) -> None:
    ipam_site.node(watermarks=TWELVE)
    ipam_site.cloud.fail(operation, Unavailable("connection cut"), after_effect=after)
    ipam_site.advance(60)
    assert len(ipam_site.addresses()) == 12
    assert len(ours(ipam_site)) == 1


@pytest.mark.parametrize("phase", ["before", "after"])
def test_a_worker_killed_while_releasing_releases_once(ipam_site: IpamSite, phase: str) -> None:
    ipam_site.node()
    ipam_site.work()
    ipam_site.report(in_use=frozenset(ipam_site.addresses()))
    ipam_site.work()
    ipam_site.report()
    ipam_site.advance(200)
    leaving = frozenset(each for each, state in ipam_site.states().items() if state == "marked")
    ipam_site.report(ready=leaving)
    kill(ipam_site, "unassign-addresses", phase)
    with pytest.raises(Killed):
        ipam_site.work()
    ipam_site.advance(120)
    assert not leaving & set(ipam_site.addresses())
    assert len(ipam_site.addresses()) >= 8


def test_throttling_is_told_to_the_budget_and_waited_out(ipam_site: IpamSite) -> None:
    ipam_site.node()
    ipam_site.cloud.throttled_until = ipam_site.clock.monotonic() + 60
    ipam_site.work()
    assert ipam_site.budget.throttles == 1
    assert isinstance(ipam_site.outcomes[-1], Retry) or isinstance(ipam_site.outcomes[0], Retry)
    assert any("throttled" in each.message for each in ipam_site.service.explain("n1"))
    ipam_site.advance(400)
    assert len(ipam_site.addresses()) == 8


def test_calls_after_the_first_count_as_begun(ipam_site: IpamSite) -> None:
    ipam_site.node(watermarks=TWELVE)
    ipam_site.work()
    assert ipam_site.budget.acquired[OperationClass.MUTATE] == 4
    assert ipam_site.budget.begun == 3


def test_without_budget_it_says_so(ipam_site: IpamSite) -> None:
    ipam_site.node()
    ipam_site.budget.refuse = True
    ipam_site.work()
    assert any(each.subject == "budget" for each in ipam_site.service.explain("n1"))
    ipam_site.budget.refuse = False
    ipam_site.advance(60)
    assert len(ipam_site.addresses()) == 8


def test_a_full_subnet_is_blocked_and_a_sibling_takes_over_at_once(ipam_sites: Sites) -> None:
    subnets = [Subnet(f"subnet-{each}", f"10.0.{each}.0/28", "zone-a", "vpc-1", 0) for each in range(2)]
    site = ipam_sites(cloud=FakeCloud(subnets=subnets))
    site.node(watermarks=Watermarks(pre_allocate=5), subnet_id="subnet-0")
    site.run(site.service.resync())
    intents = [site.queue.take() for _ in range(len(site.queue))]
    for intent_id in sorted(filter(None, intents), reverse=True):  # the listing before the allocation
        if intent_id.startswith("allocate"):
            site.cloud.drain("subnet-0")  # full by the time that it is asked
        site.executor.perform(intent_id, "w")
    assert {each.subnet_id for each in site.told["n1"].values()} == {"subnet-0", "subnet-1"}
    assert len(site.addresses()) == 5
    (blocked,) = [each for each in site.service.status().subnets if each.blocked_why]
    assert blocked.id == "subnet-0"
    site.advance(site.config.block_s + 60)
    site.run(site.service.resync())
    site.service.explain("n1")
    site.report(pending_pods=9)
    site.work()
    assert not [each for each in site.service.status().subnets if each.blocked_why], "the block has expired"


def test_a_taken_index_leads_to_the_next(ipam_site: IpamSite) -> None:
    ipam_site.node(watermarks=TWELVE)
    ipam_site.cloud.fail("attach-interface", Conflict("index 1 is taken"))
    ipam_site.work()
    assert len(ipam_site.addresses()) == 12


def test_an_instance_that_takes_no_interface_now_keeps_the_one_that_was_made_for_it(ipam_site: IpamSite) -> None:
    """It stops or starts: asking at once again is in vain, and another interface would be refused alike."""
    ipam_site.node(watermarks=TWELVE)
    ipam_site.cloud.fail("attach-interface", Conflict("the instance is stopping", code="IncorrectState"), count=2)
    ipam_site.work()
    assert ipam_site.cloud.calls["attach-interface"] == 2
    assert len(ours(ipam_site)) == 1
    ipam_site.advance(30)
    assert len(ipam_site.addresses()) == 12
    assert len(ours(ipam_site)) == 1


def test_an_interface_that_cannot_be_attached_is_deleted(ipam_site: IpamSite) -> None:
    ipam_site.node(watermarks=TWELVE)
    ipam_site.cloud.fail("attach-interface", LimitReached("no slot", code="AttachmentLimitExceeded"), count=3)
    ipam_site.work()
    assert ours(ipam_site) == []
    assert ipam_site.cloud.calls["delete-interface"] >= 1


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (Denied("not authorised", code="UnauthorizedOperation", remedy="grant ec2:Assign"), "grant ec2:Assign"),
        (Rejected("malformed", code="InvalidParameterValue"), "InvalidParameterValue"),
    ],
)
def test_what_cannot_be_helped_is_given_up_with_clear_words(ipam_site: IpamSite, error: CloudError, words: str) -> None:
    ipam_site.node()
    ipam_site.cloud.fail("assign-addresses", error)
    ipam_site.work()
    (letter,) = ipam_site.service.dead_letters()
    assert words in letter.why
    assert any(words in each.message for each in ipam_site.service.explain("n1"))
    ipam_site.advance(400)
    assert len(ipam_site.addresses()) == 8, "tried again after a while, without people"


def test_a_missing_security_group_is_named(ipam_site: IpamSite) -> None:
    ipam_site.node(watermarks=TWELVE, security_group_ids=("sg-gone",))
    ipam_site.work()
    (letter,) = ipam_site.service.dead_letters()
    assert "sg-gone" in letter.why


def test_a_worker_that_was_overtaken_stops_before_its_next_call(ipam_site: IpamSite) -> None:
    ipam_site.node(watermarks=TWELVE)

    def slow(operation: str, phase: str) -> None:
        if (operation, phase) == ("assign-addresses", "after"):
            ipam_site.cloud.watch = None
            ipam_site.clock.advance(ipam_site.config.lease_s + 1)
            intent_id = next(each.id for each in ipam_site.service.intents() if each.node)
            assert ipam_site.loop.run_until_complete(ipam_site.service.claim(intent_id, "another")) is not None

    ipam_site.cloud.watch = slow
    ipam_site.work()
    assert ipam_site.cloud.calls["create-interface"] == 0
    assert any(isinstance(each, Retry) and "taken over" in each.why for each in ipam_site.outcomes)


def test_a_listing_that_breaks_off_is_never_complete(ipam_site: IpamSite) -> None:
    ipam_site.node()
    ipam_site.work()
    ipam_site.cloud.fail("read-inventory", Throttled("slow down"))
    ipam_site.run(ipam_site.service.resync())
    before = ipam_site.service.status().last_resync_at
    ipam_site.work()
    assert isinstance(ipam_site.outcomes[-1], Retry)
    assert ipam_site.service.status().last_resync_at == before


def test_a_journal_that_hides_errors_of_the_listing(ipam_site: IpamSite) -> None:
    """A transport may raise its own error when the pages that it sends break off."""

    class Hiding:
        def __init__(self, inner: object) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> object:
            return getattr(self._inner, name)

        def inventory(self, intent_id: str, fence: int, pages: Iterator[object]) -> None:
            try:
                list(pages)
            except CloudError:
                raise RuntimeError("stream broken") from None

    ipam_site.executor._journal = Hiding(ipam_site.executor._journal)  # type: ignore[assignment]
    ipam_site.cloud.fail("read-inventory", Throttled("slow down"))
    ipam_site.run(ipam_site.service.resync())
    ipam_site.work()
    assert ipam_site.outcomes[-1] == Retry(1.0, "throttled at a call: slow down")


def test_what_is_done_twice_is_done_once(ipam_site: IpamSite) -> None:
    ipam_site.node()
    intent_id = next(each.id for each in ipam_site.service.intents() if each.node)
    assert ipam_site.executor.perform(intent_id, "w1") == Done()
    assert ipam_site.executor.perform(intent_id, "w2") == Done()
    assert ipam_site.cloud.calls["assign-addresses"] == 1


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("operation", MUTATIONS)
def test_what_the_cloud_takes_its_time_for_is_come_back_to_and_is_no_failed_attempt(
    ipam_sites: Sites, operation: str, after: bool
) -> None:
    site = ipam_sites(max_attempts=2)
    site.node(watermarks=TWELVE)
    underway = InProgress("the interface is being updated", operation="Update", retry_after_s=2.0)
    site.cloud.fail(operation, underway, count=1 if after else 4, after_effect=after)
    site.work()
    assert isinstance(site.outcomes[-1], Retry)
    assert site.outcomes[-1].underway
    assert any("under way at the cloud" in each.message for each in site.service.explain("n1"))
    site.advance(90)
    assert site.service.dead_letters() == []
    assert len(site.addresses()) == 12
    assert len(ours(site)) == 1


def test_what_lasts_long_at_the_cloud_is_asked_about_more_seldom(ipam_site: IpamSite) -> None:
    ipam_site.node(watermarks=TWELVE)
    underway = InProgress("the interface is being updated", operation="Update", retry_after_s=2.0)
    ipam_site.cloud.fail("create-interface", underway, count=1000)
    ipam_site.work()
    ipam_site.advance(60)
    first_minute = ipam_site.cloud.calls["create-interface"]
    ipam_site.advance(1200)
    before = ipam_site.cloud.calls["create-interface"]
    ipam_site.advance(60)
    assert ipam_site.cloud.calls["create-interface"] - before <= 2 < first_minute / 5
    assert ipam_site.service.dead_letters() == []
