"""Everything that can happen, in any order: no address in two places, none in use taken away, nothing leaked.

machine.py says what can happen to nodes as they are by default; here are those with policies, with whole prefixes, and
in VPCs whose ranges overlap.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule

from ipam.degradation import Degradation
from ipam.model import Policy
from ipam.tags import CLUSTER_TAG
from ipam.views import PoolView
from ipam.watermarks import needed
from tests.unit.ipam.machine import CONFIG, IpamMachine
from tests.unit.ipam.moody import SimNode


class PolicyMachine(IpamMachine):
    """The same with whole interfaces and batches, and an operator who changes targets and levels."""

    config = replace(CONFIG, release_interfaces=True, release_batch=3, release_interval_s=10.0)

    @rule(
        number=IpamMachine.NODE,
        policy=st.sampled_from(
            [
                Policy(), Policy(warm_addresses=0), Policy(warm_addresses=3), Policy(warm_interfaces=1),
                Policy(warm_interfaces=0), Policy(warm_addresses=1, warm_up=6), Policy(follow_demand=True),
            ]
        ),
    )  # fmt: skip
    def operator_changes_policy(self, number: int, policy: Policy) -> None:
        node = self._node(number)
        node.spec = replace(node.spec, policy=policy)
        if node.up:
            self._connect(node)

    @rule(level=st.sampled_from(Degradation), lasts_s=st.sampled_from([0.0, 20.0, 200.0]))
    def operator_sets_a_level(self, level: Degradation, lasts_s: float) -> None:
        self._service(self.site.service.set_level(level, lasts_s=lasts_s))

    @rule()
    def all_calms_down(self) -> None:
        self.kill_at = None
        self.site.store.fail.clear()
        self.settle_down(2)
        self._service(self.site.service.set_level(Degradation.NORMAL))
        super().all_calms_down()

    def nothing_is_above_the_marks(self, node: SimNode, view: PoolView) -> None:
        if node.spec.policy.warm_interfaces is None:
            super().nothing_is_above_the_marks(node, view)
            return
        # Pods may lie on every interface: what goes, goes whole, and only when nothing on it is used.
        interfaces = self.cloud.instance(node.spec.instance_id).interfaces
        idle = [each for each in interfaces if each.addresses and not node.pods & set(each.addresses)]
        ours = [each for each in idle if each.device_index and CLUSTER_TAG in each.tags]
        left = [view.attached - len(each.addresses) for each in ours]
        assert not any(not needed(one, len(node.pods), view.marks) for one in left) or not view.excess


class PrefixMachine(IpamMachine):
    """The same with nodes that get whole prefixes, while subnets have them, and IPv6."""

    type_ = "m5.large"
    wanted: ClassVar[dict[str, Any]] = {"prefix_delegation": True, "ipv6": True}

    def nothing_is_above_the_marks(self, node: SimNode, view: PoolView) -> None:
        # What is too much may lie in prefixes of which pods use a part: these stay.
        assert not view.excess, self.site.service.explain(node.spec.name)


class OverlapMachine(IpamMachine):
    """The same in two VPCs with the same ranges, so that nodes of both have the same addresses; an instance may be
    replaced by one of the other VPC."""

    places: ClassVar[tuple[str, ...]] = ("subnet-a", "subnet-c", "subnet-c")

    @rule(number=IpamMachine.NODE, subnets=st.sampled_from([(), ("subnet-a", "subnet-c"), ("subnet-b", "subnet-d")]))
    def operator_changes_subnets(self, number: int, subnets: tuple[str, ...]) -> None:
        super().operator_changes_subnets(number, subnets)

    @rule(groups=st.sampled_from([(), ("sg-none",)]), number=IpamMachine.NODE)
    def operator_changes_groups(self, groups: tuple[str, ...], number: int) -> None:
        super().operator_changes_groups(groups, number)


TestIpamMachine = IpamMachine.TestCase
TestIpamMachine.settings = settings(
    max_examples=20, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestPolicyMachine = PolicyMachine.TestCase
TestPolicyMachine.settings = settings(TestIpamMachine.settings, max_examples=10)
TestPrefixMachine = PrefixMachine.TestCase
TestPrefixMachine.settings = settings(TestIpamMachine.settings, max_examples=10)
TestOverlapMachine = OverlapMachine.TestCase
TestOverlapMachine.settings = settings(TestIpamMachine.settings, max_examples=10)
