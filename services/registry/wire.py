"""Messages <-> facts. What comes in is checked here, once: a wrong value is refused with its field."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from services.api.registry.v1 import registry_pb2
from services.api.watch.v1 import watch_pb2
from services.registry.errors import InvalidInput
from services.registry.model import Capacity, Endpoint, EndpointKey, Identity, Node, NodeState
from services.registry.service import Fact
from services.runtime.watch import Batch

_NODE_NAME: Final = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9._-]{0,251}[a-zA-Z0-9])?")
_CLOUDS: Final = ("", "aws", "azure", "alibaba")
_ROUTING_MODES: Final = ("", "tunnel", "direct", "native")
_TEXT_BYTES: Final = 512
_LABELS: Final = 256
_ADDRESSES: Final = 256
_ERRORS: Final = 1024
_ENDPOINTS: Final = 16_384

_STATES: Final = {
    NodeState.READY: registry_pb2.NODE_STATE_READY,
    NodeState.LOST: registry_pb2.NODE_STATE_LOST,
}


def check_name(name: str, *, field: str) -> None:
    """Raises InvalidInput for what is no node's name."""
    if not _NODE_NAME.fullmatch(name):
        raise InvalidInput(
            f"{name!r} is not a node's name",
            field=field,
            remedy="use 1 to 253 letters, digits, '.', '_' and '-', with a letter or digit at both ends",
        )


def node_from(message: registry_pb2.Node) -> Node:
    """What a node announces of itself. Raises InvalidInput."""
    check_name(message.name, field="node.name")
    if message.cloud not in _CLOUDS:
        raise InvalidInput(
            f"cloud {message.cloud!r} is not known",
            field="node.cloud",
            remedy='say "aws", "azure", "alibaba" or nothing',
        )
    if message.routing_mode not in _ROUTING_MODES:
        raise InvalidInput(
            f"routing mode {message.routing_mode!r} is not known",
            field="node.routing_mode",
            remedy='say "tunnel", "direct", "native" or nothing',
        )
    tunnel = [message.tunnel_address] if message.tunnel_address else []
    return Node(
        name=message.name,
        addresses=_addresses("node.addresses", message.addresses),
        labels=_labels("node.labels", message.labels),
        cloud=message.cloud,
        instance_id=_text("node.instance_id", message.instance_id),
        instance_type=_text("node.instance_type", message.instance_type),
        zone=_text("node.zone", message.zone),
        version=_text("node.version", message.version),
        pod_cidrs=_ranges("node.pod_cidrs", message.pod_cidrs),
        routing_mode=message.routing_mode,
        tunnel_address="".join(_addresses("node.tunnel_address", tunnel)),
    )


def endpoint_from(message: registry_pb2.Endpoint, *, node: str, field: str) -> Endpoint:
    """An endpoint that `node` reports. `field`: where it stood in the request. Raises InvalidInput."""
    if message.node not in ("", node):
        raise InvalidInput(
            f"node {node} reports an endpoint of node {message.node}",
            field=f"{field}.node",
            remedy="a node reports its own endpoints only",
        )
    return Endpoint(
        node=node,
        id=endpoint_id(message.id, field=f"{field}.id"),
        pod=_text(f"{field}.pod", message.pod),
        addresses=_addresses(f"{field}.addresses", message.addresses),
        mac=_text(f"{field}.mac", message.mac),
        interface_id=_text(f"{field}.interface_id", message.interface_id),
        labels=_labels(f"{field}.labels", message.labels),
        created_at=message.created_at.ToNanoseconds() / 1e9 if message.HasField("created_at") else 0.0,
    )


def endpoint_id(value: str, *, field: str) -> str:
    """Raises InvalidInput."""
    if not value:
        raise InvalidInput("an endpoint needs an id", field=field, remedy="join container id and interface name by '/'")
    return _text(field, value)


def check_report(report: registry_pb2.WatchRequest.Endpoints) -> None:
    """A node has only so many pods. Raises InvalidInput."""
    for field in ("upserted", "deleted_ids"):
        if len(getattr(report, field)) > _ENDPOINTS:
            raise InvalidInput(
                f"{len(getattr(report, field))} endpoints in one report",
                field=f"endpoints.{field}",
                remedy=f"a node has at most {_ENDPOINTS}",
            )


def errors_from(ack: watch_pb2.Ack) -> dict[str, str]:
    """What a node could not bring into force, by key; the first of them, since a node may fail at everything."""
    return {error.key[:_TEXT_BYTES]: error.reason[:_TEXT_BYTES] for error in ack.errors[:_ERRORS]}


