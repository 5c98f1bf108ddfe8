"""One suite for CloudProvider."""

from __future__ import annotations

import ipaddress
from typing import Any, Protocol

import pytest

from ipam.errors import CloudError, Conflict, Gone, LimitReached, Rejected, SubnetExhausted
from ipam.model import CloudInterface, Instance
from ipam.ports import CloudProvider


class Site(Protocol):
    provider: CloudProvider
    subnet_id: str
    small_subnet_id: str
    group_id: str
    instance_type: str
    unknown_type: str
    unknown_instance_code: str
    small_free: int
    slots: int
    slots_each: int
    numbers_devices: bool

    def launch(self, type_: str, /) -> str: ...
    def launch_in(self, subnet_id: str, /) -> str: ...
    def terminate(self, instance_id: str, /) -> None: ...
    def unknown(self, kind: str, /) -> str: ...


def create(site: Site, **more: Any) -> CloudInterface:
    asked: dict[str, Any] = {
        "subnet_id": site.subnet_id,
        "security_group_ids": [site.group_id],
        "secondary_count": 0,
        "tags": {"plimsoll:cluster": "test"},
        "description": "made by a test",
        "client_token": "",
    }
    return site.provider.create_interface(**{**asked, **more})


def attached(site: Site, instance_id: str, index: int = 1, **more: Any) -> CloudInterface:
    made = create(site, **more)
    return site.provider.attach_interface(
        interface_id=made.id, instance_id=instance_id, device_index=index, network_card=0
    )


def held(site: Site, subnet_id: str = "", *, addresses: int = 0) -> tuple[str, str]:
    """Ids of an instance and of an interface of it that holds so many addresses beside its primary one; the first
    interface where others cannot be created."""
    subnet_id = subnet_id or site.subnet_id
    if site.provider.capabilities.creates_interfaces:
        instance_id = site.launch(site.instance_type)
        made = attached(site, instance_id, subnet_id=subnet_id, secondary_count=addresses)
        return instance_id, made.id
    instance_id = site.launch_in(subnet_id)
    made = site.provider.instance(instance_id).interfaces[0]
    if addresses:
        site.provider.assign_addresses(interface_id=made.id, count=addresses, client_token="at-first")
    return instance_id, made.id


def addresses_of(site: Site, instance_id: str, interface_id: str) -> tuple[str, ...]:
    interfaces = site.provider.instance(instance_id).interfaces
    return next(each.addresses for each in interfaces if each.id == interface_id)


class CreatesInterfaces:
    @pytest.fixture(autouse=True)
    def _creates(self, request: pytest.FixtureRequest) -> None:
        name = "any_cloud" if "any_cloud" in request.fixturenames else "strict_cloud"
        if not request.getfixturevalue(name).provider.capabilities.creates_interfaces:
            pytest.skip("interfaces of this cloud come with the instance")


def free(site: Site, subnet_id: str) -> int:
    return next(each.free for each in site.provider.subnets() if each.id == subnet_id)


class TestCreate(CreatesInterfaces):
    def test_a_new_interface_is_attached_to_nothing_and_has_what_was_asked(self, any_cloud: Site) -> None:
        made = create(any_cloud, secondary_count=3)
        assert (made.instance_id, made.attachment_id) == ("", "")
        assert made.subnet_id == any_cloud.subnet_id
        assert made.security_group_ids == (any_cloud.group_id,)
        assert made.tags["plimsoll:cluster"] == "test"
        assert len({made.primary_address, *made.addresses}) == 4
        network = ipaddress.ip_network("10.0.0.0/20")
        assert all(ipaddress.ip_address(each) in network for each in (made.primary_address, *made.addresses))
        assert len(made.mac.split(":")) == 6

    def test_a_token_makes_one_interface_however_often_it_is_sent(self, strict_cloud: Site) -> None:
        before = free(strict_cloud, strict_cloud.subnet_id)
        first = create(strict_cloud, client_token="intent-7-step-1", secondary_count=1)
        again = create(strict_cloud, client_token="intent-7-step-1", secondary_count=1)
        other = create(strict_cloud, client_token="intent-7-step-2", secondary_count=1)
        assert (again.id, again.addresses) == (first.id, first.addresses)
        assert other.id != first.id
        assert free(strict_cloud, strict_cloud.subnet_id) == before - 4

    def test_a_subnet_that_nobody_has_is_gone(self, any_cloud: Site) -> None:
        with pytest.raises(Gone):
            create(any_cloud, subnet_id=any_cloud.unknown("subnet"))

    def test_a_security_group_that_nobody_has_is_gone(self, strict_cloud: Site) -> None:
        with pytest.raises(Gone):
            create(strict_cloud, security_group_ids=[strict_cloud.unknown("sg")])

    def test_the_last_address_of_a_subnet_can_be_had_and_none_after_it(self, strict_cloud: Site) -> None:
        small, room = strict_cloud.small_subnet_id, strict_cloud.small_free
        assert free(strict_cloud, small) == room
        create(strict_cloud, subnet_id=small, secondary_count=room - 2)
        with pytest.raises(SubnetExhausted) as refused:
            create(strict_cloud, subnet_id=small, secondary_count=1)
        assert refused.value.subnet_id == small
        assert free(strict_cloud, small) == 1  # what failed took nothing
        create(strict_cloud, subnet_id=small)
        assert free(strict_cloud, small) == 0


