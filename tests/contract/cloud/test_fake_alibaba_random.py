"""Whatever is called in whatever order, the fake Alibaba Cloud keeps the rules of a VPC.

After every call: no address belongs to two interfaces or lies in a prefix of another, none is reserved, the free count
is exact, no instance is over its type's limits, and what was refused has changed nothing.
"""

from __future__ import annotations

import ipaddress
import json
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lab.fake_alibaba import state
from lab.fake_alibaba.actions import ACTIONS
from lab.fake_alibaba.cloud import Cloud
from lab.fake_alibaba.errors import ApiError
from lab.fake_alibaba.seed import Seed, plant

SEED = Seed.model_validate(
    {
        "vpc": [
            {
                "subnets": [{"zone": "a", "cidr": "10.0.0.0/26"}, {"zone": "a", "cidr": "10.0.0.64/28"}],
                "security_groups": [{"name": "nodes"}],
            }
        ]
    }
)
COUNTS = st.integers(0, 12)
PICK = st.integers(0, 1 << 16)


class AlibabaMachine(RuleBasedStateMachine):
    @initialize(chance=st.integers(0, 1000))
    def begin(self, chance: int) -> None:
        self.now = 1_000_000.0
        self.cloud = Cloud(account=SEED.account, region=SEED.region, seed=chance, clock=lambda: self.now)
        plant(self.cloud, SEED)
        (self.group,) = self.cloud.groups.current

    def call(self, name: str, **parameters: Any) -> Any:
        self.cloud.settle()
        before = state.document(self.cloud)
        written = {key: str(value) if isinstance(value, int) else value for key, value in parameters.items() if value}
        try:
            answer = ACTIONS[name].perform(self.cloud, written)
        except ApiError:
            assert _facts(state.document(self.cloud)) == _facts(before)
            return None
        json.dumps(answer)
        return answer

    def pick(self, table: str, number: int) -> str:
        ids = list(getattr(self.cloud, table).current)
        prefix = {"interfaces": "eni", "instances": "i", "vswitches": "vsw", "eips": "eip"}[table]
        return ids[number % len(ids)] if ids else f"{prefix}-bp1000000000000000000"

    @rule(type_=st.sampled_from(["ecs.t6-c1m1.large", "ecs.g6.large", "ecs.g7.xlarge"]), vswitch=PICK,
          count=st.integers(1, 3))  # fmt: skip
    def run(self, type_: str, vswitch: int, count: int) -> None:
        self.call(
            "RunInstances", ImageId="m-1", InstanceType=type_, VSwitchId=self.pick("vswitches", vswitch), Amount=count,
            SecurityGroupIds=[self.group],
        )  # fmt: skip

    @rule(instance=PICK, force=st.booleans())
    def delete_instance(self, instance: int, force: bool) -> None:
        self.call("DeleteInstance", InstanceId=self.pick("instances", instance), Force="true" if force else "")

    @rule(instance=PICK)
    def stop(self, instance: int) -> None:
        self.call("StopInstance", InstanceId=self.pick("instances", instance))

    @rule(vswitch=PICK, count=COUNTS, prefixes=st.integers(0, 2), token=st.integers(0, 5), stays=st.booleans())
    def create(self, vswitch: int, count: int, prefixes: int, token: int, stays: bool) -> None:
        self.call(
            "CreateNetworkInterface", VSwitchId=self.pick("vswitches", vswitch), SecurityGroupIds=[self.group],
            SecondaryPrivateIpAddressCount=count, Ipv4PrefixCount=prefixes, DeleteOnRelease="false" if stays else "",
            ClientToken=f"token-{token}" if token else "",
        )  # fmt: skip

    @rule(vswitch=PICK, host=st.integers(0, 90), count=COUNTS)
    def create_with_this_address(self, vswitch: int, host: int, count: int) -> None:
        self.call(
            "CreateNetworkInterface", VSwitchId=self.pick("vswitches", vswitch), SecurityGroupIds=[self.group],
            PrimaryIpAddress=f"10.0.0.{host}", SecondaryPrivateIpAddressCount=count,
        )  # fmt: skip

    @rule(interface=PICK, instance=PICK)
    def attach(self, interface: int, instance: int) -> None:
        self.call(
            "AttachNetworkInterface", NetworkInterfaceId=self.pick("interfaces", interface),
            InstanceId=self.pick("instances", instance),
        )  # fmt: skip

    @rule(interface=PICK)
    def detach(self, interface: int) -> None:
        interface_id = self.pick("interfaces", interface)
        known = self.cloud.interfaces.current.get(interface_id)
        instance_id = known.instance_id if known else ""
        self.call("DetachNetworkInterface", NetworkInterfaceId=interface_id, InstanceId=instance_id)

    @rule(interface=PICK)
    def delete(self, interface: int) -> None:
        self.call("DeleteNetworkInterface", NetworkInterfaceId=self.pick("interfaces", interface))

    @rule(interface=PICK, count=COUNTS, prefixes=st.booleans(), token=st.integers(0, 5))
    def assign(self, interface: int, count: int, prefixes: bool, token: int) -> None:
        what = "Ipv4PrefixCount" if prefixes else "SecondaryPrivateIpAddressCount"
        self.call(
            "AssignPrivateIpAddresses", NetworkInterfaceId=self.pick("interfaces", interface), **{what: count},
            ClientToken=f"token-{token}" if token else "",
        )  # fmt: skip

    @rule(interface=PICK, hosts=st.lists(st.integers(0, 90), min_size=1, max_size=3))
    def assign_these(self, interface: int, hosts: list[int]) -> None:
        self.call(
            "AssignPrivateIpAddresses", NetworkInterfaceId=self.pick("interfaces", interface),
            PrivateIpAddress=[f"10.0.0.{host}" for host in hosts],
        )  # fmt: skip

    @rule(interface=PICK, blocks=st.lists(st.integers(0, 6), min_size=1, max_size=2))
    def assign_these_prefixes(self, interface: int, blocks: list[int]) -> None:
        self.call(
            "AssignPrivateIpAddresses", NetworkInterfaceId=self.pick("interfaces", interface),
            Ipv4Prefix=[f"10.0.0.{block * 16}/28" for block in blocks],
        )  # fmt: skip

    @rule(interface=PICK, first=st.integers(0, 3), many=st.integers(1, 4), prefixes=st.booleans())
    def unassign(self, interface: int, first: int, many: int, prefixes: bool) -> None:
        interface_id = self.pick("interfaces", interface)
        known = self.cloud.interfaces.current.get(interface_id)
        addresses = known.addresses[first : first + many] if known else ("10.0.0.9",)
        blocks = known.prefixes if known and prefixes else ()
        self.call(
            "UnassignPrivateIpAddresses", NetworkInterfaceId=interface_id, PrivateIpAddress=list(addresses),
            Ipv4Prefix=list(blocks),
        )  # fmt: skip

    @rule()
    def allocate_eip(self) -> None:
        self.call("AllocateEipAddress")

    @rule(eip=PICK, to=PICK, whole=st.booleans())
    def associate(self, eip: int, to: int, whole: bool) -> None:
        kind, table = ("EcsInstance", "instances") if whole else ("NetworkInterface", "interfaces")
        self.call(
            "AssociateEipAddress", AllocationId=self.pick("eips", eip), InstanceType=kind,
            InstanceId=self.pick(table, to),
        )  # fmt: skip

    @rule(eip=PICK, release=st.booleans())
    def part(self, eip: int, release: bool) -> None:
        self.call("ReleaseEipAddress" if release else "UnassociateEipAddress", AllocationId=self.pick("eips", eip))

    @rule(seconds=st.floats(0, 2), attach_s=st.floats(0, 1), lag_s=st.sampled_from([0.0, 0.5, 1.5]))
    def time_passes(self, seconds: float, attach_s: float, lag_s: float) -> None:
        self.now += seconds
        self.cloud.faults.attach_s = self.cloud.faults.detach_s = attach_s
        self.cloud.faults.boot_s = self.cloud.faults.create_s = attach_s
        self.cloud.faults.eventual_consistency_s = lag_s
        self.cloud.settle()

    @rule()
    def read_everything(self) -> None:
        for name in (
            "DescribeInstances", "DescribeNetworkInterfaces", "DescribeVSwitches", "DescribeVpcs",
            "DescribeSecurityGroups", "DescribeEipAddresses",
        ):  # fmt: skip
            self.call(name)

    @invariant()
    def the_rules_hold(self) -> None:
        owners: Counter[str] = Counter()
        taken: Counter[str] = Counter()
        for interface in self.cloud.interfaces.current.values():
            blocks = [address for prefix in interface.prefixes for address in map(str, ipaddress.ip_network(prefix))]
            owners.update([*interface.addresses, *blocks])
            taken[interface.vswitch_id] += len(interface.addresses) + len(blocks)
            network = ipaddress.ip_network(self.cloud.vswitches.current[interface.vswitch_id].cidr)
            reserved = {str(network[number]) for number in (0, -3, -2, -1)}
            assert all(ipaddress.ip_address(each) in network for each in (*interface.addresses, *blocks))
            assert not reserved & {*interface.addresses, *blocks}
            assert bool(interface.instance_id) == (interface.status not in ("Creating", "Available"))
        assert all(count == 1 for count in owners.values()), owners.most_common(3)
        for vswitch in self.cloud.vswitches.current.values():
            size = ipaddress.ip_network(vswitch.cidr).num_addresses
            assert self.cloud.spaces[vswitch.id].free == size - 4 - taken[vswitch.id]
        _limits_hold(self.cloud)

    @invariant()
    def elastic_ips_lead_where_interfaces_say(self) -> None:
        by_eip = {each.eip_id: each.id for each in self.cloud.interfaces.current.values() if each.eip_id}
        assert by_eip == {each.id: each.interface_id for each in self.cloud.eips.current.values() if each.interface_id}


def _limits_hold(cloud: Cloud) -> None:
    for instance in cloud.instances.current.values():
        interfaces = cloud.interfaces_of(instance.id)
        places = [each.place for each in interfaces]
        assert len(set(places)) == len(places) <= instance.type.interfaces
        assert interfaces[0].kind == "Primary"
        assert all(each.slots <= instance.type.ipv4_per_interface for each in interfaces)


def _facts(document: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key != "revision"}


AlibabaMachine.TestCase.settings = settings(
    max_examples=50, stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestAlibabaMachine = AlibabaMachine.TestCase
