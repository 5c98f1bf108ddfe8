"""Planning of cloud calls, told as stories of one node, then properties for any instance."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from hypothesis import given
from hypothesis import strategies as st

from ipam.model import CloudInterface, Instance, Limits, NodeSpec, SecurityGroup, Subnet
from ipam.plan import (
    CallLimits,
    Plan,
    PlannedAssign,
    PlannedCreate,
    Shortfall,
    attached,
    capacity,
    plan_allocation,
)

LARGE = Limits("m5.large", interfaces=3, ipv4_per_interface=10)
CALLS = CallLimits(creates_interfaces=True, max_addresses_per_call=64, max_addresses_on_create=64)
OWN = Subnet("subnet-own", "10.0.0.0/24", "zone-a", "vpc-1", 100)
BIG = Subnet("subnet-big", "10.0.1.0/24", "zone-a", "vpc-1", 200, tags=MappingProxyType({"pods": "yes"}))
OTHER_ZONE = Subnet("subnet-far", "10.0.2.0/24", "zone-b", "vpc-1", 250, tags=MappingProxyType({"pods": "yes"}))
OTHER_VPC = Subnet("subnet-out", "10.9.0.0/24", "zone-a", "vpc-2", 250)
SUBNETS = (OWN, BIG, OTHER_ZONE, OTHER_VPC)
GROUPS = (SecurityGroup("sg-1", "vpc-1"), SecurityGroup("sg-pods", "vpc-1", MappingProxyType({"role": "pods"})))
SPEC = NodeSpec("n1", "i-1")


def interface(index: int, addresses: int = 0, **changes: object) -> CloudInterface:
    made = CloudInterface(
        f"eni-{index}", "02:00:00:00:00:01", "subnet-own", "vpc-1", "zone-a", f"10.0.0.{200 + index}",
        tuple(f"10.0.{index}.{each}" for each in range(addresses)), "i-1", f"attach-{index}", index,
        security_group_ids=("sg-1",),
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def instance(*interfaces: CloudInterface) -> Instance:
    return Instance("i-1", "m5.large", "zone-a", "vpc-1", "subnet-own", interfaces=interfaces)


def plan(machine: Instance, want: int, spec: NodeSpec = SPEC, **changes: object) -> Plan:
    known: dict[str, object] = {"limits": LARGE, "calls": CALLS, "subnets": SUBNETS, "security_groups": GROUPS}
    return plan_allocation(spec, machine, want=want, **(known | changes))  # type: ignore[arg-type]


def test_what_fits_on_the_first_interface_takes_one_call() -> None:
    assert plan(instance(interface(0)), 8).calls == (PlannedAssign("eni-0", "subnet-own", 8),)


def test_what_does_not_fit_goes_to_a_new_interface_in_the_nodes_own_subnet() -> None:
    made = plan(instance(interface(0, 4)), 8)
    assert made.calls == (
        PlannedAssign("eni-0", "subnet-own", 5),
        PlannedCreate("subnet-own", ("sg-1",), 1, 0, 3),
    )
    assert made.shortfall is None


def test_ten_addresses_on_an_m4_large_take_four_calls() -> None:
    made = plan(instance(interface(0)), 10, limits=Limits("m4.large", 2, 10))
    assert [type(call) for call in made.calls] == [PlannedAssign, PlannedCreate]  # assign; create, attach, protect


def test_interfaces_below_the_first_index_carry_no_pods() -> None:
    made = plan(instance(interface(0)), 3, replace(SPEC, first_interface_index=1))
    assert made.calls == (PlannedCreate("subnet-own", ("sg-1",), 1, 0, 3),)


def test_a_taken_index_is_skipped() -> None:
    made = plan(instance(interface(0, 9), interface(1, 9)), 3)
    assert made.calls == (PlannedCreate("subnet-own", ("sg-1",), 2, 0, 3),)


def test_an_excluded_interface_is_left_alone_but_keeps_its_slot() -> None:
    spec = replace(SPEC, exclude_interface_tags={"no_manage": "true"})
    machine = instance(interface(0, 9), interface(1, tags={"no_manage": "true"}))
    assert plan(machine, 20, spec).calls == (PlannedCreate("subnet-own", ("sg-1",), 2, 0, 9),)
    assert attached(spec, machine) == 9
    assert capacity(spec, machine, LARGE) == 18


def test_an_interface_that_is_still_attaching_is_not_filled() -> None:
    assert not any(
        isinstance(call, PlannedAssign) for call in plan(instance(interface(0, status="attaching")), 3).calls
    )


def test_many_addresses_are_split_by_what_one_call_may_bring() -> None:
    few = replace(CALLS, max_addresses_per_call=4, max_addresses_on_create=2)
    calls = plan(instance(interface(0)), 12, calls=few).calls
    assert [call.count for call in calls if isinstance(call, PlannedAssign)] == [4, 4, 1]
    assert [call.secondary_count for call in calls if isinstance(call, PlannedCreate)] == [2, 1]


def test_a_full_own_subnet_gives_way_to_the_one_with_most_free_in_zone_and_vpc() -> None:
    made = plan(instance(interface(0, 9)), 3, subnets=(replace(OWN, free=1), BIG, OTHER_ZONE, OTHER_VPC))
    assert made.calls == (PlannedCreate("subnet-big", ("sg-1",), 1, 0, 3),)


def test_a_blocked_subnet_is_passed_over_for_new_and_old_interfaces() -> None:
    made = plan(instance(interface(0, 4)), 3, blocked=frozenset({"subnet-own"}))
    assert made.calls == (PlannedCreate("subnet-big", ("sg-1",), 1, 0, 3),)


def test_given_ids_then_given_tags_choose_the_subnet() -> None:
    machine = instance(interface(0, 9))
    by_id = plan(machine, 1, replace(SPEC, subnet_ids=("subnet-big",)))
    by_tag = plan(machine, 1, replace(SPEC, subnet_tags={"pods": "yes"}))
    assert [call.subnet_id for call in (*by_id.calls, *by_tag.calls)] == ["subnet-big", "subnet-big"]


def test_no_subnet_of_the_given_ones_is_in_the_zone() -> None:
    made = plan(instance(interface(0, 9)), 1, replace(SPEC, subnet_ids=("subnet-far",)))
    assert made.shortfall is Shortfall.NO_SUBNET
    assert "subnet-far" in made.why
    assert "zone-a" in made.why
    assert made.remedy


def test_all_subnets_are_full() -> None:
    full = [replace(each, free=0) for each in SUBNETS]
    made = plan(instance(interface(0)), 5, subnets=full)
    assert (made.calls, made.brings, made.shortfall) == ((), 0, Shortfall.NO_SUBNET)


def test_security_groups_by_id_by_tag_or_those_of_the_first_interface() -> None:
    machine = instance(interface(0, 9))

    def groups(spec: NodeSpec) -> list[tuple[str, ...]]:
        return [call.security_group_ids for call in plan(machine, 1, spec).calls if isinstance(call, PlannedCreate)]

    assert groups(replace(SPEC, security_group_ids=("sg-pods",))) == [("sg-pods",)]
    assert groups(replace(SPEC, security_group_tags={"role": "pods"})) == [("sg-pods",)]
    assert groups(SPEC) == [("sg-1",)]


def test_a_missing_security_group_is_named() -> None:
    made = plan(instance(interface(0, 9)), 1, replace(SPEC, security_group_ids=("sg-gone",)))
    assert made.shortfall is Shortfall.NO_SECURITY_GROUP
    assert "sg-gone" in made.why


def test_a_full_instance_is_at_capacity() -> None:
    made = plan(instance(*(interface(index, 9) for index in range(3))), 1)
    assert made.shortfall is Shortfall.AT_CAPACITY
    assert "m5.large" in made.why


def test_an_unknown_type_is_told_as_such() -> None:
    assert plan(instance(interface(0)), 1, limits=None).shortfall is Shortfall.UNKNOWN_TYPE


MACHINES = st.lists(st.integers(0, 9), min_size=1, max_size=3).map(
    lambda counts: instance(*(interface(index, count) for index, count in enumerate(counts)))
)
FREE = st.tuples(st.integers(0, 40), st.integers(0, 40)).map(
    lambda free: (replace(OWN, free=free[0]), replace(BIG, free=free[1]))
)


@given(MACHINES, st.integers(0, 60), FREE, st.sets(st.sampled_from(["subnet-own", "subnet-big"])), st.integers(1, 12))
def test_a_plan_is_possible(
    machine: Instance, want: int, subnets: tuple[Subnet, ...], blocked: set[str], per_call: int
) -> None:
    calls = CallLimits(True, per_call, per_call)
    made = plan(machine, want, subnets=subnets, blocked=frozenset(blocked), calls=calls)
    taken = {subnet.id: 0 for subnet in subnets}
    held = {each.id: len(each.addresses) for each in machine.interfaces}
    indices = {each.device_index for each in machine.interfaces}
    brought = 0
    for call in made.calls:
        assert call.subnet_id not in blocked
        if isinstance(call, PlannedAssign):
            assert 0 < call.count <= per_call
            held[call.interface_id] += call.count
            taken[call.subnet_id] += call.count
            brought += call.count
        else:
            assert 0 < call.secondary_count <= min(per_call, 9)
            assert call.device_index not in indices
            indices.add(call.device_index)
            taken[call.subnet_id] += call.secondary_count + 1
            brought += call.secondary_count
    assert brought == made.brings <= want
    assert (brought == want) == (made.shortfall is None)
    assert all(count <= 9 for count in held.values())
    assert len(indices) <= 3
    assert all(taken[subnet.id] <= subnet.free for subnet in subnets)
    assert attached(SPEC, machine) + brought <= capacity(SPEC, machine, LARGE)
