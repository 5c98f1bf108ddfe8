"""AlibabaProvider when the cloud misbehaves: every refusal is one of the domain's errors, nothing else."""

from __future__ import annotations

import dataclasses
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
from ipam.model import CloudInterface
from ipam.ports import CloudProvider
from ipam.providers.alibaba import AlibabaProvider, Scope
from lab.fake_alibaba.actions import ACTIONS
from lab.fake_alibaba.cloud import Cloud
from lab.fake_alibaba.testing import Running

ACCOUNT, REGION = "1234567890123456", "eu-central-1"
TYPE = "ecs.g6.xlarge"


class Site(Protocol):
    provider: CloudProvider
    subnet_id: str
    group_id: str

    def launch(self, type_: str, /) -> str: ...


def create(site: Site, token: str = "", **more: Any) -> str:
    asked: dict[str, Any] = {
        "subnet_id": site.subnet_id, "security_group_ids": [site.group_id], "secondary_count": 1, "tags": {},
        "description": "", "client_token": token,
    }  # fmt: skip
    return site.provider.create_interface(**{**asked, **more}).id


def attach(provider: CloudProvider, interface_id: str, instance_id: str) -> CloudInterface:
    return provider.attach_interface(interface_id=interface_id, instance_id=instance_id, device_index=1, network_card=0)


@pytest.fixture(autouse=True)
def no_faults_left(alibaba: Running) -> Iterator[None]:
    yield
    alibaba.set_faults()


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("Throttling", Throttled),
        ("Throttling.User", Throttled),
        ("Throttling.Api", Throttled),
        ("InternalError", Unavailable),
        ("ServiceUnavailable", Unavailable),
        ("cut", Unavailable),
        ("malformed", Unavailable),
        ("InvalidVSwitchId.IpNotEnough", SubnetExhausted),
        ("EniPerInstanceLimitExceeded", LimitReached),
        ("InvalidOperation.Ipv4CountExceeded", LimitReached),
        ("InvalidOperation.EniCountExceeded", LimitReached),
        ("MaxEniCountExceeded", LimitReached),
        ("QuotaExceeded.PrivateIpAddress", SubnetExhausted),  # now and then of a full vSwitch
        ("IdempotentProcessing", InProgress),
        ("LastTokenProcessing", InProgress),
        ("SecurityGroupInstanceLimitExceed", LimitReached),
        ("InvalidOperation.InvalidEniState", Conflict),
        ("IncorrectInstanceStatus", Conflict),
        ("IdempotentParameterMismatch", Conflict),
        ("Operation.Conflict", Conflict),
        ("InvalidVSwitchId.NotFound", Gone),
        ("InvalidEniId.NotFound", Gone),
        ("InvalidEcsId.NotFound", Gone),
        ("Forbidden.RAM", Denied),
        ("Forbidden.SubUser", Denied),
        ("InvalidAccessKeyId.NotFound", Denied),
        ("InvalidSecurityToken.Expired", Denied),
        ("SignatureDoesNotMatch", Denied),
        ("Abs.InvalidAccount.NotFound", Denied),
        ("InvalidParameter", Rejected),
        ("AnErrorOfNextYear", Rejected),
    ],
)
def test_each_refusal_has_its_class_code_operation_and_remedy(
    alibaba: Running, alibaba_cloud: Site, code: str, kind: type[CloudError]
) -> None:
    alibaba.set_faults(fail=[{"action": "CreateNetworkInterface", "code": code}])
    with pytest.raises(CloudError) as refused:
        create(alibaba_cloud)
    assert type(refused.value) is kind
    assert refused.value.operation == "CreateNetworkInterface"
    assert refused.value.remedy
    if code not in ("cut", "malformed"):
        assert refused.value.code == code
    if isinstance(refused.value, SubnetExhausted):
        assert refused.value.subnet_id == alibaba_cloud.subnet_id
    create(alibaba_cloud)


