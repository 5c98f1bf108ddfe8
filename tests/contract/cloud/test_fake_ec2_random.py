"""Whatever is called in whatever order, the fake EC2 keeps the rules of a VPC.

After every call: no address belongs to two interfaces or lies in a prefix of another, none is reserved, the free count
is exact, no instance is over its type's limits, and what was refused has changed nothing.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lab.fake_ec2 import state
from lab.fake_ec2.actions import ACTIONS
from lab.fake_ec2.cloud import Cloud
from lab.fake_ec2.errors import ApiError
from lab.fake_ec2.protocol import rendering
from lab.fake_ec2.seed import Seed, plant

SEED = Seed.model_validate(
    {
        "vpc": [
            {
                "ipv6": True,
                "subnets": [{"zone": "a", "cidr": "10.0.0.0/26"}, {"zone": "a", "cidr": "10.0.0.64/28"}],
            }
        ]
    }
)
COUNTS = st.integers(0, 12)
PICK = st.integers(0, 1 << 16)


class Ec2Machine(RuleBasedStateMachine):
    @initialize(chance=st.integers(0, 1000))
    def begin(self, chance: int) -> None:
        self.now = 1_000_000.0
        self.cloud = Cloud(account=SEED.account, region=SEED.region, seed=chance, clock=lambda: self.now)
        plant(self.cloud, SEED)

    def call(self, name: str, **parameters: Any) -> Any:
        self.cloud.settle()
        before = state.document(self.cloud)
        try:
            answer = ACTIONS[name].perform(self.cloud, parameters)
        except ApiError:
            assert _facts(state.document(self.cloud)) == _facts(before)
            return None
        rendering.answer(name, answer, "id")
        return answer

    def pick(self, table: str, number: int) -> str:
        ids = list(getattr(self.cloud, table).current)
        prefix = {"interfaces": "eni", "instances": "i", "subnets": "subnet"}[table]
        return ids[number % len(ids)] if ids else f"{prefix}-00000000"

    @rule(type_=st.sampled_from(["t3.nano", "m5.large", "t2.micro"]), subnet=PICK, count=st.integers(1, 3))
    def run(self, type_: str, subnet: int, count: int) -> None:
        subnet_id = self.pick("subnets", subnet)
        self.call("RunInstances", ImageId="ami-1", MinCount=1, MaxCount=count, InstanceType=type_, SubnetId=subnet_id)

    @rule(instance=PICK)
    def terminate(self, instance: int) -> None:
        self.call("TerminateInstances", InstanceIds=[self.pick("instances", instance)])

    @rule(subnet=PICK, count=COUNTS, prefixes=st.integers(0, 2), ipv6=st.integers(0, 2), token=st.integers(0, 5))
    def create(self, subnet: int, count: int, prefixes: int, ipv6: int, token: int) -> None:
        self.call(
            "CreateNetworkInterface", SubnetId=self.pick("subnets", subnet), SecondaryPrivateIpAddressCount=count,
            Ipv4PrefixCount=prefixes, Ipv6AddressCount=ipv6, ClientToken=f"token-{token}" if token else "",
        )  # fmt: skip

    @rule(interface=PICK, instance=PICK, index=st.integers(0, 3))
    def attach(self, interface: int, instance: int, index: int) -> None:
        self.call(
            "AttachNetworkInterface", NetworkInterfaceId=self.pick("interfaces", interface),
            InstanceId=self.pick("instances", instance), DeviceIndex=index,
        )  # fmt: skip

    @rule(interface=PICK)
    def detach(self, interface: int) -> None:
        attachments = list(self.cloud.attachments)
        chosen = attachments[interface % len(attachments)] if attachments else "eni-attach-00000000"
        self.call("DetachNetworkInterface", AttachmentId=chosen)

    @rule(interface=PICK)
    def delete(self, interface: int) -> None:
        self.call("DeleteNetworkInterface", NetworkInterfaceId=self.pick("interfaces", interface))

    @rule(interface=PICK, count=COUNTS)
    def assign(self, interface: int, count: int) -> None:
        self.call(
            "AssignPrivateIpAddresses", NetworkInterfaceId=self.pick("interfaces", interface),
            SecondaryPrivateIpAddressCount=count,
        )  # fmt: skip

    @rule(interface=PICK, hosts=st.lists(st.integers(0, 90), min_size=1, max_size=3), reassign=st.booleans())
    def assign_these(self, interface: int, hosts: list[int], reassign: bool) -> None:
        self.call(
            "AssignPrivateIpAddresses", NetworkInterfaceId=self.pick("interfaces", interface),
            PrivateIpAddresses=[f"10.0.0.{host}" for host in hosts], AllowReassignment=reassign,
        )  # fmt: skip

    @rule(interface=PICK, count=st.integers(1, 3))
    def assign_prefixes(self, interface: int, count: int) -> None:
        self.call(
            "AssignPrivateIpAddresses", NetworkInterfaceId=self.pick("interfaces", interface), Ipv4PrefixCount=count
        )

    @rule(interface=PICK, block=st.integers(0, 6))
    def assign_this_prefix(self, interface: int, block: int) -> None:
        self.call(
            "AssignPrivateIpAddresses", NetworkInterfaceId=self.pick("interfaces", interface),
            Ipv4Prefixes=[f"10.0.0.{block * 16}/28"],
        )  # fmt: skip

    @rule(interface=PICK, first=st.integers(0, 3), many=st.integers(1, 4))
    def unassign(self, interface: int, first: int, many: int) -> None:
        interface_id = self.pick("interfaces", interface)
        known = self.cloud.interfaces.current.get(interface_id)
        addresses = known.addresses[first : first + many] if known else ("10.0.0.9",)
        self.call("UnassignPrivateIpAddresses", NetworkInterfaceId=interface_id, PrivateIpAddresses=list(addresses))

    @rule(interface=PICK)
    def unassign_prefixes(self, interface: int) -> None:
        interface_id = self.pick("interfaces", interface)
        known = self.cloud.interfaces.current.get(interface_id)
        prefixes = list(known.prefixes) if known else []
        self.call("UnassignPrivateIpAddresses", NetworkInterfaceId=interface_id, Ipv4Prefixes=prefixes)

    @rule(seconds=st.floats(0, 2), attach_s=st.floats(0, 1), lag_s=st.sampled_from([0.0, 0.5, 1.5]))
    def time_passes(self, seconds: float, attach_s: float, lag_s: float) -> None:
        self.now += seconds
        self.cloud.faults.attach_s = self.cloud.faults.detach_s = attach_s
        self.cloud.faults.boot_s = attach_s
        self.cloud.faults.eventual_consistency_s = lag_s
        self.cloud.settle()

    @rule()
    def read_everything(self) -> None:
        for name in ("DescribeInstances", "DescribeNetworkInterfaces", "DescribeSubnets", "DescribeTags"):
            self.call(name)

    @invariant()
    def the_rules_hold(self) -> None:
        owners: Counter[str] = Counter()
        taken: Counter[str] = Counter()
        for interface in self.cloud.interfaces.current.values():
            blocks = [address for prefix in interface.prefixes for address in map(str, ipaddress.ip_network(prefix))]
            owners.update([*interface.addresses, *blocks, *interface.ipv6_addresses])
            taken[interface.subnet_id] += len(interface.addresses) + len(blocks)
            network = ipaddress.ip_network(self.cloud.subnets.current[interface.subnet_id].cidr)
            reserved = {str(network[number]) for number in (0, 1, 2, 3, -1)}
            assert all(ipaddress.ip_address(each) in network for each in (*interface.addresses, *blocks))
            assert not reserved & {*interface.addresses, *blocks}
        assert all(count == 1 for count in owners.values()), owners.most_common(3)
        for subnet in self.cloud.subnets.current.values():
            size = ipaddress.ip_network(subnet.cidr).num_addresses
            assert self.cloud.spaces[subnet.id].free == size - 5 - taken[subnet.id]
        _limits_hold(self.cloud)


def _limits_hold(cloud: Cloud) -> None:
    for instance in cloud.instances.current.values():
        interfaces = cloud.interfaces_of(instance.id)
        indices = [each.attachment.device_index for each in interfaces if each.attachment]
        assert len(set(indices)) == len(indices) <= instance.type.interfaces
        for each in interfaces:
            assert len(each.addresses) + len(each.prefixes) <= instance.type.ipv4_per_interface
            assert len(each.ipv6_addresses) <= instance.type.ipv6_per_interface
        assert (instance.state == "terminated") == (not interfaces)


def _facts(document: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key != "revision"}


Ec2Machine.TestCase.settings = settings(
    max_examples=150, stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestEc2Machine = Ec2Machine.TestCase
