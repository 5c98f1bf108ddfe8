"""Messages of the services as plain data with stable keys: what --json prints, and what tables are made of.

Moments are RFC 3339 text in UTC or None; states and kinds are lower-case words with dashes; counts are numbers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from google.protobuf.timestamp_pb2 import Timestamp

from services.api.ipam.v1 import ipam_pb2 as ipam
from services.api.ipam.v1 import level_pb2 as level_pb
from services.api.registry.v1 import registry_pb2 as registry

if TYPE_CHECKING:
    from services.api.node.v1 import node_pb2 as node

View = dict[str, Any]


def moment(message: Any, name: str) -> str | None:
    """The Timestamp field `name` of a message, None if it is not set."""
    if not message.HasField(name):
        return None
    value: Timestamp = getattr(message, name)
    return value.ToJsonString()


def word(enum: Any, prefix: str, value: int) -> str:
    """ADDRESS_STATE_IN_USE as "in-use"."""
    try:
        name: str = enum.Name(value)
    except ValueError:
        return f"unknown-{value}"
    return name.removeprefix(prefix).lower().replace("_", "-")


def node_view(node: registry.Node) -> View:
    return {
        "name": node.name,
        "state": word(registry.NodeState, "NODE_STATE_", node.state),
        "addresses": list(node.addresses),
        "cloud": node.cloud,
        "instance_id": node.instance_id,
        "instance_type": node.instance_type,
        "zone": node.zone,
        "version": node.version,
        "endpoints": node.endpoints,
        "capacity": {
            "attached": node.capacity.attached,
            "in_use": node.capacity.in_use,
            "obtainable": node.capacity.obtainable,
            "limited_by": node.capacity.limited_by,
        }
        if node.HasField("capacity")
        else None,
        "labels": dict(node.labels),
        "pod_cidrs": list(node.pod_cidrs),
        "routing_mode": node.routing_mode,
        "tunnel_address": node.tunnel_address,
        "registered_at": moment(node, "registered_at"),
        "heartbeat_at": moment(node, "heartbeat_at"),
    }


def endpoint_view(endpoint: registry.Endpoint) -> View:
    return {
        "id": endpoint.id,
        "pod": endpoint.pod,
        "node": endpoint.node,
        "addresses": list(endpoint.addresses),
        "mac": endpoint.mac,
        "interface_id": endpoint.interface_id,
        "labels": dict(endpoint.labels),
        "identity": endpoint.identity,
        "created_at": moment(endpoint, "created_at"),
    }


def identity_view(identity: registry.Identity) -> View:
    return {
        "identity": identity.number,
        "labels": dict(sorted(identity.labels.items())),
        "endpoints": identity.endpoints,
    }


def interface_view(interface: ipam.Interface) -> View:
    return {
        "id": interface.id,
        "mac": interface.mac,
        "device_index": interface.device_index,
        "subnet_id": interface.subnet_id,
        "subnet_cidr": interface.subnet_cidr,
        "gateway": interface.gateway,
        "primary_address": interface.primary_address,
        "vpc_id": interface.vpc_id,
        "vpc_cidrs": list(interface.vpc_cidrs),
        "zone": interface.zone,
        "security_group_ids": list(interface.security_group_ids),
        "prefixes": list(interface.prefixes),
        "ipv6_prefixes": list(interface.ipv6_prefixes),
        "ipv6_addresses": list(interface.ipv6_addresses),
        "addresses": [
            {"address": one.address, "state": word(ipam.AddressState, "ADDRESS_STATE_", one.state)}
            for one in interface.addresses
        ],
    }


def pool_view(service: str, pool: ipam.Pool) -> View:
    marks = pool.node.watermarks
    return {
        "service": service,
        "node": "/".join(filter(None, (pool.node.name, pool.node.pool))),
        "instance_id": pool.node.instance_id,
        "instance_type": pool.instance_type,
        "zone": pool.zone,
        "connected": pool.connected,
        "attached": pool.attached,
        "in_use": pool.in_use,
        "cooling": pool.cooling,
        "needed": pool.needed,
        "excess": pool.excess,
        "capacity": pool.capacity,
        "obtainable": pool.obtainable.addresses if pool.HasField("obtainable") else None,
        "limited_by": pool.obtainable.limited_by,
        "obtainable_by_limits": pool.obtainable.by_limits,
        "obtainable_by_subnets": pool.obtainable.by_subnets,
        "subnets_in_reach": dict(pool.obtainable.subnets),
        "interface_count": len(pool.interfaces),
        "interface_limit": pool.interface_limit,
        "addresses_per_interface": pool.addresses_per_interface,
        "pending_pods": pool.pending_pods,
        "open_intents": pool.open_intents,
        "last_error": pool.last_error,
        "last_synced_at": moment(pool, "last_synced_at"),
        "watermarks": {
            "pre_allocate": marks.pre_allocate if marks.HasField("pre_allocate") else None,
            "min_allocate": marks.min_allocate,
            "max_allocate": marks.max_allocate,
            "max_above_watermark": marks.max_above_watermark,
        },
        "marks": {
            "pre_allocate": pool.marks.pre_allocate,
            "min_allocate": pool.marks.min_allocate,
            "max_allocate": pool.marks.max_allocate,
            "max_above_watermark": pool.marks.max_above_watermark,
        },
        "marks_why": pool.marks_why,
        "overrides": list(pool.overrides),
        "interfaces": [interface_view(interface) for interface in pool.interfaces],
    }


def level_view(degradation: level_pb.Degradation) -> View:
    def named(number: int) -> str:
        return word(level_pb.DegradationLevel, "DEGRADATION_LEVEL_", number) if number else "normal"

    return {
        "level": named(degradation.level),
        "level_by_hand": named(degradation.by_hand),
        "level_by_budget": named(degradation.by_budget),
        "level_why": degradation.why,
        "level_until": moment(degradation, "until"),
    }


def ipam_status_view(service: str, status: ipam.GetStatusResponse) -> View:
    operations = sorted(status.operations, key=lambda one: one.operation)
    return {
        "service": service,
        "cloud": status.cloud,
        "account": status.account,
        "region": status.region,
        "leader": status.leader,
        "nodes": status.nodes,
        "nodes_in_deficit": status.nodes_in_deficit,
        "nodes_at_capacity": status.nodes_at_capacity,
        "open_intents": status.open_intents,
        "dead_letters": status.dead_letters,
        "api_calls": sum(one.calls for one in operations),
        "throttled": sum(one.throttled for one in operations),
        "failed": sum(one.failed for one in operations),
        "last_resync_at": moment(status, "last_resync_at"),
        **level_view(status.degradation),
        "operations": [
            {"operation": one.operation, "calls": one.calls, "throttled": one.throttled, "failed": one.failed}
            for one in operations
        ],
        "subnets": [
            {
                "id": one.id,
                "vpc_id": one.vpc_id,
                "cidr": one.cidr,
                "zone": one.zone,
                "free": one.free,
                "blocked_until": moment(one, "blocked_until"),
                "blocked_why": one.blocked_why,
                "runs_out_in_s": one.runs_out_in.ToTimedelta().total_seconds() if one.HasField("runs_out_in") else None,
                "taken_per_hour": one.taken_per_hour,
            }
            for one in status.subnets
        ],
    }


def intent_view(service: str, intent: ipam.Intent) -> View:
    return {
        "service": service,
        "id": intent.id,
        "kind": word(ipam.IntentKind, "INTENT_KIND_", intent.kind),
        "node": intent.node,
        "want": intent.want,
        "addresses": list(intent.addresses),
        "attempts": intent.attempts,
        "created_at": moment(intent, "created_at"),
        "not_before": moment(intent, "not_before"),
        "holder": intent.holder,
        "last_error": intent.last_error,
        "steps": [
            {
                "number": step.number,
                "operation": step.operation,
                "target": step.target,
                "arguments": _parsed(step.arguments),
                "client_token": step.client_token,
                "result": _parsed(step.result),
            }
            for step in intent.steps
        ],
    }


def dead_letter_view(service: str, letter: ipam.DeadLetter) -> View:
    return {
        "service": service,
        "id": letter.id,
        "why": letter.why,
        "died_at": moment(letter, "died_at"),
        "replays": letter.replays,
        "intent": intent_view(service, letter.intent),
    }


def node_status_view(status: node.GetStatusResponse) -> View:
    return {
        "node": status.node,
        "version": status.version,
        "available": status.available,
        "in_use": status.in_use,
        "cooling": status.cooling,
        "fenced": status.fenced,
        "waiting_pods": status.waiting_pods,
        "started_at": moment(status, "started_at"),
        "connections": [
            {
                "service": one.service,
                "target": one.target,
                "connected": one.connected,
                "since": moment(one, "since"),
                "last_error": one.last_error,
            }
            for one in status.connections
        ],
        "interfaces": [
            {
                "id": one.id,
                "device": one.device,
                "device_index": one.device_index,
                "available": one.available,
                "in_use": one.in_use,
                "cooling": one.cooling,
                "fenced": one.fenced,
                "problem": one.problem,
            }
            for one in status.interfaces
        ],
    }


def local_endpoint_view(node_name: str, endpoint: node.Endpoint) -> View:
    """An endpoint as its node daemon tells it, with the keys of `endpoint_view`."""
    return {
        "id": f"{endpoint.container_id}/{endpoint.interface_name}",
        "pod": endpoint.pod,
        "node": node_name,
        "addresses": [one for one in (endpoint.address, endpoint.address6) if one],
        "mac": endpoint.mac,
        "interface_id": endpoint.cloud_interface_id,
        "labels": dict(endpoint.labels),
        "identity": endpoint.identity,
        "created_at": moment(endpoint, "created_at"),
    }


def finding_view(asked: str, level: str, subject: str, message: str, remedy: str) -> View:
    """One line of an explanation. `asked`: the service that says it."""
    return {"asked": asked, "level": level, "subject": subject, "message": message, "remedy": remedy}


def findings_of_pool(asked: str, findings: Sequence[ipam.Finding]) -> list[View]:
    return [
        finding_view(asked, word(ipam.FindingLevel, "FINDING_LEVEL_", one.level), one.subject, one.message, one.remedy)
        for one in findings
    ]


def findings_of_node(asked: str, findings: Sequence[node.Finding]) -> list[View]:
    return [finding_view(asked, one.level, one.subject, one.message, one.remedy) for one in findings]


def _parsed(text: str) -> Any:
    """JSON inside a message; as text if it is none, and None if there is nothing."""
    if not text:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text
