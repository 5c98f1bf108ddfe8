"""Nothing is lost on the wire: what goes in comes out."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipam.errors import InvalidInput
from ipam.model import (
    AddressState,
    Claim,
    CloudInterface,
    Done,
    GiveUp,
    Instance,
    Intent,
    Inventory,
    Limits,
    NodeSpec,
    OperationCount,
    PoolInterface,
    Report,
    Retry,
    SecurityGroup,
    Step,
    Subnet,
    Usage,
    Watermarks,
)
from services.api.ipam import convert, convert_work
from services.api.ipam.v1 import ipam_pb2 as pb

names = st.text("abc-019", min_size=1, max_size=6)
texts = st.text("abc é0", max_size=6)
counts = st.integers(0, 1000)
times = st.integers(1, 2**31).map(float)
tags = st.dictionaries(names, texts, max_size=2)
many = st.lists(names, max_size=3, unique=True).map(tuple)

watermarks = st.builds(Watermarks, counts, counts, counts, counts)
specs = st.builds(
    NodeSpec, names, names, texts, watermarks, counts, many, tags, many, tags, tags, st.booleans(), st.booleans(), tags
)
usages = st.builds(Usage, *[st.frozensets(names, max_size=3)] * 4, pending_pods=counts, sequence=st.integers(0, 2**63))
interfaces = st.builds(
    CloudInterface,
    *[texts] * 6, many, texts, texts, counts, counts, many, tags, st.booleans(), texts, times,
)  # fmt: skip
instances = st.builds(Instance, *[texts] * 5, tags, many, st.lists(interfaces, max_size=2).map(tuple))
subnets = st.builds(Subnet, texts, texts, texts, texts, counts, tags, many)
groups = st.builds(SecurityGroup, texts, texts, tags)
limits = st.builds(Limits, texts, counts, counts, counts, st.booleans(), counts)
steps = st.builds(
    Step, number=counts, arguments=st.dictionaries(names, st.one_of(counts, texts), max_size=2), client_token=texts,
    result=st.none() | st.dictionaries(names, st.lists(texts, max_size=2), max_size=2),
)  # fmt: skip
intents = st.builds(
    Intent, id=names, node=texts, want=counts, addresses=many, steps=st.lists(steps, max_size=2).map(tuple),
    attempts=counts, created_at=times, not_before_at=times, last_error=texts, holder=texts,
    fence=st.just(0), lease_until_at=st.just(0.0),
)  # fmt: skip


@given(specs)
def test_node_specs(spec: NodeSpec) -> None:
    none = NodeSpec(name="", instance_id="")
    assert convert.node_spec_from(convert.node_spec_to(spec), none) == spec


@given(usages)
def test_usage(usage: Usage) -> None:
    assert convert.usage_from(convert.usage_to(usage)) == usage


@given(
    st.builds(
        PoolInterface, texts, texts, counts, *[texts] * 6, many, many,
        st.dictionaries(names, st.sampled_from(AddressState), max_size=3),
    )
)  # fmt: skip
def test_pool_interfaces(interface: PoolInterface) -> None:
    assert convert.interface_from(convert.interface_to(interface)) == interface


@settings(max_examples=50)
@given(
    st.builds(
        Claim, intents, counts, st.integers(0, 600).map(float), st.none() | specs, st.none() | instances,
        st.lists(subnets, max_size=2).map(tuple), st.lists(groups, max_size=2).map(tuple), st.none() | limits,
        st.frozensets(names, max_size=2),
    )
)  # fmt: skip
def test_claims(claim: Claim) -> None:
    assert convert_work.claim_from(convert_work.claim_to(claim)) == claim


@settings(max_examples=50)
@given(
    st.one_of(st.just(Done()), st.builds(Retry, st.integers(0, 600).map(float), texts), st.builds(GiveUp, texts)),
    st.builds(
        Report, st.none() | instances, st.booleans(), st.lists(subnets, max_size=2).map(tuple),
        st.lists(groups, max_size=2).map(tuple), st.none() | limits, tags,
        st.lists(st.builds(OperationCount, texts, counts, counts, counts), max_size=2).map(tuple),
    ),
)  # fmt: skip
def test_completions(outcome: Done | Retry | GiveUp, report: Report) -> None:
    message = convert_work.completion_to("intent", 7, outcome, report)
    assert (message.intent_id, message.fence) == ("intent", 7)
    assert convert_work.outcome_from(message) == outcome
    assert convert_work.report_from(message) == report


@settings(max_examples=50)
@given(
    st.builds(
        Inventory, st.lists(instances, max_size=2).map(tuple), st.lists(interfaces, max_size=2).map(tuple),
        st.lists(subnets, max_size=2).map(tuple), st.lists(groups, max_size=2).map(tuple), times, st.booleans(),
    )
)  # fmt: skip
def test_inventory_pages(page: Inventory) -> None:
    assert convert_work.inventory_from(convert_work.inventory_to("intent", 1, page)) == page


def test_a_node_that_is_silent_takes_the_services_defaults() -> None:
    defaults = NodeSpec(
        name="", instance_id="", watermarks=Watermarks(4, 15, 0, 4), first_interface_index=1,
        subnet_tags={"role": "pods"}, security_group_ids=("sg-1",), delete_on_termination=False, release_excess=False,
    )  # fmt: skip
    spec = convert.node_spec_from(pb.NodeSpec(name="n1", instance_id="i-1"), defaults)
    assert spec == NodeSpec(
        name="n1", instance_id="i-1", watermarks=Watermarks(4, 15, 0, 4), first_interface_index=1,
        subnet_tags={"role": "pods"}, security_group_ids=("sg-1",), delete_on_termination=False, release_excess=False,
    )  # fmt: skip


def test_a_node_may_say_zero() -> None:
    defaults = NodeSpec(name="", instance_id="", watermarks=Watermarks(8), first_interface_index=1)
    message = pb.NodeSpec(
        name="n1", instance_id="i-1", watermarks=pb.Watermarks(pre_allocate=0), first_interface_index=0,
        release_excess=False,
    )  # fmt: skip
    spec = convert.node_spec_from(message, defaults)
    assert (spec.watermarks.pre_allocate, spec.first_interface_index, spec.release_excess) == (0, 0, False)


def test_watermarks_without_pre_allocate_keep_the_default_of_it() -> None:
    message = pb.NodeSpec(name="n1", instance_id="i-1", watermarks=pb.Watermarks(min_allocate=3))
    spec = convert.node_spec_from(message, NodeSpec(name="", instance_id="", watermarks=Watermarks(5, 9)))
    assert spec.watermarks == Watermarks(5, 3)


@pytest.mark.parametrize("field", ["name", "instance_id"])
def test_a_node_must_say_who_and_where_it_is(field: str) -> None:
    message = pb.NodeSpec(name="n1", instance_id="i-1")
    message.ClearField(field)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput) as refusal:
        convert.node_spec_from(message, NodeSpec(name="", instance_id=""))
    assert refusal.value.field == f"node.{field}"


@pytest.mark.parametrize(
    "message",
    [pb.Step(operation="explode"), pb.Step(operation="attach-interface", arguments="{")],
)
def test_a_step_that_cannot_be_read_is_refused(message: pb.Step) -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        convert_work.step_from(message)


def test_an_outcome_must_be_told() -> None:
    with pytest.raises(InvalidInput, match="no outcome"):
        convert_work.outcome_from(pb.CompleteIntentRequest())
