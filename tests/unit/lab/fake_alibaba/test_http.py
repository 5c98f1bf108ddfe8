"""The fake Alibaba Cloud over HTTP: its SDK's own calls, the protocol's edges, and the admin endpoint."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alibabacloud_ecs20140526 import models as ecs
from alibabacloud_ecs20140526.client import Client as Ecs
from alibabacloud_tea_openapi.exceptions import AlibabaCloudException
from alibabacloud_tea_openapi.utils_models import Config
from alibabacloud_vpc20160428 import models as vpc
from alibabacloud_vpc20160428.client import Client as Vpc

from lab.cloud_admin import CloudAdmin
from lab.fake_alibaba.testing import Running, running

REGION = "eu-central-1"


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as server:
        yield server


@pytest.fixture
def cloud(server: Running) -> Running:
    server.reset()
    return server


def config(cloud: Running) -> Config:
    where = cloud.url.removeprefix("http://")
    return Config(access_key_id="any", access_key_secret="any", endpoint=where, protocol="HTTP", region_id=REGION)


@pytest.fixture
def sdk(cloud: Running) -> Ecs:
    return Ecs(config(cloud))


@pytest.fixture
def place(cloud: Running) -> tuple[str, str]:
    """A vSwitch and a security group."""
    return cloud.do(lambda one: (next(iter(one.vswitches.current)), next(iter(one.groups.current))))


def refused(call: Callable[[], object]) -> tuple[str, int]:
    with pytest.raises(AlibabaCloudException) as found:
        call()
    return found.value.code, found.value.status_code


def test_a_life_by_the_sdks_own_calls(cloud: Running, sdk: Ecs, place: tuple[str, str]) -> None:
    vswitch_id, group_id = place
    ran = sdk.run_instances(
        ecs.RunInstancesRequest(
            region_id=REGION, image_id="m-1", instance_type="ecs.g7.large", v_switch_id=vswitch_id,
            security_group_id=group_id, amount=2, tag=[ecs.RunInstancesRequestTag(key="pool", value="x")],
        )
    )  # fmt: skip
    first, second = ran.body.instance_id_sets.instance_id_set
    asked = ecs.DescribeInstancesRequest(region_id=REGION, instance_ids=json.dumps([first]))
    (told,) = sdk.describe_instances(asked).body.instances.instance
    assert (told.status, told.tags.tag[0].tag_key) == ("Running", "pool")
    made = sdk.create_network_interface(
        ecs.CreateNetworkInterfaceRequest(
            region_id=REGION, v_switch_id=vswitch_id, security_group_id=group_id, secondary_private_ip_address_count=2,
        )
    ).body  # fmt: skip
    assert len(made.private_ip_sets.private_ip_set) == 3
    both = {"network_interface_id": made.network_interface_id, "region_id": REGION}
    sdk.attach_network_interface(ecs.AttachNetworkInterfaceRequest(instance_id=first, **both))
    given = sdk.assign_private_ip_addresses(
        ecs.AssignPrivateIpAddressesRequest(secondary_private_ip_address_count=2, client_token="one", **both)
    ).body.assigned_private_ip_addresses_set
    listed = sdk.describe_network_interfaces(ecs.DescribeNetworkInterfacesRequest(region_id=REGION, instance_id=first))
    primary, other = listed.body.network_interface_sets.network_interface_set
    assert (primary.type, other.type, other.status) == ("Primary", "Secondary", "InUse")
    addresses = [each.private_ip_address for each in other.private_ip_sets.private_ip_set]
    assert addresses[3:] == given.private_ip_set.private_ip_address
    sdk.unassign_private_ip_addresses(ecs.UnassignPrivateIpAddressesRequest(private_ip_address=addresses[1:3], **both))
    sdk.detach_network_interface(ecs.DetachNetworkInterfaceRequest(instance_id=first, **both))
    sdk.delete_network_interface(ecs.DeleteNetworkInterfaceRequest(**both))
    for instance_id in (first, second):
        sdk.stop_instance(ecs.StopInstanceRequest(instance_id=instance_id))
        sdk.delete_instance(ecs.DeleteInstanceRequest(instance_id=instance_id))
    assert not cloud.do(lambda one: (one.interfaces.current, one.instances.current))[0]


def test_vswitches_page_by_number_and_interfaces_by_token(cloud: Running, sdk: Ecs, place: tuple[str, str]) -> None:
    client = Vpc(config(cloud))
    pages = [
        client.describe_vswitches(vpc.DescribeVSwitchesRequest(region_id=REGION, page_size=2, page_number=number)).body
        for number in (1, 2, 3)
    ]
    assert [len(page.v_switches.v_switch) for page in pages] == [2, 1, 0]
    assert pages[0].total_count == 3
    for _ in range(12):
        sdk.create_network_interface(
            ecs.CreateNetworkInterfaceRequest(region_id=REGION, v_switch_id=place[0], security_group_ids=[place[1]])
        )
    token, seen = None, []
    while token != "":
        asked = ecs.DescribeNetworkInterfacesRequest(region_id=REGION, max_results=10, next_token=token)
        page = sdk.describe_network_interfaces(asked).body
        seen += [each.network_interface_id for each in page.network_interface_sets.network_interface_set]
        token = page.next_token
    assert len(set(seen)) == len(seen) == 12
    wrong = ecs.DescribeNetworkInterfacesRequest(region_id=REGION, max_results=10, next_token="made-up")
    assert refused(lambda: sdk.describe_network_interfaces(wrong)) == ("InvalidParameter.NextToken", 400)


CASES: list[tuple[Callable[[Ecs, str, str], object], str, int]] = [
    (lambda sdk, _v, _g: sdk.describe_instances(ecs.DescribeInstancesRequest(region_id="mars-1")),
     "InvalidRegionId.NotFound", 404),
    (lambda sdk, _v, _g: sdk.describe_instances(ecs.DescribeInstancesRequest(region_id=REGION, instance_ids="i-1")),
     "InvalidParameter", 400),
    (lambda sdk, _v, _g: sdk.describe_instances(ecs.DescribeInstancesRequest(region_id=REGION, max_results=101)),
     "InvalidParameter", 400),
    (lambda sdk, _v, _g: sdk.describe_disks(ecs.DescribeDisksRequest(region_id=REGION)), "InvalidAction.NotFound", 404),
    (lambda sdk, vswitch, _g: sdk.create_network_interface(
        ecs.CreateNetworkInterfaceRequest(region_id=REGION, v_switch_id=vswitch)),
     "MissingParameter.SecurityGroupId", 400),
    (lambda sdk, vswitch, group: sdk.create_network_interface(ecs.CreateNetworkInterfaceRequest(
        region_id=REGION, v_switch_id=vswitch, security_group_id=group, secondary_private_ip_address_count=11)),
     "InvalidParameter", 400),
    (lambda sdk, vswitch, group: sdk.create_network_interface(ecs.CreateNetworkInterfaceRequest(
        region_id=REGION, v_switch_id=vswitch, security_group_id=group, primary_ip_address="10.0.15.253")),
     "InvalidVSwitchId.IpInvalid", 400),
    (lambda sdk, vswitch, group: sdk.create_network_interface(ecs.CreateNetworkInterfaceRequest(
        region_id=REGION, v_switch_id=vswitch, security_group_id=group, client_token="x" * 65)),
     "InvalidClientToken.Malformed", 400),
    (lambda sdk, vswitch, group: sdk.create_network_interface(ecs.CreateNetworkInterfaceRequest(
        region_id=REGION, v_switch_id=vswitch, security_group_id=group,
        tag=[ecs.CreateNetworkInterfaceRequestTag(key="acs:mine", value="x")])),
     "InvalidTagKey.Malformed", 400),
    (lambda sdk, _v, _g: sdk.assign_private_ip_addresses(
        ecs.AssignPrivateIpAddressesRequest(region_id=REGION, network_interface_id="eni-1")),
     "InvalidEniId.NotFound", 404),
]  # fmt: skip


@pytest.mark.parametrize(("call", "code", "status"), CASES)
def test_what_the_cloud_would_refuse_is_refused(
    sdk: Ecs, place: tuple[str, str], call: Callable[[Ecs, str, str], object], code: str, status: int
) -> None:
    assert refused(lambda: call(sdk, *place)) == (code, status)


def test_a_call_that_nobody_signed_is_refused(cloud: Running) -> None:
    request = urllib.request.Request(
        f"{cloud.url}/?Action=DescribeInstances&Version=2014-05-26&RegionId={REGION}", method="POST"
    )
    with pytest.raises(urllib.error.HTTPError) as answer:
        urllib.request.urlopen(request)
    assert json.loads(answer.value.read())["Code"] == "IncompleteSignature"


async def test_the_admin_endpoint_launches_past_throttling_and_tells_the_next_hop(cloud: Running) -> None:
    host, _, port = cloud.url.removeprefix("http://").rpartition(":")
    async with CloudAdmin(host, int(port)) as admin:
        await admin.set_faults(throttle={"mutate": {"rate": 0, "burst": 1}}, fail=[{"action": "*", "code": "cut"}])
        instance_id = await admin.launch("ecs.g6.xlarge", tags={"a": "b"})
        document = await admin.document()
        (interface,) = document["interfaces"]
        assert (interface["instance_id"], interface["status"]) == (instance_id, "in-use")
        assert (interface["subnet_cidr"], interface["gateway"]) == ("10.0.0.0/20", "10.0.15.253")
        (port_,) = (await admin.state()).ports.values()
        assert port_.gateway == "10.0.15.253"
        await admin.terminate(instance_id)
        assert (await admin.document())["instances"] == []


def test_the_module_says_where_it_listens_and_stops_when_told(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lab.fake_alibaba", "--port", "0", "--subnet", "b=10.0.3.0/24", "--seed", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    ready: dict[str, Any] = json.loads(process.stdout.readline())
    assert ready["ready"] is True
    assert ready["endpoint"].startswith("http://127.0.0.1:")
    assert [(each["cidr"], each["zone"]) for each in ready["subnets"]] == [("10.0.3.0/24", "eu-central-1b")]
    process.terminate()
    assert process.wait(10) == 0
    done = subprocess.run([*command, "--subnet", "nonsense"], capture_output=True, text=True, check=False)
    assert (done.returncode, "ZONE=CIDR" in done.stderr) == (2, True)
