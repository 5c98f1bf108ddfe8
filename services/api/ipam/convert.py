"""IPAM messages <-> the domain's model, for nodes and their pools. What workers exchange is in convert_work.py.

Conversion decides nothing: a field that is unset takes the value of `defaults`, which the caller gives.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from ipam.errors import InvalidInput
from ipam.model import AddressState, NodeSpec, Policy, PoolInterface, SubnetPolicy, Usage, Watermarks
from services.api.ipam.v1 import ipam_pb2 as pb

STATE_TO_PB: Final = {
    AddressState.AVAILABLE: pb.ADDRESS_STATE_AVAILABLE,
    AddressState.IN_USE: pb.ADDRESS_STATE_IN_USE,
    AddressState.COOLING: pb.ADDRESS_STATE_COOLING,
    AddressState.MARKED: pb.ADDRESS_STATE_MARKED,
    AddressState.READY: pb.ADDRESS_STATE_READY,
    AddressState.RELEASING: pb.ADDRESS_STATE_RELEASING,
}
STATE_FROM_PB: Final = {number: state for state, number in STATE_TO_PB.items()}
_EMPTY: Final[frozenset[str]] = frozenset()


def timestamp(at: float) -> Timestamp | None:
    """Seconds since the epoch; 0 means unknown and is left unset."""
    return Timestamp(seconds=int(at), nanos=int(at % 1 * 1e9)) if at > 0 else None


def seconds(message: Timestamp) -> float:
    return message.seconds + message.nanos / 1e9


def watermarks_from(message: pb.Watermarks, defaults: Watermarks) -> Watermarks:
    return Watermarks(
        pre_allocate=message.pre_allocate if message.HasField("pre_allocate") else defaults.pre_allocate,
        min_allocate=message.min_allocate,
        max_allocate=message.max_allocate,
        max_above_watermark=message.max_above_watermark,
    )


def watermarks_to(marks: Watermarks) -> pb.Watermarks:
    return pb.Watermarks(
        pre_allocate=marks.pre_allocate,
        min_allocate=marks.min_allocate,
        max_allocate=marks.max_allocate,
        max_above_watermark=marks.max_above_watermark,
    )


_OPTIONAL: Final = (
    "first_interface_index", "delete_on_termination", "release_excess", "prefix_delegation", "ipv6",
    "use_primary_address",
)  # fmt: skip
_TARGETS: Final = ("warm_addresses", "warm_prefixes", "warm_interfaces")


def policy_from(message: pb.Policy, defaults: Policy) -> Policy:
    """A target of the node's own takes the place of whichever the service has."""
    said = {field.name: value for field, value in message.ListFields()}
    if any(target in said for target in _TARGETS):
        defaults = replace(defaults, warm_addresses=None, warm_prefixes=None, warm_interfaces=None)
    return replace(defaults, **said)


def policy_to(policy: Policy) -> pb.Policy:
    return pb.Policy(**{name: getattr(policy, name) for name in Policy.__dataclass_fields__})


def pool_key(message: pb.NodeSpec) -> str:
    """How the service calls the pool: by its node's name, with that of the pool behind it if it has one."""
    return f"{message.name}/{message.pool}" if message.pool else message.name


def node_spec_from(message: pb.NodeSpec, defaults: NodeSpec) -> NodeSpec:
    """Raises InvalidInput for a node without name or instance."""
    for field in ("name", "instance_id"):
        if not getattr(message, field):
            raise InvalidInput(
                f"the node says no {field}", field=f"node.{field}", remedy="set it in the node's settings"
            )
    if "/" in message.name:
        raise InvalidInput(f"the node is called {message.name!r}", field="node.name", remedy="use a name without '/'")
    marks = defaults.watermarks
    if message.HasField("watermarks"):
        marks = watermarks_from(message.watermarks, marks)
    spec = replace(
        defaults,
        name=pool_key(message),
        instance_id=message.instance_id,
        instance_type=message.instance_type,
        watermarks=marks,
        subnet_ids=tuple(message.subnet_ids) or defaults.subnet_ids,
        subnet_tags=dict(message.subnet_tags) or defaults.subnet_tags,
        subnet_policy=_subnet_policy(message.subnet_policy) if message.subnet_policy else defaults.subnet_policy,
        security_group_ids=tuple(message.security_group_ids) or defaults.security_group_ids,
        security_group_tags=dict(message.security_group_tags) or defaults.security_group_tags,
        exclude_interface_tags=dict(message.exclude_interface_tags) or defaults.exclude_interface_tags,
        labels=dict(message.labels),
        public_address_tags=dict(message.public_address_tags) or defaults.public_address_tags,
        policy=policy_from(message.policy, defaults.policy),
    )
    return replace(spec, **{name: getattr(message, name) for name in _OPTIONAL if message.HasField(name)})


