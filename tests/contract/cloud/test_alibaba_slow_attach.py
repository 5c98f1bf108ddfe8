"""A whole IPAM on the fake Alibaba Cloud while interfaces take their time: workers wait for none of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Protocol

import pytest

from ipam.model import CloudInterface, Instance, Retry, SubnetPolicy
from ipam.ports import CloudProvider
from ipam.providers.alibaba import AlibabaProvider
from ipam.testing import IpamSite
from ipam.testing.site import CONFIG
from lab.fake_alibaba.testing import Running

SLOW_S = 0.3


class Site(Protocol):
    provider: CloudProvider
    instance_type: str
    subnet_id: str
    small_subnet_id: str

    def launch(self, type_: str, /) -> str: ...
    def add_public_address(self, tags: dict[str, str], /) -> str: ...


class HastyCloud:
    """The provider as IpamSite wants its cloud; it waits for no interface."""

    clock: Any = None

    def __init__(self, site: Site, url: str) -> None:
        self._site = site
        self._provider = AlibabaProvider("1234567890123456", "eu-central-1", endpoint_url=url, settle_s=0.0)

    def launch(self, type_: str, *, subnet_id: str = "") -> Instance:
        return self._provider.instance(self._site.launch(type_))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._provider, name)


@pytest.fixture
def ipam(alibaba: Running, alibaba_cloud: Site) -> Iterator[IpamSite]:
    config = replace(CONFIG, coalesce_s=0.0, release_delay_s=20.0, release_interfaces=True, first_interface_index=1)
    site = IpamSite(config, HastyCloud(alibaba_cloud, alibaba.url))  # type: ignore[arg-type]
    alibaba.set_faults(create_s=SLOW_S, attach_s=SLOW_S, detach_s=SLOW_S)
    yield site
    alibaba.set_faults()
    site.close()


def until(site: IpamSite, reached: Callable[[], bool]) -> None:
    """Lets the cloud's time and the service's pass until it is so."""
    deadline = time.monotonic() + 10
    while not reached():
        assert time.monotonic() < deadline, site.outcomes[-3:]
        time.sleep(0.05)
        site.advance(5)


def held(site: IpamSite, name: str = "n1") -> tuple[CloudInterface, ...]:
    """The node's interfaces but the first, at the cloud."""
    return site.cloud.instance(site.service.pool(name).spec.instance_id).interfaces[1:]


def test_a_node_gets_its_addresses_through_attempts_that_do_not_wait(
    ipam: IpamSite, alibaba: Running, alibaba_cloud: Site
) -> None:
    marks = replace(CONFIG.watermarks, pre_allocate=12)
    ipam.node(type_=alibaba_cloud.instance_type, watermarks=marks, first_interface_index=1)
    ipam.work()
    assert isinstance(ipam.outcomes[-1], Retry), "the worker is free again before the interface is there"
    until(ipam, lambda: len(ipam.addresses()) == 12 and not ipam.service.pool("n1").open_intents)
    assert len(alibaba.do(lambda cloud: cloud.interfaces.current)) == 3, "no attempt has made another interface"
    assert not ipam.service.dead_letters()
    interfaces = ipam.cloud.instance(ipam.service.pool("n1").spec.instance_id).interfaces
    assert [each.status for each in interfaces] == ["in-use"] * 3
    assert not interfaces[0].addresses, "the first interface is the host's own"
    assert all(each.delete_on_termination for each in interfaces)


def test_prefixes_come_the_same_way(ipam: IpamSite, alibaba_cloud: Site) -> None:
    marks = replace(CONFIG.watermarks, pre_allocate=40)
    ipam.node(type_=alibaba_cloud.instance_type, watermarks=marks, first_interface_index=1, prefix_delegation=True)
    until(ipam, lambda: len(ipam.addresses()) == 48 and not ipam.service.pool("n1").open_intents)
    (interface,) = held(ipam)
    assert (len(interface.prefixes), interface.addresses) == (3, ())


def test_a_full_vswitch_is_passed_over_for_the_next_in_order(ipam: IpamSite, alibaba_cloud: Site) -> None:
    order = (alibaba_cloud.small_subnet_id, alibaba_cloud.subnet_id)  # the first has room for 12 addresses
    for number in range(3):
        ipam.node(
            f"n{number}", type_=alibaba_cloud.instance_type, first_interface_index=1, subnet_ids=order,
            subnet_policy=SubnetPolicy.ORDERED, watermarks=replace(CONFIG.watermarks, pre_allocate=6),
        )  # fmt: skip
        until(ipam, lambda name=f"n{number}": len(ipam.addresses(name)) == 6)  # type: ignore[misc]
    used = [{each.subnet_id for each in held(ipam, name)} for name in ("n0", "n1", "n2")]
    assert used[0] == {order[0]}
    # What the second leaves of the first vSwitch depends on when the service saw how full it was.
    assert order[1] in used[1]
    assert order[1] in used[2]


def test_an_interface_that_nobody_needs_is_detached_and_deleted_without_waiting(
    ipam: IpamSite, alibaba: Running, alibaba_cloud: Site
) -> None:
    marks = replace(CONFIG.watermarks, pre_allocate=8)
    ipam.node(type_=alibaba_cloud.instance_type, watermarks=marks, first_interface_index=1)
    until(ipam, lambda: len(ipam.addresses()) == 8 and not ipam.service.pool("n1").open_intents)
    ipam.report(in_use=frozenset(ipam.addresses()))
    until(ipam, lambda: len(ipam.addresses()) == 16 and not ipam.service.pool("n1").open_intents)
    assert len(held(ipam)) == 2

    def answered() -> bool:
        """The node has no pods any more, and fences what it is asked to give back."""
        leaving = {each for each, state in ipam.states().items() if state in ("marked", "ready", "releasing")}
        ipam.report(ready=frozenset(leaving))
        return len(alibaba.do(lambda cloud: cloud.interfaces.current)) == 2

    until(ipam, answered)
    until(ipam, lambda: not ipam.service.pool("n1").open_intents)
    assert len(held(ipam)) == 1
    assert ipam.service.pool("n1").needed == 0
    assert not ipam.service.dead_letters()


def test_an_elastic_ip_is_bound_to_the_instance_of_the_nodes_first_interface(
    ipam: IpamSite, alibaba: Running, alibaba_cloud: Site
) -> None:
    public_id = alibaba_cloud.add_public_address({"pool": "egress"})
    spec = ipam.node(type_=alibaba_cloud.instance_type, first_interface_index=1, public_address_tags={"pool": "egress"})

    def bound() -> str:
        return alibaba.do(lambda cloud: cloud.eips.current[public_id].target_id)

    until(ipam, lambda: bound() == spec.instance_id)
    (told,) = ipam.cloud.public_addresses(tags={"pool": "egress"})
    assert told.interface_id == ipam.cloud.instance(spec.instance_id).interfaces[0].id
