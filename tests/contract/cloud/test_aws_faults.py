"""AwsProvider when EC2 misbehaves: every refusal is one of the domain's errors, and nothing else ever comes out."""

from __future__ import annotations

import dataclasses
import socket
import threading
from collections.abc import Iterator
from typing import Protocol

import pytest

from ipam.errors import (
    CloudError,
    Conflict,
    Denied,
    Gone,
    LimitReached,
    Rejected,
    SubnetExhausted,
    Throttled,
    Unavailable,
)
from ipam.ports import CloudProvider
from ipam.providers.aws import AwsProvider, Scope
from lab.fake_ec2.cloud import Cloud
from lab.fake_ec2.records import Interface
from lab.fake_ec2.testing import Running

ACCOUNT, REGION = "123456789012", "eu-central-1"


class Site(Protocol):
    provider: CloudProvider
    subnet_id: str
    group_id: str

    def launch(self, type_: str, /) -> str: ...


def create(site: Site, token: str = "") -> str:
    return site.provider.create_interface(
        subnet_id=site.subnet_id, security_group_ids=[site.group_id], secondary_count=1, tags={}, description="",
        client_token=token,
    ).id  # fmt: skip


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("RequestLimitExceeded", Throttled),
        ("Throttling", Throttled),
        ("InternalError", Unavailable),
        ("Unavailable", Unavailable),
        ("cut", Unavailable),
        ("malformed", Unavailable),
        ("InsufficientFreeAddressesInSubnet", SubnetExhausted),
        ("InsufficientCidrBlocks", SubnetExhausted),
        ("PrivateIpAddressLimitExceeded", LimitReached),
        ("AttachmentLimitExceeded", LimitReached),
        ("NetworkInterfaceLimitExceeded", LimitReached),
        ("IncorrectState", Conflict),
        ("InvalidNetworkInterface.InUse", Conflict),
        ("IdempotentParameterMismatch", Conflict),
        ("InvalidSubnetID.NotFound", Gone),
        ("UnauthorizedOperation", Denied),
        ("AuthFailure", Denied),
        ("RequestExpired", Denied),
        ("InvalidParameterValue", Rejected),
        ("AnErrorOfNextYear", Rejected),
    ],
)
def test_each_refusal_has_its_class_code_operation_and_remedy(
    ec2: Running, ec2_cloud: Site, code: str, kind: type[CloudError]
) -> None:
    ec2.set_faults(fail=[{"action": "CreateNetworkInterface", "code": code}])
    with pytest.raises(CloudError) as refused:
        create(ec2_cloud)
    assert type(refused.value) is kind
    assert refused.value.operation == "CreateNetworkInterface"
    assert refused.value.remedy
    if code not in ("cut", "malformed"):
        assert refused.value.code == code
    if isinstance(refused.value, SubnetExhausted):
        assert refused.value.subnet_id == ec2_cloud.subnet_id
    create(ec2_cloud)


def test_the_sdk_does_not_retry(ec2: Running, ec2_cloud: Site) -> None:
    ec2.set_faults(fail=[{"action": "*", "code": "InternalError", "count": 5}])
    with pytest.raises(Unavailable):
        ec2_cloud.provider.security_groups()
    assert ec2.do(lambda cloud: cloud.faults.fail[0].count) == 4


def test_a_creation_cut_after_its_effect_is_found_again_by_its_token(ec2: Running, ec2_cloud: Site) -> None:
    ec2.set_faults(fail=[{"action": "CreateNetworkInterface", "code": "cut", "after_effect": True}])
    with pytest.raises(Unavailable):
        create(ec2_cloud, token="step-1")
    (made,) = ec2.do(lambda cloud: list(cloud.interfaces.current))
    assert create(ec2_cloud, token="step-1") == made