@pytest.mark.parametrize("after_effect", [False, True])
@pytest.mark.parametrize("code", ["Throttling.User", "InternalError", "cut", "malformed"])
def test_every_call_that_changes_something_may_fail_before_or_after_its_effect(
    alibaba: Running, alibaba_cloud: Site, code: str, after_effect: bool
) -> None:
    provider, instance_id = alibaba_cloud.provider, alibaba_cloud.launch(TYPE)
    made = attach(provider, create(alibaba_cloud, prefix_count=0), instance_id)
    spare, kind = create(alibaba_cloud), Throttled if code.startswith("Throttling") else Unavailable
    calls: dict[str, Callable[[], object]] = {
        "AttachNetworkInterface": lambda: attach(provider, spare, instance_id),
        "AssignPrivateIpAddresses": lambda: provider.assign_addresses(interface_id=made.id, count=2, client_token="a"),
        "UnassignPrivateIpAddresses": lambda: provider.unassign_addresses(
            interface_id=made.id, addresses=made.addresses
        ),
        "ModifyNetworkInterfaceAttribute": lambda: provider.protect_interface(
            interface_id=made.id, attachment_id=made.attachment_id
        ),
        "TagResources": lambda: provider.set_tags(interface_id=made.id, tags={"a": "b"}),
        "DetachNetworkInterface": lambda: provider.detach_interface(
            interface_id=made.id, attachment_id=made.attachment_id
        ),
        "DeleteNetworkInterface": lambda: provider.delete_interface(interface_id=made.id),
    }
    for operation, call in calls.items():
        alibaba.set_faults(fail=[{"action": operation, "code": code, "after_effect": after_effect}])
        with pytest.raises(kind) as refused:
            call()
        assert refused.value.operation == operation
        # Whoever repeats it finds it done, or does it now.
        if not after_effect:
            call()
    assert [each.id for each in provider.instance(instance_id).interfaces][1:] == [spare]


def test_the_sdk_does_not_retry(alibaba: Running, alibaba_cloud: Site) -> None:
    alibaba.set_faults(fail=[{"action": "*", "code": "InternalError", "count": 5}])
    with pytest.raises(Unavailable):
        alibaba_cloud.provider.security_groups()
    assert alibaba.do(lambda cloud: cloud.faults.fail[0].count) == 4


def test_what_was_cut_after_its_effect_is_found_again_by_its_token(alibaba: Running, alibaba_cloud: Site) -> None:
    alibaba.set_faults(fail=[{"action": "mutate", "code": "cut", "after_effect": True}])
    with pytest.raises(Unavailable):
        create(alibaba_cloud, token="step-1")
    (made,) = alibaba.do(lambda cloud: list(cloud.interfaces.current))
    assert create(alibaba_cloud, token="step-1") == made
    alibaba.set_faults(fail=[{"action": "mutate", "code": "cut", "after_effect": True}])
    asked = {"interface_id": made, "count": 2, "client_token": "step-2"}
    with pytest.raises(Unavailable):
        alibaba_cloud.provider.assign_addresses(**asked)  # type: ignore[arg-type]
    got = alibaba_cloud.provider.assign_addresses(**asked)  # type: ignore[arg-type]
    assert set(got) < set(alibaba.do(lambda cloud: cloud.interfaces.current[made].addresses))
    with pytest.raises(Conflict) as refused:
        alibaba_cloud.provider.assign_addresses(**{**asked, "count": 3})  # type: ignore[arg-type]
    assert refused.value.code == "IdempotentParameterMismatch"


def test_a_slow_attachment_holds_nobody(alibaba: Running, alibaba_cloud: Site) -> None:
    instance_id = alibaba_cloud.launch(TYPE)
    alibaba.set_faults(attach_s=0.3, detach_s=0.3)
    hasty = AlibabaProvider(ACCOUNT, REGION, endpoint_url=alibaba.url, settle_s=0.0)
    interface_id = create(alibaba_cloud)
    with pytest.raises(InProgress) as begun:
        attach(hasty, interface_id, instance_id)
    assert begun.value.retry_after_s
    on_its_way = hasty.instance(instance_id).interfaces[1]
    assert (on_its_way.id, on_its_way.status) == (interface_id, "attaching")
    with pytest.raises(InProgress):  # it is begun, and not begun again
        attach(hasty, interface_id, instance_id)
    with pytest.raises(Conflict):
        attach(hasty, interface_id, alibaba_cloud.launch(TYPE))
    there = _until_attached(alibaba_cloud.provider, instance_id)
    with pytest.raises(InProgress):
        hasty.detach_interface(attachment_id=there.attachment_id, interface_id=interface_id)
    assert len(hasty.instance(instance_id).interfaces) == 1
    with pytest.raises(Conflict):
        hasty.delete_interface(interface_id=interface_id)


def _until_attached(provider: CloudProvider, instance_id: str) -> CloudInterface:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        interface = provider.instance(instance_id).interfaces[1]
        if interface.status == "in-use":
            return interface
        time.sleep(0.05)
    raise AssertionError("it was never attached")


