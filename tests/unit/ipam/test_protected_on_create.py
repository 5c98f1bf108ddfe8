"""Interfaces on a cloud that takes at their creation that they go with their instance: one call less for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from ipam.errors import Unavailable
from ipam.model import CloudInterface, Usage, Watermarks
from ipam.testing import AWS_LIKE, FakeCloud, IpamSite

Sites = Callable[..., IpamSite]
TWELVE = Watermarks(pre_allocate=12)  # more than the first interface of an m5.large holds
PROTECTS = replace(AWS_LIKE, protects_on_create=True)


class Killed(BaseException):
    pass


@pytest.fixture
def site(ipam_sites: Sites) -> IpamSite:
    return ipam_sites(cloud=FakeCloud(capabilities=PROTECTS))


def kill(site: IpamSite, operation: str, phase: str, *, within_s: float = 1.0) -> None:
    """Lets a worker die at the call, which is made within that time."""

    def watch(seen: str, at: str) -> None:
        if (seen, at) == (operation, phase):
            site.cloud.watch = None
            raise Killed

    site.cloud.watch = watch
    with pytest.raises(Killed):
        site.advance(within_s)


def made(site: IpamSite) -> CloudInterface:
    """The one interface that is ours."""
    (ours,) = [each for each in site.cloud.interfaces().values() if "plimsoll:cluster" in each.tags]
    return ours


def test_no_call_is_made_and_no_step_written_down_to_protect_them(site: IpamSite) -> None:
    site.node(watermarks=TWELVE)
    site.work()
    assert site.cloud.mutating_calls() == 3  # assign; create, attach
    assert made(site).delete_on_termination
    site.cloud.terminate(made(site).instance_id)
    assert not [each for each in site.cloud.interfaces().values() if "plimsoll:cluster" in each.tags]


@pytest.mark.parametrize("capabilities", [PROTECTS, AWS_LIKE], ids=["on creation", "by a call"])
def test_a_node_that_keeps_them_gets_such_as_stay(ipam_sites: Sites, capabilities: object) -> None:
    site = ipam_sites(cloud=FakeCloud(capabilities=capabilities))  # type: ignore[arg-type]
    site.node(watermarks=TWELVE, delete_on_termination=False)
    site.work()
    assert site.cloud.mutating_calls() == 3
    assert not made(site).delete_on_termination


@pytest.mark.parametrize("phase", ["before", "after"])
@pytest.mark.parametrize("operation", ["create-interface", "attach-interface", "assign-addresses"])
def test_a_worker_killed_at_any_call_leaves_one_that_goes_with_its_instance(
    site: IpamSite, operation: str, phase: str
) -> None:
    site.node(watermarks=TWELVE)
    kill(site, operation, phase)
    site.advance(120)
    assert len(site.addresses()) == 12
    assert (bool(made(site).instance_id), made(site).delete_on_termination) == (True, True)
    assert site.cloud.calls["protect-interface"] == 0


def test_whoever_repeats_a_creation_asks_for_what_was_written_down(site: IpamSite) -> None:
    """The token stands for all that was asked, though the node wants something else by now."""
    asked: list[object] = []
    create = site.cloud.create_interface

    def watched(**what: object) -> CloudInterface:
        asked.append(what["delete_on_termination"])
        return create(**what)  # type: ignore[arg-type]

    site.cloud.create_interface = watched  # type: ignore[method-assign]
    spec = site.node(watermarks=TWELVE)
    site.cloud.fail("create-interface", Unavailable("connection cut"), after_effect=True)
    site.work()
    site.run(site.service.announce(replace(spec, delete_on_termination=False), Usage()))
    site.advance(60)
    assert asked == [True, True]
    assert made(site).instance_id


def test_what_was_begun_before_it_could_be_said_is_protected_by_a_call(ipam_sites: Sites) -> None:
    """The steps of an older worker create an interface that stays, and one to protect it stands beside them."""
    site = ipam_sites(cloud=FakeCloud())
    site.node(watermarks=TWELVE)
    kill(site, "create-interface", "after")
    site.cloud.capabilities = PROTECTS
    site.new_service()
    site.advance(120)
    assert len(site.addresses()) == 12
    assert (site.cloud.calls["protect-interface"], made(site).delete_on_termination) == (1, True)


def test_one_that_is_not_as_it_was_created_is_protected_by_a_call_that_is_written_down(site: IpamSite) -> None:
    site.node(watermarks=TWELVE)
    kill(site, "attach-interface", "after")
    site.cloud.change(made(site).id, delete_on_termination=False)
    kill(site, "protect-interface", "before", within_s=120)
    steps = [step.operation for opened in site.service.intents() for step in opened.steps]
    assert "protect-interface" in steps
    site.advance(120)
    assert made(site).delete_on_termination
    assert len(site.addresses()) == 12