def capacity_from(message: registry_pb2.Capacity) -> Capacity:
    """Raises InvalidInput."""
    if message.limited_by not in ("", "limits", "subnets"):
        raise InvalidInput(
            f"limited_by {message.limited_by!r} is not known", field="heartbeat.capacity.limited_by",
            remedy='say "limits", "subnets" or nothing',
        )  # fmt: skip
    return Capacity(message.attached, message.in_use, message.obtainable, message.limited_by)


def node_message(node: Node, endpoints: int = 0, capacity: Capacity | None = None) -> registry_pb2.Node:
    return registry_pb2.Node(
        name=node.name,
        addresses=node.addresses,
        labels=node.labels,
        cloud=node.cloud,
        instance_id=node.instance_id,
        instance_type=node.instance_type,
        zone=node.zone,
        version=node.version,
        state=_STATES[node.state],
        registered_at=_timestamp(node.registered_at),
        heartbeat_at=_timestamp(node.heartbeat_at),
        endpoints=endpoints,
        pod_cidrs=node.pod_cidrs,
        routing_mode=node.routing_mode,
        tunnel_address=node.tunnel_address,
        capacity=None
        if capacity is None
        else registry_pb2.Capacity(
            attached=capacity.attached,
            in_use=capacity.in_use,
            obtainable=capacity.obtainable,
            limited_by=capacity.limited_by,
        ),
    )


def endpoint_message(endpoint: Endpoint) -> registry_pb2.Endpoint:
    return registry_pb2.Endpoint(
        id=endpoint.id,
        node=endpoint.node,
        pod=endpoint.pod,
        addresses=endpoint.addresses,
        mac=endpoint.mac,
        interface_id=endpoint.interface_id,
        labels=endpoint.labels,
        created_at=_timestamp(endpoint.created_at),
        identity=endpoint.identity,
    )


def identity_message(identity: Identity, endpoints: int) -> registry_pb2.Identity:
    return registry_pb2.Identity(number=identity.number, labels=identity.labels, endpoints=endpoints)


def encode_batch(batch: Batch[Fact]) -> bytes:
    """A batch of the topic as an encoded WatchResponse."""
    response = registry_pb2.WatchResponse(header=batch.header())
    for fact in batch.upserts:
        if isinstance(fact, Node):
            response.nodes.append(node_message(fact))
        else:
            response.endpoints.append(endpoint_message(fact))
    for key in batch.deletes:
        kind, _, rest = key.partition("/")
        if kind == "node":
            response.deleted_nodes.append(rest)
        else:
            node, id = _endpoint_key(rest)
            response.deleted_endpoints.append(registry_pb2.EndpointKey(node=node, id=id))
    return response.SerializeToString()


def _endpoint_key(text: str) -> EndpointKey:
    node, _, id = text.partition("/")
    return node, id


def _timestamp(at: float) -> Timestamp | None:
    if not at:
        return None
    stamp = Timestamp()
    stamp.FromNanoseconds(round(at * 1e6) * 1000)
    return stamp


def _text(field: str, value: str) -> str:
    if len(value.encode()) > _TEXT_BYTES or "\x00" in value:
        raise InvalidInput(
            f"{field} has {len(value.encode())} bytes or a NUL",
            field=field,
            remedy=f"use at most {_TEXT_BYTES} bytes of text",
        )
    return value


def _labels(field: str, labels: Mapping[str, str]) -> dict[str, str]:
    if len(labels) > _LABELS:
        raise InvalidInput(f"{len(labels)} labels", field=field, remedy=f"use at most {_LABELS}")
    return {_text(field, name): _text(f"{field}.{name}"[:80], value) for name, value in labels.items()}


def _addresses(field: str, addresses: Collection[str]) -> tuple[str, ...]:
    if len(addresses) > _ADDRESSES:
        raise InvalidInput(f"{len(addresses)} addresses", field=field, remedy=f"use at most {_ADDRESSES}")
    found = []
    for position, address in enumerate(addresses):
        try:
            found.append(str(ipaddress.ip_address(address)))
        except ValueError:
            raise InvalidInput(
                f"{address[:64]!r} is not an IP address",
                field=f"{field}[{position}]",
                remedy='write it like "10.0.0.7" or "2001:db8::7", without a prefix length',
            ) from None
    return tuple(found)


def _ranges(field: str, ranges: Collection[str]) -> tuple[str, ...]:
    found: dict[int, str] = {}
    for position, text in enumerate(ranges):
        where = f"{field}[{position}]"
        try:
            network = ipaddress.ip_network(text)
        except ValueError as error:
            raise InvalidInput(
                f"{text[:64]!r} is not a range of addresses",
                field=where,
                remedy='write it like "10.1.0.0/24" or "fd00:1::/64", without bits behind the prefix',
            ) from error
        if network.version in found:
            raise InvalidInput(
                f"two IPv{network.version} ranges", field=where, remedy="a node has at most one range of each family"
            )
        found[network.version] = str(network)
    return tuple(found.values())