def test_an_interface_that_is_still_being_created_is_attached_later(alibaba: Running, alibaba_cloud: Site) -> None:
    instance_id = alibaba_cloud.launch(TYPE)
    alibaba.set_faults(create_s=0.3)
    interface_id = create(alibaba_cloud)
    attach(alibaba_cloud.provider, interface_id, instance_id)  # the creation was waited for
    hasty = AlibabaProvider(ACCOUNT, REGION, endpoint_url=alibaba.url, settle_s=0.0)
    slow = hasty.create_interface(
        subnet_id=alibaba_cloud.subnet_id, security_group_ids=[alibaba_cloud.group_id], secondary_count=0, tags={},
        description="", client_token="",
    )  # fmt: skip
    assert slow.status == "creating"
    with pytest.raises(InProgress):
        attach(hasty, slow.id, instance_id)


def test_attachment_returns_when_attached_though_reads_lag_and_fail(alibaba: Running, alibaba_cloud: Site) -> None:
    instance_id, interface_id = alibaba_cloud.launch(TYPE), create(alibaba_cloud)
    alibaba.set_faults(
        attach_s=0.2, detach_s=0.1, eventual_consistency_s=0.2,
        fail=[{"action": "DescribeNetworkInterfaces", "code": "Throttling.User", "count": 1}],
    )  # fmt: skip
    made = attach(alibaba_cloud.provider, interface_id, instance_id)
    assert (made.status, made.instance_id, made.device_index) == ("in-use", instance_id, 1)
    alibaba_cloud.provider.detach_interface(attachment_id=made.attachment_id, interface_id=interface_id)
    alibaba_cloud.provider.delete_interface(interface_id=interface_id)


def test_an_exhausted_vswitch_says_whether_addresses_or_blocks_are_lacking(
    alibaba: Running, alibaba_cloud: Site
) -> None:
    for prefixes in (0, 1):
        alibaba.set_faults(fail=[{"action": "mutate", "code": "InvalidVSwitchId.IpNotEnough"}])
        with pytest.raises(SubnetExhausted) as refused:
            create(alibaba_cloud, secondary_count=1 - prefixes, prefix_count=prefixes)
        assert refused.value.prefixes is bool(prefixes)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("InvalidVSwitchCidrReservation.NotFound", SubnetExhausted),
        ("InvalidOperation.Ipv4PrefixCountExceeded", LimitReached),
    ],
)
def test_a_vswitch_without_blocks_for_prefixes_serves_single_addresses_whatever_the_code(
    alibaba: Running, alibaba_cloud: Site, code: str, kind: type[CloudError]
) -> None:
    alibaba.set_faults(fail=[{"action": "mutate", "code": code}])
    with pytest.raises(kind) as refused:
        create(alibaba_cloud, secondary_count=0, prefix_count=1)
    assert getattr(refused.value, "prefixes", True)


def test_more_prefixes_than_a_call_takes_are_released_all_the_same(alibaba: Running, alibaba_cloud: Site) -> None:
    provider, instance_id = alibaba_cloud.provider, alibaba_cloud.launch("ecs.g6.4xlarge")  # 19 slots
    interface_id = create(alibaba_cloud, secondary_count=0, prefix_count=10)
    attach(provider, interface_id, instance_id)
    provider.assign_prefixes(interface_id=interface_id, count=9)
    held = provider.instance(instance_id).interfaces[1].prefixes
    assert len(held) == 19
    provider.unassign_prefixes(interface_id=interface_id, prefixes=held[:18])
    assert provider.instance(instance_id).interfaces[1].prefixes == held[18:]


def test_elastic_ips_of_many_instances_are_told_by_few_calls(alibaba: Running, alibaba_cloud: Site) -> None:
    seen: list[str] = []
    provider = AlibabaProvider(ACCOUNT, REGION, endpoint_url=alibaba.url, observe=lambda name, *_: seen.append(name))
    first_of = {}
    for _ in range(12):
        instance_id = alibaba_cloud.launch(TYPE)
        eip = alibaba.do(lambda cloud: ACTIONS["AllocateEipAddress"].perform(cloud, {}))["AllocationId"]
        first_of[eip] = provider.instance(instance_id).interfaces[0].id
        for _ in range(2):
            provider.associate_public_address(public_address_id=str(eip), interface_id=first_of[eip])
        # It is bound to the instance, and may be told there alone.
        assert provider.instance(instance_id).interfaces[0].public_address_id == eip
    other = alibaba.do(lambda cloud: ACTIONS["AllocateEipAddress"].perform(cloud, {"Tag": [{"Key": "a"}]}))[
        "AllocationId"
    ]
    with pytest.raises(Conflict):
        provider.associate_public_address(public_address_id=str(other), interface_id=first_of[eip])
    alibaba.do(lambda cloud: ACTIONS["ReleaseEipAddress"].perform(cloud, {"AllocationId": other}))
    seen.clear()
    assert {each.id: each.interface_id for each in provider.public_addresses(tags={})} == first_of
    assert seen == ["DescribeEipAddresses", "DescribeInstances"]


