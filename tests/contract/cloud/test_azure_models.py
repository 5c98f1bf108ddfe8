"""AzureProvider and what customers have of their own on machines and interfaces: it stays, and is got along with."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Protocol

import pytest

from ipam.errors import CloudError, Gone, InProgress, Rejected, Throttled, Unavailable
from ipam.providers.azure import AzureProvider
from lab.fake_azure.cloud import Cloud
from lab.fake_azure.machines import launch, lone_nic
from lab.fake_azure.records import Nic, PublicPrefix, ScaleSet
from lab.fake_azure.testing import Running

SUBSCRIPTION, LOCATION = "00000000-1111-2222-3333-444444444444", "westeurope"
GROUP = "/subscriptions/s/resourcegroups/lab/providers/microsoft.network/applicationsecuritygroups/pods"


class Site(Protocol):
    provider: AzureProvider
    subnet_id: str
    instance_type: str

    def launch(self, type_: str, /) -> str: ...
    def launch_in(self, subnet_id: str, /) -> str: ...


@pytest.fixture(autouse=True)
def no_faults_left(azure: Running) -> Iterator[None]:
    yield
    azure.set_faults()


def first(site: Site) -> tuple[str, str]:
    instance_id = site.launch_in(site.subnet_id)
    return instance_id, site.provider.instance(instance_id).interfaces[0].id


def change(azure: Running, interface_id: str, **primary: Any) -> None:
    """Changes the primary configuration past the API."""

    def write(cloud: Cloud) -> None:
        nic = cloud.nics.current[interface_id]
        cloud.put_nic(replace(nic, configurations=(replace(nic.primary, **primary), *nic.configurations[1:])))

    azure.do(write)


def nic_of(azure: Running, interface_id: str) -> Nic:
    return azure.do(lambda cloud: cloud.nics.current[interface_id])


def test_addresses_of_live_pods_survive_a_write_that_failed(azure: Running, azure_cloud: Site) -> None:
    """While an interface is in state Failed, so may be configurations that pods have had for long."""
    instance_id, interface_id = first(azure_cloud)
    held = azure_cloud.provider.assign_addresses(interface_id=interface_id, count=3, client_token="pods")

    def fail(cloud: Cloud) -> None:
        nic = cloud.nics.current[interface_id]
        rows = tuple(each if each.primary else replace(each, state="Failed") for each in nic.configurations)
        cloud.put_nic(replace(nic, configurations=rows, state="Failed"))

    azure.do(fail)
    assert azure_cloud.provider.instance(instance_id).interfaces[0].addresses == ()
    azure_cloud.provider.assign_addresses(interface_id=interface_id, count=1, client_token="more")
    now = azure_cloud.provider.instance(instance_id).interfaces[0].addresses
    assert (set(held) <= set(now), len(now)) == (True, 4)
    azure.do(fail)
    azure_cloud.provider.unassign_addresses(interface_id=interface_id, addresses=held[:1])
    left = azure_cloud.provider.instance(instance_id).interfaces[0].addresses
    assert set(left) == set(now) - {held[0]}


def test_what_is_released_while_the_interface_is_being_written_is_looked_at_again(
    azure: Running, azure_cloud: Site
) -> None:
    _, interface_id = first(azure_cloud)
    held = azure_cloud.provider.assign_addresses(interface_id=interface_id, count=2)
    azure.set_faults(attach_s=5)
    with pytest.raises(InProgress):
        azure_cloud.provider.assign_addresses(interface_id=interface_id, count=1)
    with pytest.raises(InProgress):
        azure_cloud.provider.unassign_addresses(interface_id=interface_id, addresses=held)


def test_pods_are_in_the_application_security_groups_of_their_interface(azure: Running, azure_cloud: Site) -> None:
    _, interface_id = first(azure_cloud)
    change(azure, interface_id, app_groups=(GROUP,))
    azure_cloud.provider.assign_addresses(interface_id=interface_id, count=2)
    assert [each.app_groups for each in nic_of(azure, interface_id).configurations] == [(GROUP,)] * 3


def test_a_model_that_names_no_primary_configuration_gets_one_when_others_come(azure: Running) -> None:
    def unsaid(cloud: Cloud) -> str:
        machine = launch(cloud, "Standard_D8s_v5", kind="uniform")
        cloud.put_machine(replace(machine, unsaid=True))
        return machine.id

    provider = AzureProvider(SUBSCRIPTION, LOCATION, endpoint_url=azure.url)
    instance_id = azure.do(unsaid)
    interface = provider.instance(instance_id).interfaces[0]
    assert len(provider.assign_addresses(interface_id=interface.id, count=2)) == 2
    assert provider.instance(instance_id).interfaces[0].primary_address == interface.primary_address


def test_user_data_of_a_scale_set_s_machine_stays(azure: Running) -> None:
    def launched(cloud: Cloud) -> str:
        machine = launch(cloud, "Standard_D8s_v5", kind="uniform")
        cloud.put_machine(replace(machine, user_data="c2VlZA=="))
        return machine.id

    provider = AzureProvider(SUBSCRIPTION, LOCATION, endpoint_url=azure.url)
    instance_id = azure.do(launched)
    provider.assign_addresses(interface_id=provider.instance(instance_id).interfaces[0].id, count=1)
    assert azure.do(lambda cloud: cloud.machines.current[instance_id].user_data) == "c2VlZA=="


def test_an_interface_that_cannot_be_read_stops_no_listing(azure: Running, azure_cloud: Site) -> None:
    """One without an address, of a machine or of nobody, is left out; asked for by itself its machine says why."""
    broken, interface_id = first(azure_cloud)
    sound = azure_cloud.launch(azure_cloud.instance_type)
    loose = azure.do(lambda cloud: lone_nic(cloud, azure_cloud.subnet_id))
    readable = azure.do(lambda cloud: lone_nic(cloud, azure_cloud.subnet_id))
    for each in (interface_id, loose.id):
        change(azure, each, address="")
    pages = list(azure_cloud.provider.inventory())
    assert [each.id for page, _ in pages for each in page] == [sound]
    assert [each.id for _, page in pages for each in page] == [readable.id]
    with pytest.raises(CloudError) as refused:
        azure_cloud.provider.instance(broken)
    assert refused.value.code == "MalformedAnswer"


@pytest.mark.parametrize("kind", ["uniform", "single"])
def test_throttling_of_compute_is_throttling(azure: Running, kind: str) -> None:
    """Compute says OperationNotAllowed with 429, and TooManyRequests among the details."""
    provider = AzureProvider(SUBSCRIPTION, LOCATION, endpoint_url=azure.url)
    instance_id = azure.do(lambda cloud: launch(cloud, "Standard_D8s_v5", kind=kind)).id
    azure.set_faults(throttle={"read": {"rate": 0, "burst": 1}})
    provider.security_groups()
    with pytest.raises(Throttled) as refused:
        provider.instance(instance_id)
    assert (refused.value.code, refused.value.retry_after_s) == ("TooManyRequests", 2.0)


def test_azure_says_when_to_look_again(azure: Running, azure_cloud: Site) -> None:
    _, interface_id = first(azure_cloud)
    azure.set_faults(attach_s=5)
    with pytest.raises(InProgress) as begun:
        azure_cloud.provider.assign_addresses(interface_id=interface_id, count=1)
    assert begun.value.retry_after_s == 1.0  # as the answer's Retry-After says


def test_public_addresses_that_no_interface_can_have_are_not_listed(azure: Running, azure_cloud: Site) -> None:
    """Prefixes of IPv6, and one that is no more when it is taken."""

    def add(cloud: Cloud) -> str:
        prefix_id = cloud.resource_id("Microsoft.Network", "publicIPPrefixes", "six")
        cloud.prefixes.put(PublicPrefix(cloud.new_number(), prefix_id, "six", "2001:db8::/124", {"pool": "public"}))
        return prefix_id

    six = azure.do(add)
    listed = [each.id for each in azure_cloud.provider.public_addresses(tags={"pool": "public"})]
    assert (len(listed), six in listed) == (1, False)
    elsewhere = AzureProvider(SUBSCRIPTION, "northeurope", endpoint_url=azure.url)
    assert elsewhere.public_addresses(tags={}) == []
    instance_id = azure.do(lambda cloud: launch(cloud, "Standard_D8s_v5")).id
    interface_id = azure_cloud.provider.instance(instance_id).interfaces[0].id
    azure.do(lambda cloud: cloud.prefixes.remove(listed[0]))
    with pytest.raises(Gone):
        azure_cloud.provider.associate_public_address(public_address_id=listed[0], interface_id=interface_id)


def test_a_machine_is_not_gone_because_an_interface_of_it_is_not_seen(azure: Running) -> None:
    """Gone would have the node forgotten."""
    provider = AzureProvider(SUBSCRIPTION, LOCATION, endpoint_url=azure.url)
    instance_id = azure.do(lambda cloud: launch(cloud, "Standard_D8s_v5", interfaces=2)).id
    azure.set_faults(fail=[{"action": "NetworkInterfaces.Get", "code": "ResourceNotFound", "skip": 1}])
    with pytest.raises(Unavailable):
        provider.instance(instance_id)
    assert len(provider.instance(instance_id).interfaces) == 2
    azure.do(lambda cloud: cloud.remove_machine(instance_id))
    with pytest.raises(Gone):
        provider.instance(instance_id)


def test_interfaces_of_one_name_in_two_groups_get_an_address_of_the_prefix_each(azure: Running) -> None:
    provider = AzureProvider(SUBSCRIPTION, LOCATION, endpoint_url=azure.url)

    def twins(cloud: Cloud) -> list[str]:
        subnet_id = next(iter(cloud.subnets))
        one, other = lone_nic(cloud, subnet_id), lone_nic(cloud, subnet_id)
        twin_id = cloud.resource_id("Microsoft.Network", "networkInterfaces", one.name, group="other")
        cloud.nics.remove(other.id)
        cloud.put_nic(replace(other, id=twin_id, name=one.name))
        return [one.id, twin_id]

    (prefix,) = provider.public_addresses(tags={"pool": "public"})
    nics = azure.do(twins)
    for each in nics:
        provider.associate_public_address(public_address_id=prefix.id, interface_id=each)
    assert len({nic_of(azure, each).primary.public_address_id for each in nics} - {""}) == 2


def test_scale_sets_of_other_locations_are_not_asked_for(azure: Running) -> None:
    seen: list[str] = []

    def add(cloud: Cloud) -> None:
        for number in range(3):
            scale_set_id = cloud.resource_id("Microsoft.Compute", "virtualMachineScaleSets", f"far-{number}")
            cloud.scale_sets.put(ScaleSet(cloud.new_number(), scale_set_id, f"far-{number}", uniform=True))

    azure.do(add)
    far = AzureProvider(
        SUBSCRIPTION, "northeurope", endpoint_url=azure.url,
        observe=lambda name, outcome, _: seen.append(name),
    )  # fmt: skip
    list(far.inventory())
    assert "ScaleSetMachines.List" not in seen


def test_as_many_connections_are_kept_as_there_are_threads(azure: Running, caplog: pytest.LogCaptureFixture) -> None:
    provider = AzureProvider(SUBSCRIPTION, LOCATION, endpoint_url=azure.url, connections=16)
    azure.set_faults(latency_s=0.05)
    with ThreadPoolExecutor(16) as threads:
        for _ in range(2):
            list(threads.map(lambda _: provider.security_groups(), range(16)))
    assert "pool is full" not in caplog.text


def test_a_machine_that_goes_in_the_middle_of_a_release_takes_no_address_with_it(azure: Running) -> None:
    """The fake's own book-keeping: free counts are exact."""
    provider = AzureProvider(SUBSCRIPTION, LOCATION, endpoint_url=azure.url)
    before = sum(each.free for each in provider.subnets())
    instance_id = azure.do(lambda cloud: launch(cloud, "Standard_D8s_v5")).id
    interface_id = provider.instance(instance_id).interfaces[0].id
    held = provider.assign_addresses(interface_id=interface_id, count=3)
    azure.set_faults(detach_s=0.1)
    with pytest.raises(InProgress):
        provider.unassign_addresses(interface_id=interface_id, addresses=held)
    azure.do(lambda cloud: cloud.remove_machine(instance_id))
    until = time.monotonic() + 5
    while sum(each.free for each in provider.subnets()) < before and time.monotonic() < until:
        time.sleep(0.05)
    assert sum(each.free for each in provider.subnets()) == before


def test_an_address_that_nobody_holds_is_still_refused(azure_cloud: Site) -> None:
    _, interface_id = first(azure_cloud)
    with pytest.raises(Rejected):
        azure_cloud.provider.unassign_addresses(interface_id=interface_id, addresses=["10.0.9.9"])
