"""Which subnet and which security groups a new interface gets. Pure; a refusal is told as a sentence."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from ipam.model import Instance, NodeSpec, SecurityGroup, Subnet, SubnetPolicy

NEEDED_FOR_INTERFACE = 2  # a primary address, and one that carries a pod
NAMED = 5  # subnets that a refusal names


def candidates(spec: NodeSpec, instance: Instance, subnets: Iterable[Subnet]) -> list[Subnet]:
    """Subnets that a new interface of the instance may be in, with or without room: those of its zone and VPC, of the
    given ids or tags only."""
    near = [each for each in subnets if (each.zone, each.vpc_id) == (instance.zone, instance.vpc_id)]
    if spec.subnet_ids:
        return [each for each in near if each.id in spec.subnet_ids]
    return [each for each in near if matches(each.tags, spec.subnet_tags)] if spec.subnet_tags else near


def choose_subnet(
    spec: NodeSpec,
    instance: Instance,
    subnets: Mapping[str, Subnet],
    free: Mapping[str, int],
    blocked: frozenset[str],
) -> Subnet | str:
    """Given ids, then given tags, else the node's own subnet if it has room; of several the one that the node's policy
    takes.

    Only subnets of the instance's own zone and VPC can be attached to it. `free` is what is left of each by now.
    """
    near = candidates(spec, instance, subnets.values())
    if spec.subnet_ids:
        rule = f"of the given ids {', '.join(spec.subnet_ids)} "
    elif spec.subnet_tags:
        rule = f"with tags {_text(spec.subnet_tags)} "
    else:
        rule = ""
    if not near:
        return f"no subnet {rule}in zone {instance.zone} of {instance.vpc_id}"
    roomy = [each for each in near if each.id not in blocked and free[each.id] >= NEEDED_FOR_INTERFACE]
    if not roomy:
        passed = sorted(each.id for each in near if each.id in blocked)
        full = sorted(each.id for each in near if each.id not in blocked)
        more = f" and {len(full) - NAMED} more" if len(full) > NAMED else ""
        named = f": {', '.join(full[:NAMED])}{more}" if full else ""
        tail = f"; passed over for now: {', '.join(passed)}" if passed else ""
        return f"all subnets {rule}in zone {instance.zone} are full{named}{tail}"
    if not spec.subnet_ids and not spec.subnet_tags:
        own = [each for each in roomy if each.id == instance.subnet_id]
        roomy = own or roomy
    return _by_policy(spec, instance, roomy, free)


def _by_policy(spec: NodeSpec, instance: Instance, roomy: Sequence[Subnet], free: Mapping[str, int]) -> Subnet:
    if spec.subnet_policy is SubnetPolicy.ORDERED:
        order = {subnet_id: number for number, subnet_id in enumerate(reversed(spec.subnet_ids))}
        return min(roomy, key=lambda each: (-order.get(each.id, 0), each.id))
    if spec.subnet_policy is SubnetPolicy.RANDOM:
        # The same answer for the same question: an attempt that is repeated asks the cloud for the same thing.
        asked = f"{instance.id} {len(instance.interfaces)}"
        return max(roomy, key=lambda each: hashlib.sha256(f"{asked} {each.id}".encode()).digest())
    return max(roomy, key=lambda each: (free[each.id], each.id))


def choose_security_groups(
    spec: NodeSpec, instance: Instance, groups: Sequence[SecurityGroup]
) -> tuple[str, ...] | str:
    """Given ids, then given tags, else those of the instance's first interface."""
    known = {group.id for group in groups if group.vpc_id == instance.vpc_id}
    if spec.security_group_ids:
        missing = sorted(set(spec.security_group_ids) - known)
        if known and missing:
            return f"no such security group in {instance.vpc_id}: {', '.join(missing)}"
        return spec.security_group_ids
    if spec.security_group_tags:
        tagged = sorted(
            group.id
            for group in groups
            if group.vpc_id == instance.vpc_id and matches(group.tags, spec.security_group_tags)
        )
        return tuple(tagged) or f"no security group in {instance.vpc_id} with tags {_text(spec.security_group_tags)}"
    first = [each for each in instance.interfaces if each.device_index == 0]
    own = first[0].security_group_ids if first else ()
    own = own or instance.security_group_ids
    return tuple(own) or f"instance {instance.id} has no interface 0 to take security groups from"


def matches(tags: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether `tags` has all of `wanted`."""
    return all(tags.get(key) == value for key, value in wanted.items())


def _text(tags: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(tags.items()))