class TestAttach(CreatesInterfaces):
    def test_an_interface_is_listed_with_its_instance_behind_the_first(self, any_cloud: Site) -> None:
        instance_id = any_cloud.launch(any_cloud.instance_type)
        made = attached(any_cloud, instance_id, secondary_count=2)
        assert (made.status, made.instance_id, made.device_index) == ("in-use", instance_id, 1)
        assert made.attachment_id
        instance = any_cloud.provider.instance(instance_id)
        assert [each.device_index for each in instance.interfaces] == [0, 1]
        assert instance.interfaces[1].id == made.id
        assert set(instance.interfaces[1].addresses) == set(made.addresses)
        assert (instance.type, instance.zone) == (any_cloud.instance_type, made.zone)

    def test_a_device_index_is_taken_once(self, strict_cloud: Site) -> None:
        if not strict_cloud.numbers_devices:
            pytest.skip("this cloud numbers no devices")
        instance_id = strict_cloud.launch(strict_cloud.instance_type)
        attached(strict_cloud, instance_id, 1)
        with pytest.raises(Conflict):
            attached(strict_cloud, instance_id, 1)

    def test_an_attached_interface_is_attached_once(self, strict_cloud: Site) -> None:
        made = attached(strict_cloud, strict_cloud.launch(strict_cloud.instance_type))
        other = strict_cloud.launch(strict_cloud.instance_type)
        with pytest.raises(Conflict):
            strict_cloud.provider.attach_interface(
                interface_id=made.id, instance_id=other, device_index=1, network_card=0
            )

    def test_a_type_has_so_many_slots_and_no_more(self, strict_cloud: Site) -> None:
        instance_id = strict_cloud.launch(strict_cloud.instance_type)  # 3 interfaces
        attached(strict_cloud, instance_id, 1)
        attached(strict_cloud, instance_id, 2)
        with pytest.raises(LimitReached):
            attached(strict_cloud, instance_id, 3)

    def test_an_interface_with_more_addresses_than_the_type_holds_stays_off(self, strict_cloud: Site) -> None:
        with pytest.raises(LimitReached):
            attached(strict_cloud, strict_cloud.launch(strict_cloud.instance_type), secondary_count=10)

    @pytest.mark.parametrize("missing", ["interface", "instance"])
    def test_what_nobody_has_is_gone(self, any_cloud: Site, missing: str) -> None:
        interface_id = any_cloud.unknown("eni") if missing == "interface" else create(any_cloud).id
        instance_id = any_cloud.unknown("i") if missing == "instance" else any_cloud.launch(any_cloud.instance_type)
        with pytest.raises(Gone):
            any_cloud.provider.attach_interface(
                interface_id=interface_id, instance_id=instance_id, device_index=1, network_card=0
            )


