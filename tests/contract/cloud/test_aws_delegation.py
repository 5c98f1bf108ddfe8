"""A whole IPAM on the fake EC2, over its protocol: prefixes, IPv6, network cards, Elastic IPs, drift."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Protocol

import pytest

from ipam.model import CloudInterface, Instance, Watermarks
from ipam.ports import CloudProvider
from ipam.testing import IpamSite
from lab.fake_ec2.cloud import Cloud
from lab.fake_ec2.testing import Running


class Site(Protocol):
    provider: CloudProvider
    subnet_id: str
    other_group_id: str

    def launch(self, type_: str, /) -> str: ...
    def add_public_address(self, tags: dict[str, str], /) -> str: ...


class Ec2:
    """The fake EC2's provider, as IpamSite wants its cloud."""

    clock: Any = None

    def __init__(self, site: Site) -> None:
        self._site = site
        self.capabilities = site.provider.capabilities

    def launch(self, type_: str, *, subnet_id: str = "") -> Instance:
        return self._site.provider.instance(self._site.launch(type_))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._site.provider, name)


@pytest.fixture
def ipam(ec2_cloud: Site) -> Iterator[IpamSite]:
    site = IpamSite(cloud=Ec2(ec2_cloud))  # type: ignore[arg-type]
    yield site
    site.close()


def interfaces(ipam: IpamSite) -> list[CloudInterface]:
    return list(ipam.cloud.instance(ipam.service.pool("n1").spec.instance_id).interfaces)


def test_a_node_has_prefixes_ipv6_and_one_elastic_ip(ipam: IpamSite, ec2_cloud: Site) -> None:
    public = ec2_cloud.add_public_address({"pool": "egress"})
    ipam.node(prefix_delegation=True, ipv6=True, public_address_tags={"pool": "egress"})
    ipam.advance(30)
    (first,) = interfaces(ipam)
    assert (len(first.prefixes), len(first.ipv6_prefixes), first.public_address_id) == (1, 1, public)
    told = next(iter(ipam.told["n1"].values()))
    assert len(told.addresses) == 16
    assert told.ipv6_gateway.endswith("::1")


def test_a_node_of_several_cards_spreads_its_interfaces(ipam: IpamSite) -> None:
    ipam.node(type_="p4d.24xlarge", first_interface_index=1, watermarks=Watermarks(pre_allocate=49 * 4))
    ipam.advance(30)
    made = [(each.network_card, each.device_index) for each in interfaces(ipam) if each.tags]
    assert sorted(made) == [(0, 1), (1, 1), (2, 1), (3, 1)]
    assert len(ipam.addresses()) == 49 * 4


def test_drift_of_groups_and_tags_is_repaired(ipam: IpamSite, ec2: Running, ec2_cloud: Site) -> None:
    ipam.node(watermarks=Watermarks(pre_allocate=12))
    ipam.advance(5)
    ours = next(each for each in interfaces(ipam) if each.tags)

    def drift(cloud: Cloud) -> None:
        record = cloud.interfaces.current[ours.id]
        tags = {key: value for key, value in record.tags.items() if key != "plimsoll:node"}
        cloud.put_interface(dataclasses.replace(record, group_ids=(ec2_cloud.other_group_id,), tags=tags))

    ec2.do(drift)
    ipam.run(ipam.service.resync())
    ipam.advance(10)
    repaired = next(each for each in interfaces(ipam) if each.id == ours.id)
    assert (repaired.security_group_ids, repaired.tags) == (ours.security_group_ids, ours.tags)


def test_a_subnet_in_pieces_gives_single_addresses_and_prefixes_again_when_it_is_whole(
    ipam: IpamSite, ec2: Running, ec2_cloud: Site
) -> None:
    ipam.node(prefix_delegation=True)

    def spoil(cloud: Cloud) -> list[str]:
        """Somebody else has an address in every block of every subnet."""
        space = cloud.spaces[ec2_cloud.subnet_id]
        return [space.claim(f"10.0.{block // 16}.{block % 16 * 16 + 9}") for block in range(256)]

    def clean(cloud: Cloud) -> None:
        for address in taken:
            cloud.spaces[ec2_cloud.subnet_id].release(address)

    taken = ec2.do(spoil)
    ipam.advance(30)
    assert [(len(each.addresses), each.prefixes) for each in interfaces(ipam)] == [(8, ())]
    ec2.do(clean)
    ipam.advance(310)
    ipam.report(in_use=frozenset(ipam.addresses()))
    ipam.advance(40)
    assert sum(len(each.prefixes) for each in interfaces(ipam)) == 1