def test_attachment_returns_when_attached_though_it_is_slow_and_reads_lag(ec2: Running, ec2_cloud: Site) -> None:
    instance_id = ec2_cloud.launch("m5.large")
    ec2.set_faults(attach_s=0.3, detach_s=0.2, eventual_consistency_s=0.2)
    interface_id = create(ec2_cloud)
    made = ec2_cloud.provider.attach_interface(
        interface_id=interface_id, instance_id=instance_id, device_index=1, network_card=0
    )
    assert (made.status, made.instance_id) == ("in-use", instance_id)
    ec2_cloud.provider.detach_interface(attachment_id=made.attachment_id, interface_id=interface_id)
    ec2_cloud.provider.delete_interface(interface_id=interface_id)


def test_attachment_survives_reads_that_fail_and_gives_up_in_time(ec2: Running, ec2_cloud: Site) -> None:
    instance_id, interface_id = ec2_cloud.launch("m5.large"), create(ec2_cloud)
    ec2.set_faults(fail=[{"action": "DescribeNetworkInterfaces", "code": "RequestLimitExceeded", "count": 2}])
    ec2_cloud.provider.attach_interface(
        interface_id=interface_id, instance_id=instance_id, device_index=1, network_card=0
    )
    ec2.set_faults(attach_s=60)
    hasty = AwsProvider(ACCOUNT, REGION, endpoint_url=ec2.url, settle_timeout_s=0.2)
    with pytest.raises(Unavailable) as refused:
        hasty.attach_interface(interface_id=create(ec2_cloud), instance_id=instance_id, device_index=2, network_card=0)
    assert refused.value.code == "NotSettled"
    assert "attaching" in refused.value.message


def test_a_server_that_never_answers_is_unavailable(ec2: Running, ec2_cloud: Site) -> None:
    ec2.set_faults(fail=[{"action": "*", "code": "hang"}])
    hasty = AwsProvider(ACCOUNT, REGION, endpoint_url=ec2.url, read_timeout_s=0.2)
    with pytest.raises(Unavailable) as refused:
        hasty.subnets()
    assert refused.value.code == "ReadTimeoutError"