class TestAddresses:
    def test_addresses_come_and_go(self, any_cloud: Site) -> None:
        instance_id, interface_id = held(any_cloud)
        primary = {each.primary_address for each in any_cloud.provider.instance(instance_id).interfaces}
        got = any_cloud.provider.assign_addresses(interface_id=interface_id, count=3)
        now = addresses_of(any_cloud, instance_id, interface_id)
        assert len(set(now)) == 3
        assert set(now) == set(got) - primary  # moto names the primary one, too
        any_cloud.provider.unassign_addresses(interface_id=interface_id, addresses=now[:2])
        assert set(addresses_of(any_cloud, instance_id, interface_id)) == set(now[2:])

    def test_an_interface_is_filled_to_its_limit_and_not_beyond(self, strict_cloud: Site) -> None:
        _, interface_id = held(strict_cloud)
        provider, most = strict_cloud.provider, strict_cloud.slots_each - 1
        chunk = provider.capabilities.max_addresses_per_call
        got: list[str] = []
        while len(got) < most - 1:
            count = min(chunk, most - 1 - len(got))
            got += provider.assign_addresses(interface_id=interface_id, count=count)
        assert len(set(got)) == most - 1
        before = free(strict_cloud, strict_cloud.subnet_id)
        assert len(provider.assign_addresses(interface_id=interface_id, count=1)) == 1
        with pytest.raises(LimitReached):
            provider.assign_addresses(interface_id=interface_id, count=1)
        assert free(strict_cloud, strict_cloud.subnet_id) == before - 1

    def test_an_exhausted_subnet_gives_none_until_one_comes_back(self, strict_cloud: Site) -> None:
        small, provider = strict_cloud.small_subnet_id, strict_cloud.provider
        instance_id, first = held(strict_cloud, small, addresses=strict_cloud.small_free - 3)
        _, second = held(strict_cloud, small)
        provider.assign_addresses(interface_id=second, count=1)
        with pytest.raises(SubnetExhausted) as refused:
            provider.assign_addresses(interface_id=second, count=1)
        if not provider.capabilities.creates_interfaces:
            assert refused.value.subnet_id == small
        leaving = addresses_of(strict_cloud, instance_id, first)[:1]
        provider.unassign_addresses(interface_id=first, addresses=leaving)
        assert list(provider.assign_addresses(interface_id=second, count=1)) == list(leaving)

    def test_what_is_not_assigned_cannot_be_unassigned_and_nothing_goes(self, strict_cloud: Site) -> None:
        instance_id, interface_id = held(strict_cloud, addresses=2)
        now = addresses_of(strict_cloud, instance_id, interface_id)
        with pytest.raises(Rejected):
            strict_cloud.provider.unassign_addresses(interface_id=interface_id, addresses=[now[0], "10.0.15.250"])
        assert addresses_of(strict_cloud, instance_id, interface_id) == now

    def test_an_interface_that_nobody_has_is_gone(self, any_cloud: Site) -> None:
        with pytest.raises(Gone):
            any_cloud.provider.assign_addresses(interface_id=any_cloud.unknown("eni"), count=1)


class TestTheEnd(CreatesInterfaces):
    def test_detached_then_deleted_it_is_gone(self, any_cloud: Site) -> None:
        instance_id = any_cloud.launch(any_cloud.instance_type)
        made = attached(any_cloud, instance_id)
        any_cloud.provider.detach_interface(attachment_id=made.attachment_id, interface_id=made.id)
        assert len(any_cloud.provider.instance(instance_id).interfaces) == 1
        any_cloud.provider.delete_interface(interface_id=made.id)
        with pytest.raises(Gone):
            any_cloud.provider.delete_interface(interface_id=made.id)

    def test_deleting_gives_every_address_back(self, strict_cloud: Site) -> None:
        before = free(strict_cloud, strict_cloud.subnet_id)
        made = create(strict_cloud, secondary_count=5)
        assert free(strict_cloud, strict_cloud.subnet_id) == before - 6
        strict_cloud.provider.delete_interface(interface_id=made.id)
        assert free(strict_cloud, strict_cloud.subnet_id) == before

    def test_an_attached_interface_cannot_be_deleted(self, strict_cloud: Site) -> None:
        made = attached(strict_cloud, strict_cloud.launch(strict_cloud.instance_type))
        with pytest.raises(Conflict):
            strict_cloud.provider.delete_interface(interface_id=made.id)

    def test_an_attachment_ends_once(self, strict_cloud: Site) -> None:
        made = attached(strict_cloud, strict_cloud.launch(strict_cloud.instance_type))
        strict_cloud.provider.detach_interface(attachment_id=made.attachment_id, interface_id=made.id)
        with pytest.raises(Gone):
            strict_cloud.provider.detach_interface(attachment_id=made.attachment_id, interface_id=made.id)

    def test_a_protected_interface_goes_with_its_instance_and_another_stays(self, strict_cloud: Site) -> None:
        instance_id = strict_cloud.launch(strict_cloud.instance_type)
        goes, stays = attached(strict_cloud, instance_id, 1), attached(strict_cloud, instance_id, 2)
        strict_cloud.provider.protect_interface(interface_id=goes.id, attachment_id=goes.attachment_id)
        told = {each.id: each.delete_on_termination for each in strict_cloud.provider.instance(instance_id).interfaces}
        assert (told[goes.id], told[stays.id]) == (True, False)
        strict_cloud.terminate(instance_id)
        with pytest.raises(Gone):
            strict_cloud.provider.instance(instance_id)
        detached = [each.id for _, page in strict_cloud.provider.inventory() for each in page]
        assert detached == [stays.id]


