"""What a node says is refused with its field, when it can't be; what is right passes as it is."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipam.errors import InvalidInput
from ipam.model import NodeSpec
from services.api.ipam import convert
from services.api.ipam.v1 import ipam_pb2 as pb
from services.api.watch.v1 import watch_pb2
from services.ipam import reports

DEFAULTS = NodeSpec(name="", instance_id="")
addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)
reported = st.lists(addresses, max_size=5)


@given(reported, reported, reported, reported, st.integers(0, reports.PENDING_PODS_MAX))
def test_what_is_right_passes(
    in_use: list[str], cooling: list[str], ready: list[str], refused: list[str], n: int
) -> None:
    message = pb.Usage(in_use=in_use, cooling=cooling, ready=ready, refused=refused, pending_pods=n)
    assert reports.usage_from(message) == convert.usage_from(message)


@given(st.text(max_size=20))
def test_no_text_passes_that_is_no_address(text: str) -> None:
    try:
        expected = str(ipaddress.ip_address(text)) == text and "%" not in text
    except ValueError:
        expected = False
    if expected:
        reports.usage_from(pb.Usage(in_use=[text]))
    else:
        with pytest.raises(InvalidInput):
            reports.usage_from(pb.Usage(in_use=[text]))


@pytest.mark.parametrize("field", ["in_use", "cooling", "ready", "refused"])
@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param("", id="nothing"),
        pytest.param("10.0.0.256", id="no octet"),
        pytest.param("10.0.0.7/32", id="with a prefix length"),
        pytest.param("010.0.0.7", id="a second spelling of 10.0.0.7"),
        pytest.param("10.7", id="another one, as inet_aton reads it"),
        pytest.param(" 10.0.0.7", id="a blank"),
        pytest.param("10.0.0.7\x00", id="a NUL"),
        pytest.param("2001:DB8::1", id="upper case"),
        pytest.param("2001:db8:0::1", id="not shortened"),
        pytest.param("fe80::1%eth0", id="a scope"),
        pytest.param("x" * 100_000, id="long"),
    ],
)
def test_a_wrong_address_is_named_by_its_place(field: str, wrong: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        reports.usage_from(pb.Usage(**{field: ["10.0.0.1", wrong]}))  # type: ignore[arg-type]
    assert refused.value.field == f"usage.{field}[1]"
    assert len(refused.value.message) < 200, "what was sent is not sent back whole"


@pytest.mark.parametrize(
    ("field", "usage"),
    [
        ("usage.in_use", pb.Usage(in_use=["10.0.0.1"] * (reports.ADDRESSES_MAX + 1))),
        ("usage.refused", pb.Usage(refused=["10.0.0.1"] * (reports.ADDRESSES_MAX + 1))),
        ("usage.pending_pods", pb.Usage(pending_pods=2**32 - 1)),
    ],
)
def test_more_than_any_node_can_have_is_refused(field: str, usage: pb.Usage) -> None:
    with pytest.raises(InvalidInput) as refused:
        reports.usage_from(usage)
    assert refused.value.field == field


MANY = [f"subnet-{n}" for n in range(reports.ITEMS_MAX + 1)]


@pytest.mark.parametrize(
    ("field", "spec"),
    [
        ("node.subnet_ids", {"subnet_ids": MANY}),
        ("node.labels", {"labels": dict.fromkeys(MANY, "x")}),
        ("node.labels", {"labels": {"app": "x" * 600}}),
        ("node.subnet_tags", {"subnet_tags": {"x" * 600: ""}}),
        ("node.instance_type", {"instance_type": "x" * 600}),
        ("node.instance_id", {"instance_id": "i-1\nforged log line"}),
    ],
)
def test_a_node_that_says_too_much_of_itself_is_refused(field: str, spec: dict[str, object]) -> None:
    with pytest.raises(InvalidInput) as refused:
        reports.node_spec_from(pb.NodeSpec(**{"name": "n", "instance_id": "i-1", **spec}), DEFAULTS)  # type: ignore[arg-type]
    assert refused.value.field == field


def test_errors_of_an_acknowledgement_are_bounded() -> None:
    error = watch_pb2.ObjectError
    assert reports.errors_from(watch_pb2.Ack(errors=[error(key="eni-1", reason="r" * 9999)])) == {"eni-1": "r" * 512}
    with pytest.raises(InvalidInput):
        reports.errors_from(watch_pb2.Ack(errors=[error(key=f"eni-{n}") for n in range(1000)]))


def test_a_named_pool_is_keyed_by_its_node_and_its_name() -> None:
    message = pb.NodeSpec(name="node-1", pool="payments", instance_id="i-1")
    spec = reports.node_spec_from(message, DEFAULTS)
    assert (spec.name, spec.node, spec.pool) == ("node-1/payments", "node-1", "payments")
    assert convert.node_spec_to(spec).pool == "payments"
    assert convert.node_spec_from(convert.node_spec_to(spec), DEFAULTS) == spec


def test_a_node_cannot_pass_for_a_pool_of_another() -> None:
    with pytest.raises(InvalidInput) as refused:
        reports.node_spec_from(pb.NodeSpec(name="node-2/payments", instance_id="i-1"), DEFAULTS)
    assert refused.value.field == "node.name"