def test_more_than_ten_addresses_a_call_are_refused(alibaba_cloud: Site) -> None:
    interface_id = create(alibaba_cloud)
    with pytest.raises(Rejected):
        alibaba_cloud.provider.assign_addresses(interface_id=interface_id, count=11)
    with pytest.raises(Rejected):
        create(alibaba_cloud, secondary_count=11)


def test_a_server_that_never_answers_is_unavailable(alibaba: Running, alibaba_cloud: Site) -> None:
    alibaba.set_faults(fail=[{"action": "*", "code": "hang"}])
    hasty = AlibabaProvider(ACCOUNT, REGION, endpoint_url=alibaba.url, read_timeout_s=0.2)
    with pytest.raises(Unavailable) as refused:
        hasty.subnets()
    assert "timed out" in refused.value.message.lower()


def test_nobody_listening_is_unavailable(alibaba_credentials: None) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        provider = AlibabaProvider(ACCOUNT, REGION, endpoint_url=f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(Unavailable):
            provider.instance("i-bp1000000000000000000")


def test_no_credentials_are_denied(alibaba_cloud: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    from alibabacloud_credentials.client import Client
    from alibabacloud_credentials.exceptions import CredentialException

    def none(_: Client) -> None:
        raise CredentialException("unable to get credentials from any of the providers in the chain")

    monkeypatch.setattr(Client, "get_credential", none)  # the SDK reads the environment when it is imported
    with pytest.raises(Denied) as refused:
        alibaba_cloud.provider.subnets()
    assert refused.value.code == "CredentialException"


def test_throttling_lasts_until_the_bucket_fills(alibaba: Running, alibaba_cloud: Site) -> None:
    alibaba.set_faults(throttle={"mutate": {"rate": 0, "burst": 2}})
    create(alibaba_cloud)
    create(alibaba_cloud)
    with pytest.raises(Throttled) as refused:
        create(alibaba_cloud)
    assert refused.value.retry_after_s
    alibaba_cloud.provider.subnets()  # reads have a bucket of their own
    alibaba.set_faults()
    create(alibaba_cloud)


def test_listings_page_and_join(alibaba: Running, alibaba_cloud: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("INSTANCES", "INTERFACES", "GROUPS", "ROWS"):
        monkeypatch.setattr(f"ipam.providers.alibaba._{name}_A_PAGE", 1 if name in ("GROUPS", "ROWS") else 5)
    provider = alibaba_cloud.provider
    launched = [alibaba_cloud.launch(TYPE) for _ in range(12)]
    loose = [create(alibaba_cloud) for _ in range(7)]
    for instance_id in launched:
        attach(provider, create(alibaba_cloud), instance_id)
    pages = list(provider.inventory())
    assert [len(page) for page, _ in pages if page] == [5, 5, 2]
    found = [each for page, _ in pages for each in page]
    assert [each.id for each in found] == launched
    assert all([one.device_index for one in each.interfaces] == [0, 1] for each in found)
    assert [each.id for _, page in pages for each in page] == loose
    assert (len(provider.subnets()), len(provider.security_groups())) == (2, 2)


def test_an_instance_that_came_between_two_listings_has_its_interfaces(alibaba: Running, alibaba_cloud: Site) -> None:
    pages = alibaba_cloud.provider.inventory()
    first = alibaba_cloud.launch(TYPE)
    alibaba.do(lambda cloud: _hide_once(cloud, first))
    ((instance,), _), *_ = pages
    assert [each.device_index for each in instance.interfaces] == [0]


def _hide_once(cloud: Cloud, instance_id: str) -> None:
    """The next listing of all interfaces lacks those of the instance."""
    readable = cloud.interfaces.readable

    def without() -> Any:
        del cloud.interfaces.readable
        return [each for each in readable() if each.instance_id != instance_id]

    cloud.interfaces.readable = without  # type: ignore[method-assign]


def test_interfaces_are_numbered_by_their_creation(alibaba: Running, alibaba_cloud: Site) -> None:
    instance_id = alibaba_cloud.launch("ecs.g6.2xlarge")
    made = [create(alibaba_cloud) for _ in range(3)]

    def age(cloud: Cloud) -> None:
        for number, interface_id in enumerate(made):
            record = cloud.interfaces.current[interface_id]
            cloud.put_interface(dataclasses.replace(record, created_at=1_000_000.0 + number))

    alibaba.do(age)
    for interface_id in reversed(made):
        attach(alibaba_cloud.provider, interface_id, instance_id)
    interfaces = alibaba_cloud.provider.instance(instance_id).interfaces
    assert [each.id for each in interfaces[1:]] == made
    assert [each.device_index for each in interfaces] == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", ["tagged", "trunk", "managed"])
def test_interfaces_that_are_not_for_pods_keep_their_place_without_addresses(
    alibaba: Running, alibaba_cloud: Site, kind: str
) -> None:
    instance_id, interface_id = alibaba_cloud.launch(TYPE), create(alibaba_cloud)
    changes: dict[str, dict[str, Any]] = {
        "tagged": {"tags": {"owner": "other"}}, "trunk": {"kind": "Trunk"}, "managed": {"service_managed": True},
    }  # fmt: skip

    def change(cloud: Cloud) -> None:
        record = cloud.interfaces.current[interface_id]
        cloud.put_interface(dataclasses.replace(record, **changes[kind]))

    alibaba.do(change)
    provider = AlibabaProvider(ACCOUNT, REGION, endpoint_url=alibaba.url, exclude={"owner": "other"})
    attach(provider, interface_id, instance_id)
    first, second = provider.instance(instance_id).interfaces
    assert first.status == "in-use"
    assert (second.status, second.addresses, second.device_index) == ("excluded", (), 1)


def test_a_scope_narrows_every_listing(alibaba: Running, alibaba_cloud: Site) -> None:
    def only(**scope: object) -> AlibabaProvider:
        return AlibabaProvider(ACCOUNT, REGION, endpoint_url=alibaba.url, scope=Scope(**scope))  # type: ignore[arg-type]

    assert [each.tags for each in only(subnet_tags={"size": "sm*"}).subnets()] == [{"size": "small"}]
    named = only(security_group_tags={"role": "node"}).security_groups()
    assert [each.id for each in named] == [alibaba_cloud.group_id]
    assert only(vpc_cidrs=["10.9.0.0/16"]).subnets() == []
    assert len(only(vpc_cidrs=["10.0.0.0/16"]).subnets()) == 2
    alibaba_cloud.launch(TYPE)
    assert list(only(instance_tags={"pool": "x"}).inventory()) == [([], ()), ((), [])]
    assert list(only(vpc_ids=["vpc-bp1000000000000000000"]).inventory()) == [([], ()), ((), [])]


def test_a_vswitch_tells_the_third_last_address_as_its_gateway(alibaba_cloud: Site) -> None:
    gateways = {each.cidr: each.gateway for each in alibaba_cloud.provider.subnets()}
    assert gateways == {"10.0.0.0/20": "10.0.15.253", "10.0.16.0/28": "10.0.16.13"}


def test_every_call_is_observed_with_its_outcome(alibaba: Running, alibaba_cloud: Site) -> None:
    seen: list[tuple[str, str, float]] = []
    provider = AlibabaProvider(ACCOUNT, REGION, endpoint_url=alibaba.url, observe=lambda *call: seen.append(call))
    provider.subnets()
    with pytest.raises(Gone):
        provider.delete_interface(interface_id="eni-bp1000000000000000000")
    assert [call[:2] for call in seen] == [
        ("DescribeVpcs", "ok"), ("DescribeVSwitches", "ok"), ("DeleteNetworkInterface", "InvalidEniId.NotFound"),
    ]  # fmt: skip
    assert all(0 < seconds < 5 for _, _, seconds in seen)


def test_threads_share_one_provider(alibaba: Running, alibaba_cloud: Site) -> None:
    made: list[str] = []
    threads = [threading.Thread(target=lambda: made.extend(create(alibaba_cloud) for _ in range(5))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 40


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"account": "123"}, "account"),
        ({"region": "Frankfurt"}, "region"),
        ({"endpoint_url": "nonsense"}, "endpoint_url"),
        ({"endpoint_url": "http://ecs.example.org"}, "endpoint_url"),
        ({"scope": Scope(vpc_ids=["vpc"])}, "vpc_ids"),
        ({"scope": Scope(vpc_cidrs=["10.0.0.1/16"])}, "vpc_cidrs"),
        ({"exclude": {"": "x"}}, "exclude"),
    ],
)
def test_what_cannot_be_is_refused_before_the_first_call(wrong: dict[str, Any], field: str) -> None:
    given = {"account": ACCOUNT, "region": REGION, **wrong}
    with pytest.raises(InvalidInput) as refused:
        AlibabaProvider(given.pop("account"), given.pop("region"), **given)
    assert refused.value.field == field
    assert refused.value.remedy