class TestListings:
    def test_the_inventory_has_instances_with_interfaces_and_what_is_attached_to_nothing(self, any_cloud: Site) -> None:
        if not any_cloud.provider.capabilities.creates_interfaces:
            pytest.skip("interfaces of this cloud come with the instance")
        first, second = any_cloud.launch(any_cloud.instance_type), any_cloud.launch(any_cloud.instance_type)
        made, lone = attached(any_cloud, second), create(any_cloud)
        instances: dict[str, Instance] = {}
        detached: list[CloudInterface] = []
        for page, loose in any_cloud.provider.inventory():
            instances |= {each.id: each for each in page}
            detached += loose
        assert instances.keys() == {first, second}
        assert [each.id for each in instances[second].interfaces][1:] == [made.id]
        assert len(instances[first].interfaces) == 1
        assert [each.id for each in detached] == [lone.id]

    def test_the_inventory_has_each_instance_once_with_its_addresses(self, any_cloud: Site) -> None:
        instance_id, interface_id = held(any_cloud, addresses=2)
        other = any_cloud.launch(any_cloud.instance_type)
        found = [each for page, _ in any_cloud.provider.inventory() for each in page]
        assert sorted(each.id for each in found) == sorted([instance_id, other])
        instance = next(each for each in found if each.id == instance_id)
        assert instance == any_cloud.provider.instance(instance_id)
        assert len(next(each.addresses for each in instance.interfaces if each.id == interface_id)) == 2

    def test_subnets_tell_zone_network_and_what_is_free(self, strict_cloud: Site) -> None:
        subnets = {each.id: each for each in strict_cloud.provider.subnets()}
        small = subnets[strict_cloud.small_subnet_id]
        assert (small.cidr, small.vpc_cidrs) == ("10.0.16.0/28", ("10.0.0.0/16",))
        assert small.tags in ({"size": "small"}, {})  # Azure's have none
        assert small.zone == subnets[strict_cloud.subnet_id].zone

    def test_security_groups_name_their_network(self, any_cloud: Site) -> None:
        vpc_id = next(each.vpc_id for each in any_cloud.provider.subnets() if each.id == any_cloud.subnet_id)
        group = next(each for each in any_cloud.provider.security_groups() if each.id == any_cloud.group_id)
        assert group.vpc_id in (vpc_id, "")  # Azure's belong to none

    def test_limits_of_a_type(self, any_cloud: Site) -> None:
        type_ = any_cloud.instance_type
        limits = any_cloud.provider.limits(type_)
        assert (limits.instance_type, limits.interfaces) == (type_, any_cloud.slots)
        assert limits.ipv4_per_interface == any_cloud.slots_each

    def test_an_unknown_type_is_rejected_with_a_remedy(self, any_cloud: Site) -> None:
        with pytest.raises(Rejected) as refused:
            any_cloud.provider.limits(any_cloud.unknown_type)
        assert any_cloud.unknown_type in refused.value.message

    def test_an_instance_that_nobody_has_is_gone(self, any_cloud: Site) -> None:
        with pytest.raises(Gone) as refused:
            any_cloud.provider.instance(any_cloud.unknown("i"))
        assert isinstance(refused.value, CloudError)
        assert refused.value.code == any_cloud.unknown_instance_code