def test_nobody_listening_is_unavailable(aws_credentials: None) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        provider = AwsProvider(ACCOUNT, REGION, endpoint_url=f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(Unavailable):
            provider.instance("i-0123456789abcdef0")


def test_no_credentials_are_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    with pytest.raises(Denied) as refused:
        AwsProvider(ACCOUNT, REGION, endpoint_url="http://127.0.0.1:9").subnets()
    assert refused.value.code == "NoCredentialsError"


def test_throttling_lasts_until_the_bucket_fills(ec2: Running, ec2_cloud: Site) -> None:
    ec2.set_faults(throttle={"mutate": {"rate": 0, "burst": 2}})
    create(ec2_cloud)
    create(ec2_cloud)
    with pytest.raises(Throttled) as refused:
        create(ec2_cloud)
    assert refused.value.retry_after_s
    ec2_cloud.provider.subnets()  # reads have a bucket of their own
    ec2.set_faults()
    create(ec2_cloud)


def test_the_inventory_pages_and_joins(ec2: Running, ec2_cloud: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ipam.providers.aws._INSTANCES_A_PAGE", 5)
    monkeypatch.setattr("ipam.providers.aws._INTERFACES_A_PAGE", 5)
    launched = [ec2_cloud.launch("m5.large") for _ in range(12)]
    loose = [create(ec2_cloud) for _ in range(7)]
    for instance_id in launched:
        ec2_cloud.provider.attach_interface(
            interface_id=create(ec2_cloud), instance_id=instance_id, device_index=1, network_card=0
        )
    pages = list(ec2_cloud.provider.inventory())
    assert [len(page) for page, _ in pages if page] == [5, 5, 2]
    found = [each for page, _ in pages for each in page]
    assert [each.id for each in found] == launched
    assert all(len(each.interfaces) == 2 for each in found)
    assert [each.id for _, page in pages for each in page] == loose


def test_an_excluded_interface_keeps_its_place_and_carries_nothing(ec2: Running, ec2_cloud: Site) -> None:
    instance_id = ec2_cloud.launch("m5.large")
    interface_id = create(ec2_cloud)
    ec2_cloud.provider.attach_interface(
        interface_id=interface_id, instance_id=instance_id, device_index=1, network_card=0
    )
    ec2.do(lambda cloud: cloud.put_interface(_tagged(cloud.interfaces.current[interface_id])))
    provider = AwsProvider(ACCOUNT, REGION, endpoint_url=ec2.url, exclude={"owner": "other"})
    first, second = provider.instance(instance_id).interfaces
    assert first.status == "in-use"
    assert (second.status, second.addresses, second.device_index) == ("excluded", (), 1)


def _tagged(interface: Interface) -> Interface:
    return dataclasses.replace(interface, tags={"owner": "other"})


def test_a_scope_narrows_every_listing(ec2: Running, ec2_cloud: Site) -> None:
    def only(**scope: object) -> AwsProvider:
        return AwsProvider(ACCOUNT, REGION, endpoint_url=ec2.url, scope=Scope(**scope))  # type: ignore[arg-type]

    assert [each.tags for each in only(subnet_tags={"size": "sm*"}).subnets()] == [{"size": "small"}]
    assert [each.id for each in only(security_group_tags={"role": "node"}).security_groups()] == [ec2_cloud.group_id]
    assert only(vpc_cidrs=["10.9.0.0/16"]).subnets() == []
    assert len(only(vpc_cidrs=["10.0.0.0/16"]).subnets()) == 2
    ec2_cloud.launch("m5.large")
    assert list(only(instance_tags={"pool": "x"}).inventory()) == [([], ()), ((), [])]


def test_every_call_is_observed_with_its_outcome(ec2: Running, ec2_cloud: Site) -> None:
    seen: list[tuple[str, str, float]] = []
    provider = AwsProvider(ACCOUNT, REGION, endpoint_url=ec2.url, observe=lambda *call: seen.append(call))
    provider.subnets()
    with pytest.raises(Gone):
        provider.instance("i-0123456789abcdef0")
    assert [call[:2] for call in seen] == [
        ("DescribeVpcs", "ok"), ("DescribeSubnets", "ok"), ("DescribeInstances", "InvalidInstanceID.NotFound"),
    ]  # fmt: skip
    assert all(0 < seconds < 5 for _, _, seconds in seen)


def test_threads_share_one_provider(ec2: Running, ec2_cloud: Site) -> None:
    provider = AwsProvider(ACCOUNT, REGION, endpoint_url=ec2.url)
    site = type("Other", (), {"provider": provider, "subnet_id": ec2_cloud.subnet_id, "group_id": ec2_cloud.group_id})
    made: list[str] = []
    threads = [threading.Thread(target=lambda: made.extend(create(site) for _ in range(5))) for _ in range(8)]  # type: ignore[arg-type]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 40


@pytest.fixture(autouse=True)
def no_faults_left(ec2: Running) -> Iterator[None]:
    yield
    ec2.set_faults()


@pytest.mark.parametrize("kind", ["trunk", "efa", "managed"])
def test_interfaces_that_are_not_for_pods_keep_their_place_without_addresses(
    ec2: Running, ec2_cloud: Site, kind: str
) -> None:
    instance_id = ec2_cloud.launch("m5.large")
    made = ec2_cloud.provider.create_interface(
        subnet_id=ec2_cloud.subnet_id, security_group_ids=[], secondary_count=3, tags={}, description="",
        client_token="",
    )  # fmt: skip

    def change(cloud: Cloud) -> None:
        record = cloud.interfaces.current[made.id]
        changes = {"requester_managed": True} if kind == "managed" else {"interface_type": kind}
        cloud.put_interface(dataclasses.replace(record, **changes))

    ec2.do(change)
    ec2_cloud.provider.attach_interface(interface_id=made.id, instance_id=instance_id, device_index=1, network_card=0)
    seen = ec2_cloud.provider.instance(instance_id).interfaces[1]
    assert (seen.id, seen.status, seen.addresses) == (made.id, "excluded", ())
