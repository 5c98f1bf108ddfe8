"""What some clouds can do and others refuse: prefixes, IPv6, changes of live interfaces, public addresses, interfaces
that are created to go with their instance.

A cloud without a capability refuses its calls, and the rest is not asked of it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any, Protocol

import pytest

from ipam.errors import CloudError, Conflict, Gone, LimitReached, Rejected, SubnetExhausted
from ipam.model import CloudInterface
from ipam.ports import CloudProvider


class Site(Protocol):
    provider: CloudProvider
    subnet_id: str
    small_subnet_id: str
    group_id: str
    other_group_id: str
    instance_type: str
    plain_type: str

    def launch(self, type_: str, /) -> str: ...
    def terminate(self, instance_id: str, /) -> None: ...
    def unknown(self, kind: str, /) -> str: ...

    takes_single_public_addresses: bool

    def add_public_address(self, tags: dict[str, str], /) -> str: ...


def needs(site: Site, *capabilities: str) -> None:
    for name in capabilities:
        if not getattr(site.provider.capabilities, name):
            pytest.skip(f"this cloud has no {name}")


def create(site: Site, **more: Any) -> CloudInterface:
    if not site.provider.capabilities.creates_interfaces:
        pytest.skip("this cloud's interfaces come from elsewhere")
    asked: dict[str, Any] = {
        "subnet_id": site.subnet_id, "security_group_ids": [site.group_id], "secondary_count": 0,
        "tags": {"plimsoll:cluster": "test"}, "description": "made by a test", "client_token": "",
    }  # fmt: skip
    return site.provider.create_interface(**{**asked, **more})


def attached(site: Site, type_: str = "", **more: Any) -> CloudInterface:
    if not site.provider.capabilities.creates_interfaces and not more:
        return site.provider.instance(site.launch(type_ or site.instance_type)).interfaces[0]
    made = create(site, **more)
    return site.provider.attach_interface(
        interface_id=made.id, instance_id=site.launch(type_ or site.instance_type), device_index=1, network_card=0
    )


def seen(site: Site, interface: CloudInterface) -> CloudInterface:
    instance = site.provider.instance(interface.instance_id)
    return next(each for each in instance.interfaces if each.id == interface.id)


def detached(site: Site) -> list[str]:
    return [each.id for _, page in site.provider.inventory() for each in page]


def free(site: Site, subnet_id: str) -> int:
    return next(each.free for each in site.provider.subnets() if each.id == subnet_id)


class TestTokens:
    def test_assigning_takes_a_token_and_needs_none(self, strict_cloud: Site) -> None:
        made = attached(strict_cloud)
        first = strict_cloud.provider.assign_addresses(interface_id=made.id, count=1, client_token="intent-1-1")
        assert len(first) == 1
        if strict_cloud.provider.capabilities.assign_tokens:
            again = strict_cloud.provider.assign_addresses(interface_id=made.id, count=1, client_token="intent-1-1")
            assert list(again) == list(first)
            assert list(seen(strict_cloud, made).addresses) == list(first)


class TestPrefixes:
    def test_they_come_and_go_and_their_members_are_no_addresses(self, strict_cloud: Site) -> None:
        needs(strict_cloud, "prefixes")
        provider, made = strict_cloud.provider, attached(strict_cloud)
        before = free(strict_cloud, strict_cloud.subnet_id)
        got = provider.assign_prefixes(interface_id=made.id, count=2)
        length, size = provider.capabilities.prefix_length, provider.capabilities.prefix_size
        assert [ipaddress.ip_network(each).prefixlen for each in got] == [length, length]
        held = seen(strict_cloud, made)
        assert (set(held.prefixes), held.addresses) == (set(got), ())
        assert len(held.all_addresses) == 2 * size
        assert free(strict_cloud, strict_cloud.subnet_id) == before - 2 * size
        provider.unassign_prefixes(interface_id=made.id, prefixes=[got[0]])
        assert seen(strict_cloud, made).prefixes == (got[1],)
        assert free(strict_cloud, strict_cloud.subnet_id) == before - size

    def test_an_interface_may_be_created_with_them(self, strict_cloud: Site) -> None:
        needs(strict_cloud, "prefixes")
        made = create(strict_cloud, prefix_count=2)
        assert (len(made.prefixes), made.addresses) == (2, ())
        before = free(strict_cloud, strict_cloud.subnet_id)
        strict_cloud.provider.delete_interface(interface_id=made.id)
        size = strict_cloud.provider.capabilities.prefix_size
        assert free(strict_cloud, strict_cloud.subnet_id) == before + 1 + 2 * size

    def test_addresses_and_prefixes_share_the_slots_of_an_interface(self, strict_cloud: Site) -> None:
        needs(strict_cloud, "prefixes")
        provider, made = strict_cloud.provider, attached(strict_cloud)
        slots = provider.limits(strict_cloud.instance_type).ipv4_per_interface - 1
        provider.assign_addresses(interface_id=made.id, count=slots - 2)
        provider.assign_prefixes(interface_id=made.id, count=2)
        with pytest.raises(LimitReached):
            provider.assign_prefixes(interface_id=made.id, count=1)
        with pytest.raises(LimitReached):
            provider.assign_addresses(interface_id=made.id, count=1)

    def test_a_subnet_without_a_whole_block_says_so_and_gives_single_addresses(self, strict_cloud: Site) -> None:
        needs(strict_cloud, "prefixes")
        made = attached(strict_cloud, subnet_id=strict_cloud.small_subnet_id)
        with pytest.raises(SubnetExhausted) as refused:
            strict_cloud.provider.assign_prefixes(interface_id=made.id, count=1)
        assert refused.value.prefixes
        assert len(strict_cloud.provider.assign_addresses(interface_id=made.id, count=2)) == 2
        with pytest.raises(SubnetExhausted) as refused:
            create(strict_cloud, subnet_id=strict_cloud.small_subnet_id, prefix_count=1)
        assert refused.value.prefixes
        assert refused.value.subnet_id == strict_cloud.small_subnet_id

    def test_a_type_that_takes_none_refuses_them(self, strict_cloud: Site) -> None:
        needs(strict_cloud, "prefixes")
        if not strict_cloud.plain_type:
            pytest.skip("every type of this cloud takes them")
        assert not strict_cloud.provider.limits(strict_cloud.plain_type).prefixes
        made = attached(strict_cloud, strict_cloud.plain_type)
        with pytest.raises(CloudError):
            strict_cloud.provider.assign_prefixes(interface_id=made.id, count=1)

    def test_one_that_is_not_assigned_cannot_be_unassigned_and_nothing_goes(self, strict_cloud: Site) -> None:
        needs(strict_cloud, "prefixes")
        made = attached(strict_cloud, prefix_count=1)
        with pytest.raises(Rejected):
            strict_cloud.provider.unassign_prefixes(interface_id=made.id, prefixes=[*made.prefixes, "10.0.4.0/28"])
        assert seen(strict_cloud, made).prefixes == made.prefixes


class TestIpv6:
    def test_addresses_come_and_go(self, strict_cloud: Site) -> None:
        needs(strict_cloud, "ipv6")
        provider, made = strict_cloud.provider, attached(strict_cloud)
        subnet = next(each for each in provider.subnets() if each.id == strict_cloud.subnet_id)
        got = provider.assign_ipv6(interface_id=made.id, count=2)
        network = ipaddress.ip_network(subnet.ipv6_cidr)
        assert len({each for each in got if ipaddress.ip_address(each) in network}) == 2
        assert set(seen(strict_cloud, made).ipv6_addresses) == set(got)
        provider.unassign_ipv6(interface_id=made.id, addresses=[got[0]])
        assert seen(strict_cloud, made).ipv6_addresses == (got[1],)

    def test_a_type_holds_so_many(self, strict_cloud: Site) -> None:
        needs(strict_cloud, "ipv6")
        made = attached(strict_cloud)
        most = strict_cloud.provider.limits(strict_cloud.instance_type).ipv6_per_interface
        with pytest.raises(LimitReached):
            strict_cloud.provider.assign_ipv6(interface_id=made.id, count=most + 1)

    def test_prefixes_come_with_the_interface_or_later_and_go(self, strict_cloud: Site) -> None:
        needs(strict_cloud, "ipv6_prefixes")
        provider, made = strict_cloud.provider, attached(strict_cloud, ipv6_prefix_count=1)
        assert [ipaddress.ip_network(each).prefixlen for each in made.ipv6_prefixes] == [80]
        (more,) = provider.assign_ipv6_prefixes(interface_id=made.id, count=1)
        assert set(seen(strict_cloud, made).ipv6_prefixes) == {*made.ipv6_prefixes, more}
        provider.unassign_ipv6_prefixes(interface_id=made.id, prefixes=made.ipv6_prefixes)
        assert seen(strict_cloud, made).ipv6_prefixes == (more,)


class TestLiveInterfaces:
    def test_security_groups_are_replaced(self, strict_cloud: Site) -> None:
        needs(strict_cloud, "changes_interfaces")
        made = attached(strict_cloud)
        groups = [strict_cloud.other_group_id]
        strict_cloud.provider.set_security_groups(interface_id=made.id, security_group_ids=groups)
        assert seen(strict_cloud, made).security_group_ids == tuple(groups)

    def test_a_group_that_nobody_has_is_gone(self, strict_cloud: Site) -> None:
        needs(strict_cloud, "changes_interfaces")
        made = attached(strict_cloud)
        with pytest.raises(Gone):
            strict_cloud.provider.set_security_groups(
                interface_id=made.id, security_group_ids=[strict_cloud.unknown("sg")]
            )

    def test_tags_are_added_and_changed_and_others_stay(self, any_cloud: Site) -> None:
        needs(any_cloud, "changes_interfaces")
        made = attached(any_cloud, tags={"kept": "yes", "changed": "no"})
        any_cloud.provider.set_tags(interface_id=made.id, tags={"changed": "yes", "new": "yes"})
        assert seen(any_cloud, made).tags == {"kept": "yes", "changed": "yes", "new": "yes"}


class TestPublicAddresses:
    def test_they_are_listed_by_tags(self, strict_cloud: Site) -> None:
        needs(strict_cloud, "public_addresses")
        id = strict_cloud.add_public_address({"pool": "egress"})
        strict_cloud.add_public_address({"pool": "else"})
        (found,) = strict_cloud.provider.public_addresses(tags={"pool": "egress"})
        assert (found.id, found.interface_id) == (id, "")

    def test_one_leads_to_one_interface_and_is_never_taken_away(self, strict_cloud: Site) -> None:
        needs(
            strict_cloud,
            "public_addresses",
        )
        if not strict_cloud.takes_single_public_addresses:
            pytest.skip("its interfaces take addresses of prefixes only")
        provider, id = strict_cloud.provider, strict_cloud.add_public_address({"pool": "egress"})
        mine, theirs = attached(strict_cloud), attached(strict_cloud)
        for _ in range(2):
            provider.associate_public_address(public_address_id=id, interface_id=mine.id)
        with pytest.raises(Conflict):
            provider.associate_public_address(public_address_id=id, interface_id=theirs.id)
        assert seen(strict_cloud, mine).public_address_id == id
        assert seen(strict_cloud, theirs).public_address_id == ""
        assert provider.public_addresses(tags={"pool": "egress"})[0].interface_id == mine.id


class TestProtectedOnCreate:
    def test_it_goes_with_its_instance_without_another_call(self, strict_cloud: Site) -> None:
        needs(strict_cloud, "protects_on_create")
        provider, instance_id = strict_cloud.provider, strict_cloud.launch(strict_cloud.instance_type)
        goes, stays = create(strict_cloud, delete_on_termination=True), create(strict_cloud)
        assert (goes.delete_on_termination, stays.delete_on_termination) == (True, False)
        for index, each in enumerate((goes, stays), start=1):
            told = provider.attach_interface(
                interface_id=each.id, instance_id=instance_id, device_index=index, network_card=0
            )
            assert told.delete_on_termination == each.delete_on_termination
        strict_cloud.terminate(instance_id)
        assert detached(strict_cloud) == [stays.id]

    def test_attached_to_nothing_it_stays_until_it_is_deleted(self, strict_cloud: Site) -> None:
        needs(strict_cloud, "protects_on_create")
        provider = strict_cloud.provider
        never = create(strict_cloud, delete_on_termination=True)
        left = attached(strict_cloud, delete_on_termination=True)
        provider.detach_interface(attachment_id=left.attachment_id, interface_id=left.id)
        strict_cloud.terminate(left.instance_id)
        assert sorted(detached(strict_cloud)) == sorted([never.id, left.id])
        for each in (never, left):
            provider.delete_interface(interface_id=each.id)
        assert detached(strict_cloud) == []

    def test_a_token_brings_it_as_it_was_created(self, strict_cloud: Site) -> None:
        needs(strict_cloud, "protects_on_create")
        asked = {"delete_on_termination": True, "client_token": "intent-9-step-1"}
        first, again = create(strict_cloud, **asked), create(strict_cloud, **asked)
        assert (again.id, again.delete_on_termination) == (first.id, True)


CALLS: dict[str, Callable[[CloudProvider, CloudInterface], object]] = {
    "prefixes": lambda provider, on: provider.assign_prefixes(interface_id=on.id, count=1),
    "ipv6": lambda provider, on: provider.assign_ipv6(interface_id=on.id, count=1),
    "ipv6_prefixes": lambda provider, on: provider.assign_ipv6_prefixes(interface_id=on.id, count=1),
    "changes_interfaces": lambda provider, on: provider.set_tags(interface_id=on.id, tags={"a": "b"}),
    "public_addresses": lambda provider, on: provider.public_addresses(tags={"a": "b"}),
    "protects_on_create": lambda provider, on: provider.create_interface(
        subnet_id=on.subnet_id, security_group_ids=on.security_group_ids, secondary_count=0, tags={}, description="",
        client_token="", delete_on_termination=True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("capability", CALLS)
def test_a_cloud_without_the_capability_refuses(strict_cloud: Site, capability: str) -> None:
    if getattr(strict_cloud.provider.capabilities, capability):
        pytest.skip("this cloud has it")
    instance = strict_cloud.provider.instance(strict_cloud.launch(strict_cloud.instance_type))
    with pytest.raises(Rejected):
        CALLS[capability](strict_cloud.provider, instance.interfaces[0])