def _subnet_policy(text: str) -> SubnetPolicy:
    try:
        return SubnetPolicy(text)
    except ValueError:
        remedy = f"it is one of {', '.join(SubnetPolicy)}"
        raise InvalidInput(f"no subnet policy {text!r}", field="node.subnet_policy", remedy=remedy) from None


def node_spec_to(spec: NodeSpec) -> pb.NodeSpec:
    return pb.NodeSpec(
        name=spec.node,
        pool=spec.pool,
        instance_id=spec.instance_id,
        instance_type=spec.instance_type,
        watermarks=watermarks_to(spec.watermarks),
        first_interface_index=spec.first_interface_index,
        subnet_ids=spec.subnet_ids,
        subnet_tags=spec.subnet_tags,
        subnet_policy=spec.subnet_policy,
        security_group_ids=spec.security_group_ids,
        security_group_tags=spec.security_group_tags,
        exclude_interface_tags=spec.exclude_interface_tags,
        delete_on_termination=spec.delete_on_termination,
        release_excess=spec.release_excess,
        labels=spec.labels,
        prefix_delegation=spec.prefix_delegation,
        ipv6=spec.ipv6,
        use_primary_address=spec.use_primary_address,
        public_address_tags=spec.public_address_tags,
        policy=policy_to(spec.policy),
    )


def usage_from(message: pb.Usage) -> Usage:
    return Usage(
        in_use=_set(message.in_use),
        cooling=_set(message.cooling),
        ready=_set(message.ready),
        refused=_set(message.refused),
        pending_pods=message.pending_pods,
        sequence=message.sequence,
    )


def _set(texts: Collection[str]) -> frozenset[str]:
    return frozenset(texts) if texts else _EMPTY  # an empty one takes 216 bytes, and thousands of nodes have three


def usage_to(usage: Usage) -> pb.Usage:
    return pb.Usage(
        in_use=sorted(usage.in_use),
        cooling=sorted(usage.cooling),
        ready=sorted(usage.ready),
        refused=sorted(usage.refused),
        pending_pods=usage.pending_pods,
        sequence=usage.sequence,
    )


def interface_from(message: pb.Interface) -> PoolInterface:
    return PoolInterface(
        id=message.id,
        mac=message.mac,
        device_index=message.device_index,
        subnet_id=message.subnet_id,
        subnet_cidr=message.subnet_cidr,
        gateway=message.gateway,
        primary_address=message.primary_address,
        vpc_id=message.vpc_id,
        zone=message.zone,
        vpc_cidrs=tuple(message.vpc_cidrs),
        security_group_ids=tuple(message.security_group_ids),
        addresses={each.address: STATE_FROM_PB.get(each.state, AddressState.AVAILABLE) for each in message.addresses},
        instance_tags=dict(message.instance_tags),
        prefixes=tuple(message.prefixes),
        ipv6_addresses=tuple(message.ipv6_addresses),
        ipv6_prefixes=tuple(message.ipv6_prefixes),
        ipv6_gateway=message.ipv6_gateway,
    )


def interface_to(interface: PoolInterface) -> pb.Interface:
    return pb.Interface(
        id=interface.id,
        mac=interface.mac,
        device_index=interface.device_index,
        subnet_id=interface.subnet_id,
        subnet_cidr=interface.subnet_cidr,
        gateway=interface.gateway,
        primary_address=interface.primary_address,
        addresses=[
            pb.Address(address=address, state=STATE_TO_PB[state]) for address, state in interface.addresses.items()
        ],
        security_group_ids=interface.security_group_ids,
        vpc_cidrs=interface.vpc_cidrs,
        vpc_id=interface.vpc_id,
        zone=interface.zone,
        instance_tags=interface.instance_tags,
        prefixes=interface.prefixes,
        ipv6_addresses=interface.ipv6_addresses,
        ipv6_prefixes=interface.ipv6_prefixes,
        ipv6_gateway=interface.ipv6_gateway,
    )
