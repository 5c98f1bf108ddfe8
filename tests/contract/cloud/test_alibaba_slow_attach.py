"""A whole IPAM on the fake Alibaba Cloud while interfaces take their time: workers wait for none of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Protocol

import pytest

from ipam.model import Instance, Retry
from ipam.ports import CloudProvider
from ipam.providers.alibaba import AlibabaProvider
from ipam.testing import IpamSite
from ipam.testing.site import CONFIG
from lab.fake_alibaba.testing import Running

SLOW_S = 0.4


class Site(Protocol):
    provider: CloudProvider
    instance_type: str

    def launch(self, type_: str, /) -> str: ...


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


def test_a_node_gets_its_addresses_through_attempts_that_do_not_wait(
    ipam: IpamSite, alibaba: Running, alibaba_cloud: Site
) -> None:
    marks = replace(CONFIG.watermarks, pre_allocate=12)
    ipam.node(type_=alibaba_cloud.instance_type, watermarks=marks, first_interface_index=1)
    begun = time.monotonic()
    ipam.work()
    assert time.monotonic() - begun < SLOW_S, "the worker is free again before the interface is there"
    assert isinstance(ipam.outcomes[-1], Retry)
    until(ipam, lambda: len(ipam.addresses()) == 12 and not ipam.service.pool("n1").open_intents)
    assert len(alibaba.do(lambda cloud: cloud.interfaces.current)) == 3, "no attempt has made another interface"
    assert not ipam.service.dead_letters()
    interfaces = ipam.cloud.instance(ipam.service.pool("n1").spec.instance_id).interfaces
    assert [each.status for each in interfaces] == ["in-use"] * 3
    assert not interfaces[0].addresses, "the first interface is the host's own"
    assert all(each.delete_on_termination for each in interfaces)
