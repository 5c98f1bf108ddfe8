"""Messages and facts of the registry."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.api.registry.v1 import registry_pb2
from services.api.watch.v1 import watch_pb2
from services.registry import wire
from services.registry.errors import InvalidInput
from services.registry.model import Endpoint, Node, NodeState
from services.registry.service import Fact
from services.runtime.watch import Batch, Position

NODE = Node(
    "node-1", ("10.0.0.10", "2001:db8::1"), {"rack": "7"}, "aws", "i-1", "m5.large", "a", "0.1.0", NodeState.READY,
    pod_cidrs=("10.1.0.0/24", "fd00:1::/64"), routing_mode="tunnel", tunnel_address="10.0.0.11",
)  # fmt: skip
ENDPOINT = Endpoint(
    "node-1", "c1/eth0", "default/web", ("10.0.0.7",), "02:00:00:00:00:01", "eni-1", {"app": "web"}, 12.5
)


def test_a_node_is_what_was_announced() -> None:
    assert wire.node_from(wire.node_message(NODE)) == NODE


def test_an_endpoint_is_what_was_reported() -> None:
    message = wire.endpoint_message(ENDPOINT)
    assert wire.endpoint_from(message, node="node-1", field="endpoints.upserted[0]") == ENDPOINT


def test_an_identity_that_a_node_claims_is_ignored() -> None:
    message = wire.endpoint_message(replace(ENDPOINT, identity=300))
    assert message.identity == 300
    assert wire.endpoint_from(message, node="node-1", field="endpoints.upserted[0]").identity == 0


def test_an_address_is_made_canonical() -> None:
    assert wire.node_from(registry_pb2.Node(name="n", addresses=["2001:DB8:0::1"])).addresses == ("2001:db8::1",)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        pytest.param(registry_pb2.Node(), "node.name", id="no name"),
        pytest.param(registry_pb2.Node(name="a/b"), "node.name", id="a name that could be taken for two"),
        pytest.param(registry_pb2.Node(name="-a"), "node.name", id="a name that could be taken for a flag"),
        pytest.param(registry_pb2.Node(name="a" * 254), "node.name", id="too long a name"),
        pytest.param(registry_pb2.Node(name="a\n"), "node.name", id="a line break"),
        pytest.param(registry_pb2.Node(name="a", cloud="gcp"), "node.cloud", id="another cloud"),
        pytest.param(
            registry_pb2.Node(name="a", addresses=["10.0.0.1", "10.0.0.256"]), "node.addresses[1]", id="no IP"
        ),
        pytest.param(registry_pb2.Node(name="a", addresses=["10.0.0.0/24"]), "node.addresses[0]", id="a prefix"),
        pytest.param(registry_pb2.Node(name="a", zone="z" * 600), "node.zone", id="too long a zone"),
        pytest.param(registry_pb2.Node(name="a", version="\x00"), "node.version", id="NUL, which PostgreSQL has not"),
        pytest.param(registry_pb2.Node(name="a", routing_mode="bgp"), "node.routing_mode", id="another mode"),
        pytest.param(registry_pb2.Node(name="a", tunnel_address="x"), "node.tunnel_address[0]", id="no tunnel end"),
        pytest.param(registry_pb2.Node(name="a", pod_cidrs=["10.1.0.1/24"]), "node.pod_cidrs[0]", id="host bits"),
        pytest.param(
            registry_pb2.Node(name="a", pod_cidrs=["10.1.0.0/24", "10.2.0.0/24"]), "node.pod_cidrs[1]", id="two ranges"
        ),
        pytest.param(
            registry_pb2.Node(name="a", labels={str(n): "" for n in range(300)}), "node.labels", id="too many labels"
        ),
        pytest.param(registry_pb2.Node(name="a", labels={"app": "w" * 600}), "node.labels.app", id="too long a label"),
    ],
)
def test_a_wrong_node_is_refused_with_its_field(message: registry_pb2.Node, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        wire.node_from(message)
    assert refused.value.field == field
    assert refused.value.remedy


@pytest.mark.parametrize(
    ("message", "field"),
    [
        pytest.param(registry_pb2.Endpoint(), "e.id", id="no id"),
        pytest.param(registry_pb2.Endpoint(id="a", node="node-2"), "e.node", id="another node's endpoint"),
        pytest.param(registry_pb2.Endpoint(id="a", addresses=["x"]), "e.addresses[0]", id="no IP"),
    ],
)
def test_a_wrong_endpoint_is_refused_with_its_field(message: registry_pb2.Endpoint, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        wire.endpoint_from(message, node="node-1", field="e")
    assert refused.value.field == field


def test_a_batch_names_what_came_and_what_went() -> None:
    batch = Batch[Fact](
        position=Position("life", 7),
        snapshot=False,
        complete=True,
        keys=["node/node-1", "endpoint/node-1/c1/eth0"],
        upserts=[NODE, ENDPOINT],
        deletes=["node/node-2", "endpoint/node-2/c2/eth0"],
        end=7,
    )
    response = registry_pb2.WatchResponse.FromString(wire.encode_batch(batch))
    assert (response.header.position.epoch, response.header.position.revision) == ("life", 7)
    assert [node.name for node in response.nodes] == ["node-1"]
    assert [one.id for one in response.endpoints] == ["c1/eth0"]
    assert list(response.deleted_nodes) == ["node-2"]
    assert [(key.node, key.id) for key in response.deleted_endpoints] == [("node-2", "c2/eth0")]


def test_what_no_node_can_have_is_refused() -> None:
    many = ["10.0.0.1"] * 300
    with pytest.raises(InvalidInput) as refused:
        wire.endpoint_from(registry_pb2.Endpoint(id="c/eth0", addresses=many), node="n", field="endpoints.upserted[3]")
    assert refused.value.field == "endpoints.upserted[3].addresses"
    with pytest.raises(InvalidInput) as refused:
        wire.check_report(registry_pb2.WatchRequest.Endpoints(deleted_ids=["c/eth0"] * 20_000))
    assert refused.value.field == "endpoints.deleted_ids"


def test_a_node_that_fails_at_everything_is_heard_within_bounds() -> None:
    ack = watch_pb2.Ack(errors=[watch_pb2.ObjectError(key=f"node/{n}", reason="x" * 9999) for n in range(5000)])
    heard = wire.errors_from(ack)
    assert len(heard) == 1024
    assert set(map(len, heard.values())) == {512}
