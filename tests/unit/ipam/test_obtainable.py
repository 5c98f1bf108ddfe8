"""How many more addresses a node could get, and what bounds that."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from hypothesis import given
from hypothesis import strategies as st

from ipam.model import CloudInterface, Instance, Limits, NodeSpec, SecurityGroup, Subnet, Watermarks
from ipam.obtainable import Obtainable, obtainable
from ipam.plan import CallLimits, plan_allocation

LARGE = Limits("m5.large", interfaces=3, ipv4_per_interface=10)
CREATES = CallLimits(creates_interfaces=True, max_addresses_per_call=64, max_addresses_on_create=64)
GIVEN = replace(CREATES, creates_interfaces=False)
OWN = Subnet("subnet-own", "10.0.0.0/24", "zone-a", "vpc-1", 100)
TAGGED = Subnet("subnet-tag", "10.0.1.0/24", "zone-a", "vpc-1", 200, tags=MappingProxyType({"pods": "yes"}))
FAR = Subnet("subnet-far", "10.0.2.0/24", "zone-b", "vpc-1", 250)
SPEC = NodeSpec("n1", "i-1")


def machine(held: int, *, interfaces: int = 1) -> Instance:
    made = [
        CloudInterface(
            f"eni-{index}", "02:00:00:00:00:01", "subnet-own", "vpc-1", "zone-a", f"10.0.9.{index}",
            tuple(f"10.0.{index}.{each}" for each in range(held if index == 0 else 9)), "i-1", f"a-{index}", index,
            security_group_ids=("sg-1",),
        )
        for index in range(interfaces)
    ]  # fmt: skip
    return Instance("i-1", "m5.large", "zone-a", "vpc-1", "subnet-own", interfaces=tuple(made))


def found(
    spec: NodeSpec, instance: Instance, *subnets: Subnet, calls: CallLimits = CREATES, blocked: tuple[str, ...] = ()
) -> Obtainable:
    return obtainable(
        spec, instance, LARGE, calls=calls, subnets={each.id: each for each in subnets}, blocked=blocked
    )  # fmt: skip


def test_limits_bound_a_node_in_a_roomy_subnet() -> None:
    seen = found(SPEC, machine(4), OWN, TAGGED, FAR)
    assert (seen.addresses, seen.limited_by) == (27 - 4, "limits")
    assert seen.subnets == {"subnet-own": 100, "subnet-tag": 200}, "those of other zones are out of reach"


def test_subnets_bound_it_when_they_are_nearly_empty_and_new_interfaces_take_some_for_themselves() -> None:
    seen = found(SPEC, machine(9), replace(OWN, free=6))
    assert (seen.addresses, seen.limited_by) == (5, "subnets")


def test_an_interface_that_is_there_needs_no_address_for_itself() -> None:
    assert found(SPEC, machine(4), replace(OWN, free=3)).addresses == 3


def test_only_subnets_that_were_named_are_in_reach_of_new_interfaces() -> None:
    spec = replace(SPEC, subnet_tags={"pods": "yes"})
    assert found(spec, machine(9), OWN, TAGGED).subnets == {"subnet-tag": 200}
    assert found(spec, machine(4), OWN, TAGGED).subnets == {"subnet-own": 100, "subnet-tag": 200}


def test_a_subnet_that_is_passed_over_has_nothing_now() -> None:
    seen = found(SPEC, machine(4), OWN, blocked=("subnet-own",))
    assert (seen.addresses, seen.limited_by, seen.subnets) == (0, "subnets", {"subnet-own": 0})


def test_where_interfaces_are_given_only_theirs_count() -> None:
    seen = found(SPEC, machine(4), OWN, TAGGED, calls=GIVEN)
    assert (seen.addresses, seen.subnets) == (5, {"subnet-own": 100})


def test_a_nodes_own_maximum_bounds_it_too() -> None:
    spec = replace(SPEC, watermarks=Watermarks(max_allocate=10))
    assert found(spec, machine(4), OWN).addresses == 6
    assert found(spec, machine(9, interfaces=2), OWN).addresses == 0


@given(
    held=st.integers(0, 9), interfaces=st.integers(1, 3), own=st.integers(0, 40), other=st.integers(0, 40),
    creates=st.booleans(),
)  # fmt: skip
def test_no_plan_brings_more(held: int, interfaces: int, own: int, other: int, creates: bool) -> None:
    instance, calls = machine(held, interfaces=interfaces), CREATES if creates else GIVEN
    subnets = (replace(OWN, free=own), replace(TAGGED, free=other))
    most = found(SPEC, instance, *subnets, calls=calls).addresses
    plan = plan_allocation(
        SPEC, instance, want=100, limits=LARGE, calls=calls, subnets=subnets,
        security_groups=[SecurityGroup("sg-1", "vpc-1")],
    )  # fmt: skip
    assert plan.brings <= most


PREFIXED = replace(CREATES, prefix_size=16)
NITRO = replace(LARGE, prefixes=True)


def of_prefixes(*subnets: Subnet, blocked: tuple[str, ...] = (), held: int = 4) -> Obtainable:
    return obtainable(
        replace(SPEC, prefix_delegation=True), machine(held), NITRO, calls=PREFIXED,
        subnets={each.id: each for each in subnets}, blocked=blocked,
    )  # fmt: skip


def test_a_slot_holds_a_prefix_where_a_whole_block_is_left() -> None:
    assert (of_prefixes(replace(OWN, free=1000)).addresses, of_prefixes(replace(OWN, free=1000)).by_limits) == (
        368,
        368,
    )


def test_in_a_fragmented_subnet_slots_hold_single_addresses() -> None:
    """Five slots of the interface that is there, and nine of each of two more."""
    fragmented = replace(OWN, free=200, free_prefixes=0)
    assert (of_prefixes(fragmented).addresses, of_prefixes(fragmented).limited_by) == (23, "subnets")
    assert of_prefixes(replace(OWN, free=200, free_prefixes=2)).addresses == 2 * 16 + 21
    assert of_prefixes(replace(OWN, free=200), blocked=("subnet-own/prefixes",)).addresses == 23


@given(
    held=st.integers(0, 9), free=st.integers(0, 400), blocks=st.integers(0, 30), other=st.integers(0, 100),
    passed=st.booleans(),
)  # fmt: skip
def test_no_plan_with_prefixes_brings_more(held: int, free: int, blocks: int, other: int, passed: bool) -> None:
    subnets = (replace(OWN, free=free, free_prefixes=blocks), replace(TAGGED, free=other))
    blocked = ("subnet-own/prefixes",) if passed else ()
    plan = plan_allocation(
        replace(SPEC, prefix_delegation=True), machine(held), want=1000, limits=NITRO, calls=PREFIXED,
        subnets=subnets, security_groups=[SecurityGroup("sg-1", "vpc-1")], blocked=frozenset(blocked),
    )  # fmt: skip
    assert plan.brings <= of_prefixes(*subnets, blocked=blocked, held=held).addresses
