"""How the live interfaces of an instance differ from what they should be. Pure: facts in, calls to make out.

Only interfaces of our own (the cluster's tag) have their groups and tags set right; what others made is theirs. IPv6 is
brought to every interface that carries pods, and a public address to the first one. Each pool of a node looks after the
interfaces of its own; the public address is the default pool's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ipam.model import CloudInterface, Instance, Limits, NodeSpec, Operation, SecurityGroup, Subnet
from ipam.plan import ATTACHED, CallLimits, belongs, call_limits, carries_pods, pod_addresses, wanted_ipv6
from ipam.ports import Capabilities
from ipam.selection import choose_security_groups, matches
from ipam.tags import CLUSTER_TAG, NODE_TAG, POOL_TAG


@dataclass(frozen=True, slots=True)
class Can:
    """What the cloud lets be changed on a live interface."""

    calls: CallLimits
    changes_interfaces: bool = False
    public_addresses: bool = False


def abilities(can: Capabilities) -> Can:
    return Can(call_limits(can), can.changes_interfaces, can.public_addresses)


@dataclass(frozen=True, slots=True)
class Drift:
    """One call that sets one interface right. `arguments` are JSON-able."""

    interface_id: str
    operation: Operation
    arguments: Mapping[str, object] = field(hash=False)


def drifts(
    spec: NodeSpec,
    instance: Instance,
    *,
    can: Can,
    cluster: str,
    tags: Mapping[str, str],
    groups: Sequence[SecurityGroup],
    subnets: Iterable[Subnet],
    limits: Limits | None,
) -> list[Drift]:
    """:param tags: that every interface of ours has beside those that say whose it is."""
    found = ipv6_drifts(spec, instance, can=can, subnets=subnets, limits=limits)
    if can.changes_interfaces:
        own = [each for each in instance.interfaces if _is_ours(spec, each, cluster)]
        found += _group_drifts(spec, instance, own, groups)
        found += _tag_drifts(own, own_tags(spec, cluster, tags))
    if can.public_addresses and spec.public_address_tags and not spec.pool:
        first = next((each for each in instance.interfaces if _is_first(each)), None)
        if first is not None and not any(each.public_address_id for each in instance.interfaces):
            asked = {"tags": dict(spec.public_address_tags)}
            found.append(Drift(first.id, Operation.ASSOCIATE_PUBLIC_ADDRESS, asked))
    return found


def ipv6_drifts(
    spec: NodeSpec, instance: Instance, *, can: Can, subnets: Iterable[Subnet], limits: Limits | None
) -> list[Drift]:
    """What the interfaces for pods lack of IPv6."""
    if not spec.ipv6 or limits is None:
        return []
    known = {subnet.id: subnet for subnet in subnets}
    found = []
    for each in instance.interfaces:
        subnet = known.get(each.subnet_id)
        if subnet is None or not carries_pods(spec, each) or each.ipv6_prefixes:
            continue
        single, prefixes = wanted_ipv6(spec, subnet, limits, can.calls, len(pod_addresses(spec, each)))
        if prefixes and len(each.ipv6_addresses) < limits.ipv6_per_interface:
            found.append(Drift(each.id, Operation.ASSIGN_IPV6_PREFIXES, {"count": prefixes}))
        elif single > len(each.ipv6_addresses):
            count = min(single - len(each.ipv6_addresses), can.calls.max_addresses_per_call)
            found.append(Drift(each.id, Operation.ASSIGN_IPV6, {"count": count}))
    return found


def _is_first(interface: CloudInterface) -> bool:
    return (interface.network_card, interface.device_index) == (0, 0)


def _is_ours(spec: NodeSpec, interface: CloudInterface, cluster: str) -> bool:
    excluded = bool(spec.exclude_interface_tags) and matches(interface.tags, spec.exclude_interface_tags)
    ours = interface.tags.get(CLUSTER_TAG) == cluster and not _is_first(interface)
    return ours and interface.status == ATTACHED and not excluded and belongs(spec, interface)


def own_tags(spec: NodeSpec, cluster: str, tags: Mapping[str, str]) -> dict[str, str]:
    """`tags`, and those that say whose an interface made for this pool is."""
    own = {**tags, CLUSTER_TAG: cluster, NODE_TAG: spec.node}
    return {**own, POOL_TAG: spec.pool} if spec.pool else own


def _group_drifts(
    spec: NodeSpec, instance: Instance, own: Sequence[CloudInterface], groups: Sequence[SecurityGroup]
) -> list[Drift]:
    wanted = choose_security_groups(spec, instance, groups)
    if isinstance(wanted, str):  # none can be chosen now: what is there stays
        return []
    asked = {"security_group_ids": list(wanted)}
    return [
        Drift(each.id, Operation.SET_SECURITY_GROUPS, asked)
        for each in own
        if set(each.security_group_ids) != set(wanted)
    ]


def _tag_drifts(own: Sequence[CloudInterface], wanted: Mapping[str, str]) -> list[Drift]:
    found = []
    for each in own:
        wrong = {key: value for key, value in wanted.items() if each.tags.get(key) != value}
        if wrong:
            found.append(Drift(each.id, Operation.SET_TAGS, {"tags": wrong}))
    return found
