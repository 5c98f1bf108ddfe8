"""AzureProvider beyond what all clouds have in common: long-running operations, ETags, coalesced writes, refusals."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pytest

from ipam.errors import (
    CloudError,
    Conflict,
    Denied,
    Gone,
    InProgress,
    InvalidInput,
    LimitReached,
    Rejected,
    SubnetExhausted,
    Throttled,
    Unavailable,
)
from ipam.providers.azure import AzureProvider, Scope
from lab.fake_azure.cloud import Cloud
from lab.fake_azure.errors import ApiError
from lab.fake_azure.machines import launch
from lab.fake_azure.testing import Running

SUBSCRIPTION, LOCATION = "00000000-1111-2222-3333-444444444444", "westeurope"
PUTS = ("NetworkInterfaces.Put", "ScaleSetMachines.Put")


class Site(Protocol):
    provider: AzureProvider
    subnet_id: str
    small_subnet_id: str
    instance_type: str

    def launch(self, type_: str, /) -> str: ...
    def launch_in(self, subnet_id: str, /) -> str: ...
    def unknown(self, kind: str, /) -> str: ...


@pytest.fixture(autouse=True)
def no_faults_left(azure: Running) -> Iterator[None]:
    yield
    azure.set_faults()


def first(site: Site, subnet_id: str = "") -> tuple[str, str]:
    """Ids of a new instance and of its first interface."""
    instance_id = site.launch_in(subnet_id or site.subnet_id)
    return instance_id, site.provider.instance(instance_id).interfaces[0].id


def addresses(site: Site, instance_id: str) -> tuple[str, ...]:
    return site.provider.instance(instance_id).interfaces[0].addresses


def settled(call: Callable[[], Any], within_s: float = 5.0) -> Any:
    """What a call gives once the operation under way has ended: as an executor does it, though in shorter pauses."""
    until = time.monotonic() + within_s
    while True:
        try:
            return call()
        except InProgress:
            if time.monotonic() > until:
                raise
            threading.Event().wait(0.02)


def failing(azure: Running, code: str, **more: Any) -> None:
    azure.set_faults(fail=[{"action": name, "code": code, **more} for name in PUTS])


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("TooManyRequests", Throttled),
        ("ResourceCollectionRequestsThrottled", Throttled),
        ("InternalServerError", Unavailable),
        ("ServiceUnavailable", Unavailable),
        ("cut", Unavailable),
        ("malformed", Unavailable),
        ("SubnetIsFull", SubnetExhausted),
        ("IPConfigurationsLimitExceeded", LimitReached),
        ("QuotaExceeded", LimitReached),
        ("AnotherOperationInProgress", InProgress),
        ("RetryableError", InProgress),
        ("PreconditionFailed", Conflict),
        ("PrivateIPAddressIsAllocated", Conflict),
        ("ResourceNotFound", Gone),
        ("AuthorizationFailed", Denied),
        ("ExpiredAuthenticationToken", Denied),
        ("LinkedAuthorizationFailed", Denied),
        ("SubscriptionNotFound", Denied),
        ("ScopeLocked", Denied),
        ("AnErrorOfNextYear", Rejected),
    ],
)
def test_each_refusal_has_its_class_code_operation_and_remedy(
    azure: Running, azure_cloud: Site, code: str, kind: type[CloudError]
) -> None:
    instance_id, interface_id = first(azure_cloud)
    failing(azure, code)
    with pytest.raises(CloudError) as refused:
        azure_cloud.provider.assign_addresses(interface_id=interface_id, count=1)
    assert type(refused.value) is kind
    assert refused.value.operation in PUTS
    assert refused.value.remedy
    if code not in ("cut", "malformed"):
        assert refused.value.code == code
    if isinstance(refused.value, SubnetExhausted):
        assert refused.value.subnet_id == azure_cloud.subnet_id
    azure.set_faults()
    assert len(azure_cloud.provider.assign_addresses(interface_id=interface_id, count=1)) == 1
    assert len(addresses(azure_cloud, instance_id)) == 1


@pytest.mark.parametrize("code", ["cut", "InternalServerError", "TooManyRequests"])
def test_a_write_that_took_effect_unheard_is_found_by_its_token(azure: Running, azure_cloud: Site, code: str) -> None:
    instance_id, interface_id = first(azure_cloud)
    failing(azure, code, after_effect=True)
    with pytest.raises((Unavailable, Throttled)):
        azure_cloud.provider.assign_addresses(interface_id=interface_id, count=2, client_token="intent-1-1")
    azure.set_faults()
    got = azure_cloud.provider.assign_addresses(interface_id=interface_id, count=2, client_token="intent-1-1")
    assert sorted(got) == sorted(addresses(azure_cloud, instance_id))
    failing(azure, code, after_effect=True)
    with pytest.raises((Unavailable, Throttled)):
        azure_cloud.provider.unassign_addresses(interface_id=interface_id, addresses=got)
    assert addresses(azure_cloud, instance_id) == ()


def test_retry_after_is_told(azure: Running, azure_cloud: Site) -> None:
    _, interface_id = first(azure_cloud)
    azure.set_faults(throttle={"mutate": {"rate": 0, "burst": 1}})
    azure_cloud.provider.assign_addresses(interface_id=interface_id, count=1)
    with pytest.raises(Throttled) as refused:
        azure_cloud.provider.assign_addresses(interface_id=interface_id, count=1)
    assert refused.value.retry_after_s == 2.0
    azure_cloud.provider.subnets()  # reads have a bucket of their own


class TestLongRunningOperations:
    def test_a_write_returns_at_once_and_is_followed_by_its_token(self, azure: Running, azure_cloud: Site) -> None:
        instance_id, interface_id = first(azure_cloud)
        azure.set_faults(attach_s=0.3)
        assign = {"interface_id": interface_id, "count": 3, "client_token": "intent-1-1"}
        with pytest.raises(InProgress) as underway:
            azure_cloud.provider.assign_addresses(**assign)  # type: ignore[arg-type]
        assert underway.value.retry_after_s
        with pytest.raises(InProgress):
            azure_cloud.provider.instance(instance_id)
        got = settled(lambda: azure_cloud.provider.assign_addresses(**assign))  # type: ignore[arg-type]
        assert len(got) == 3
        assert sorted(addresses(azure_cloud, instance_id)) == sorted(got)

    def test_listings_leave_out_what_is_being_written(self, azure: Running, azure_cloud: Site) -> None:
        busy, interface_id = first(azure_cloud)
        idle, _ = first(azure_cloud)
        azure.set_faults(attach_s=0.4)
        with pytest.raises(InProgress):
            azure_cloud.provider.assign_addresses(interface_id=interface_id, count=1)
        assert [each.id for page, _ in azure_cloud.provider.inventory() for each in page] == [idle]
        settled(lambda: azure_cloud.provider.instance(busy))
        listed = [each.id for page, _ in azure_cloud.provider.inventory() for each in page]
        assert sorted(listed) == sorted([busy, idle])

    def test_an_operation_that_fails_says_why_and_leaves_nothing_that_has_failed(
        self, azure: Running, azure_cloud: Site
    ) -> None:
        """Configurations without an address are taken away; those with one are mended by the next write."""
        instance_id, interface_id = first(azure_cloud)
        azure.set_faults(attach_s=0.05)
        azure.do(lambda cloud: cloud.failing.append(ApiError("SubnetIsFull", "no address is left")))
        with pytest.raises(InProgress):
            azure_cloud.provider.assign_addresses(interface_id=interface_id, count=2, client_token="one")
        settled(lambda: azure_cloud.provider.instance(instance_id))
        assert addresses(azure_cloud, instance_id) == ()
        with pytest.raises(SubnetExhausted) as refused:
            azure_cloud.provider.assign_addresses(interface_id=interface_id, count=2, client_token="two")
        assert refused.value.subnet_id == azure_cloud.subnet_id
        azure.set_faults()
        got = azure_cloud.provider.assign_addresses(interface_id=interface_id, count=2, client_token="two")
        assert set(got) <= set(addresses(azure_cloud, instance_id))
        (left,) = azure.do(lambda cloud: [each.configurations for each in cloud.nics.current.values()])
        assert {each.state for each in left} == {"Succeeded"}
        assert len(left) == 1 + len(addresses(azure_cloud, instance_id))

    def test_who_does_not_know_the_operation_tries_again(self, azure: Running, azure_cloud: Site) -> None:
        instance_id, interface_id = first(azure_cloud)
        azure.set_faults(attach_s=0.05)
        azure.do(lambda cloud: cloud.failing.append(ApiError("InternalServerError", "bad luck")))
        with pytest.raises(InProgress):
            azure_cloud.provider.assign_addresses(interface_id=interface_id, count=1, client_token="one")
        settled(lambda: azure_cloud.provider.instance(instance_id))
        azure.set_faults()
        other = AzureProvider(SUBSCRIPTION, LOCATION, endpoint_url=azure.url)
        assert len(other.assign_addresses(interface_id=interface_id, count=1, client_token="one")) == 1


class TestEtags:
    def test_a_write_that_somebody_else_overtook_changes_nothing(self, azure: Running, azure_cloud: Site) -> None:
        """The reader lags behind, so that the ETag it has is an old one."""
        instance_id, interface_id = first(azure_cloud)
        azure.set_faults(eventual_consistency_s=0.5)
        with contextlib.suppress(InProgress):  # addresses in a uniform scale set are read after the write
            azure_cloud.provider.assign_addresses(interface_id=interface_id, count=1, client_token="one")
        with pytest.raises(Conflict) as refused:
            azure_cloud.provider.assign_addresses(interface_id=interface_id, count=1, client_token="two")
        assert refused.value.code == "PreconditionFailed"
        azure.set_faults()
        azure_cloud.provider.assign_addresses(interface_id=interface_id, count=1, client_token="two")
        assert len(addresses(azure_cloud, instance_id)) == 2

    def test_what_we_do_not_know_is_written_back_as_it_was(self, azure: Running, azure_cloud: Site) -> None:
        _, interface_id = first(azure_cloud)
        before = azure.do(lambda cloud: cloud.nics.current[interface_id])
        azure_cloud.provider.assign_addresses(interface_id=interface_id, count=1)
        after = azure.do(lambda cloud: cloud.nics.current[interface_id])
        assert (after.primary, after.group_id, after.mac, after.tags) == (
            before.primary, before.group_id, before.mac, before.tags,
        )  # fmt: skip


def test_writes_to_one_machine_that_are_asked_for_at_once_go_together(azure: Running, azure_cloud: Site) -> None:
    instance_id, interface_id = first(azure_cloud)
    azure.set_faults(latency_s=0.05)
    got: list[str] = []

    def assign(number: int) -> None:
        got.extend(
            azure_cloud.provider.assign_addresses(interface_id=interface_id, count=2, client_token=f"intent-{number}")
        )

    threads = [threading.Thread(target=assign, args=(number,)) for number in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    azure.set_faults()
    assert sorted(got) == sorted(addresses(azure_cloud, instance_id))
    assert len(set(got)) == 16
    written = azure.do(lambda _: sum(azure.server.gate.calls.by_action[name] for name in PUTS))
    assert written <= 3, "the first goes alone, the others wait for it and go together"


def test_a_change_that_is_refused_does_not_take_the_others_with_it(azure: Running, azure_cloud: Site) -> None:
    instance_id, interface_id = first(azure_cloud)
    azure_cloud.provider.assign_addresses(interface_id=interface_id, count=254)
    azure.set_faults(latency_s=0.05)
    outcomes: list[object] = []

    def assign(number: int) -> None:
        try:
            outcomes.append(azure_cloud.provider.assign_addresses(interface_id=interface_id, count=1))
        except CloudError as error:
            outcomes.append(type(error))

    threads = [threading.Thread(target=assign, args=(number,)) for number in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    azure.set_faults()
    assert outcomes.count(LimitReached) == 2
    assert len(addresses(azure_cloud, instance_id)) == 255


def test_configurations_of_others_keep_their_place_and_carry_no_pods(azure: Running, azure_cloud: Site) -> None:
    instance_id, interface_id = first(azure_cloud)

    def add(cloud: Cloud) -> None:
        from dataclasses import replace

        nic = cloud.nics.current[interface_id]
        theirs = replace(nic.primary, name="by-hand", primary=False, address=cloud.allocate(azure_cloud.subnet_id))
        cloud.put_nic(replace(nic, configurations=(*nic.configurations, theirs)))

    azure.do(add)
    assert addresses(azure_cloud, instance_id) == ()
    assert len(azure_cloud.provider.assign_addresses(interface_id=interface_id, count=255)) == 254
    names = azure.do(lambda cloud: [each.name for each in cloud.nics.current[interface_id].configurations])
    assert len(names) == 256
    assert "by-hand" in names


def test_ids_are_understood_in_any_case(azure_cloud: Site) -> None:
    instance_id, interface_id = first(azure_cloud)
    shouted = "/" + instance_id[1:].upper().replace("SUBSCRIPTIONS", "subscriptions", 1)
    assert azure_cloud.provider.instance(shouted).id == instance_id
    assert len(azure_cloud.provider.assign_addresses(interface_id=interface_id.upper(), count=1)) == 1


@pytest.mark.parametrize("wrong", ["vm-1", "/subscriptions/x/resourceGroups/y", ""])
def test_what_is_no_id_is_rejected_with_an_example(azure_cloud: Site, wrong: str) -> None:
    with pytest.raises(Rejected) as refused:
        azure_cloud.provider.instance(wrong)
    assert "Microsoft.Compute/virtualMachines" in refused.value.remedy


def test_interfaces_are_numbered_with_the_primary_one_first(azure: Running, azure_cloud: Site) -> None:
    instance_id = azure.do(lambda cloud: launch(cloud, "Standard_D8s_v5", interfaces=3)).id
    interfaces = azure_cloud.provider.instance(instance_id).interfaces
    assert [each.device_index for each in interfaces] == [0, 1, 2]
    assert interfaces[0].primary_address == azure.do(lambda cloud: cloud.nics_at(instance_id)[0].primary.address)


def test_the_inventory_follows_every_page(azure: Running, azure_cloud: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.fake_azure.app.PAGE_SIZE", 3)
    launched = [azure_cloud.launch(azure_cloud.instance_type) for _ in range(8)]
    found = [each.id for page, _ in azure_cloud.provider.inventory() for each in page]
    assert sorted(found) == sorted(launched)


def test_public_addresses_of_a_prefix_are_made_when_they_are_taken(azure: Running, azure_cloud: Site) -> None:
    provider = azure_cloud.provider
    (place,) = provider.public_addresses(tags={"pool": "public"})
    assert place.address == ""
    instance_id, interface_id = first(azure_cloud)
    for _ in range(2):
        provider.associate_public_address(public_address_id=place.id, interface_id=interface_id)
    assert provider.instance(instance_id).interfaces[0].public_address_id
    taken = [each for each in provider.public_addresses(tags={"pool": "public"}) if each.address]
    assert [(each.address, each.interface_id) for each in taken] == [("192.0.2.0", interface_id)]


def test_zones_locations_and_subnets_are_told(azure: Running, azure_cloud: Site) -> None:
    instance_id, _ = first(azure_cloud, azure_cloud.small_subnet_id)
    instance = azure_cloud.provider.instance(instance_id)
    assert instance.zone == "westeurope-1"
    subnets = {each.id: each for each in azure_cloud.provider.subnets()}
    small = subnets[azure_cloud.small_subnet_id]
    assert (small.free, small.gateway, small.vpc_id) == (10, "10.0.16.1", instance.vpc_id)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"account": "123456789012"}, "account"),
        ({"region": "West Europe"}, "region"),
        ({"endpoint_url": "ftp://x"}, "endpoint_url"),
        ({"endpoint_url": "http://arm.example.com"}, "endpoint_url"),
        ({"scope": Scope(resource_groups=["a/b"])}, "resource_groups"),
    ],
)
def test_settings_that_cannot_be_name_their_field(settings: dict[str, Any], field: str) -> None:
    given: dict[str, Any] = {"account": SUBSCRIPTION, "region": LOCATION, **settings}
    with pytest.raises(InvalidInput) as refused:
        AzureProvider(given.pop("account"), given.pop("region"), **given)
    assert refused.value.field == field
    assert refused.value.remedy


def test_nobody_listening_and_no_answer_are_unavailable(azure: Running, azure_cloud: Site) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = AzureProvider(SUBSCRIPTION, LOCATION, endpoint_url=f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(Unavailable):
            nobody.subnets()
    azure.set_faults(fail=[{"action": "*", "code": "hang"}])
    hasty = AzureProvider(SUBSCRIPTION, LOCATION, endpoint_url=azure.url, read_timeout_s=0.2)
    with pytest.raises(Unavailable):
        hasty.security_groups()


def test_the_sdk_does_not_retry_and_every_call_is_observed(azure: Running) -> None:
    seen: list[tuple[str, str]] = []
    provider = AzureProvider(
        SUBSCRIPTION, LOCATION, endpoint_url=azure.url, observe=lambda name, outcome, _: seen.append((name, outcome))
    )
    azure.set_faults(fail=[{"action": "*", "code": "InternalServerError", "count": 5}])
    with pytest.raises(Unavailable):
        provider.subnets()
    assert azure.do(lambda cloud: cloud.faults.fail[0].count) == 4
    azure.set_faults()
    provider.subnets()
    assert seen == [
        ("VirtualNetworks.List", "InternalServerError"), ("VirtualNetworks.List", "ok"),
        ("VirtualNetworks.Usages", "ok"),
    ]  # fmt: skip


def test_another_subscription_is_denied_and_a_scope_narrows_listings(azure: Running, azure_cloud: Site) -> None:
    other = AzureProvider("99999999-1111-2222-3333-444444444444", LOCATION, endpoint_url=azure.url)
    with pytest.raises(Denied):
        other.subnets()
    azure_cloud.launch(azure_cloud.instance_type)
    elsewhere = AzureProvider(
        SUBSCRIPTION, LOCATION, endpoint_url=azure.url, scope=Scope(resource_groups=["other"], vpc_ids=["/nobody"])
    )
    assert [each.id for page, _ in elsewhere.inventory() for each in page] == []
    assert elsewhere.subnets() == []
    assert AzureProvider(SUBSCRIPTION, "northeurope", endpoint_url=azure.url).subnets() == []
