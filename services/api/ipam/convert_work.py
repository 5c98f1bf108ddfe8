"""IPAM messages <-> the domain's model, for intents and what workers learn from the cloud."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from google.protobuf.duration_pb2 import Duration

from ipam.errors import InvalidInput
from ipam.model import (
    Claim,
    CloudInterface,
    DeadLetter,
    Done,
    GiveUp,
    Goal,
    Instance,
    Intent,
    IntentKind,
    Inventory,
    Limits,
    NodeSpec,
    Operation,
    OperationCount,
    Outcome,
    Report,
    Retry,
    SecurityGroup,
    Step,
    Subnet,
)
from services.api.ipam.convert import node_spec_from, node_spec_to, seconds, timestamp
from services.api.ipam.v1 import cloud_pb2 as cloud_pb
from services.api.ipam.v1 import ipam_pb2 as pb

KIND_TO_PB: Final = {
    IntentKind.ALLOCATE: pb.INTENT_KIND_ALLOCATE,
    IntentKind.RELEASE: pb.INTENT_KIND_RELEASE,
    IntentKind.SYNC_INSTANCE: pb.INTENT_KIND_SYNC_INSTANCE,
    IntentKind.RESYNC: pb.INTENT_KIND_RESYNC,
    IntentKind.COLLECT: pb.INTENT_KIND_COLLECT,
    IntentKind.RELEASE_INTERFACE: pb.INTENT_KIND_RELEASE_INTERFACE,
    IntentKind.REPAIR: pb.INTENT_KIND_REPAIR,
}
KIND_FROM_PB: Final = {number: kind for kind, number in KIND_TO_PB.items()}
_NO_NODE: Final = NodeSpec(name="", instance_id="")


def duration(length_s: float) -> Duration:
    message = Duration()
    message.FromNanoseconds(max(0, round(length_s * 1e9)))
    return message


def cloud_interface_from(message: cloud_pb.CloudInterface) -> CloudInterface:
    return CloudInterface(
        id=message.id,
        mac=message.mac,
        subnet_id=message.subnet_id,
        vpc_id=message.vpc_id,
        zone=message.zone,
        primary_address=message.primary_address,
        addresses=tuple(message.addresses),
        instance_id=message.instance_id,
        attachment_id=message.attachment_id,
        device_index=message.device_index,
        network_card=message.network_card,
        security_group_ids=tuple(message.security_group_ids),
        tags=dict(message.tags),
        delete_on_termination=message.delete_on_termination,
        status=message.status,
        created_at=seconds(message.created_at),
        prefixes=tuple(message.prefixes),
        ipv6_addresses=tuple(message.ipv6_addresses),
        ipv6_prefixes=tuple(message.ipv6_prefixes),
        public_address_id=message.public_address_id,
    )


def cloud_interface_to(interface: CloudInterface) -> cloud_pb.CloudInterface:
    return cloud_pb.CloudInterface(
        id=interface.id,
        mac=interface.mac,
        subnet_id=interface.subnet_id,
        vpc_id=interface.vpc_id,
        zone=interface.zone,
        instance_id=interface.instance_id,
        attachment_id=interface.attachment_id,
        device_index=interface.device_index,
        network_card=interface.network_card,
        primary_address=interface.primary_address,
        addresses=interface.addresses,
        security_group_ids=interface.security_group_ids,
        tags=interface.tags,
        delete_on_termination=interface.delete_on_termination,
        status=interface.status,
        created_at=timestamp(interface.created_at),
        prefixes=interface.prefixes,
        ipv6_addresses=interface.ipv6_addresses,
        ipv6_prefixes=interface.ipv6_prefixes,
        public_address_id=interface.public_address_id,
    )


def instance_from(message: cloud_pb.Instance) -> Instance:
    return Instance(
        id=message.id,
        type=message.type,
        zone=message.zone,
        vpc_id=message.vpc_id,
        subnet_id=message.subnet_id,
        tags=dict(message.tags),
        security_group_ids=tuple(message.security_group_ids),
        interfaces=tuple(cloud_interface_from(each) for each in message.interfaces),
    )


def instance_to(instance: Instance) -> cloud_pb.Instance:
    return cloud_pb.Instance(
        id=instance.id,
        type=instance.type,
        zone=instance.zone,
        vpc_id=instance.vpc_id,
        subnet_id=instance.subnet_id,
        tags=instance.tags,
        interfaces=[cloud_interface_to(each) for each in instance.interfaces],
        security_group_ids=instance.security_group_ids,
    )


def subnet_from(message: cloud_pb.Subnet) -> Subnet:
    return Subnet(
        id=message.id,
        cidr=message.cidr,
        zone=message.zone,
        vpc_id=message.vpc_id,
        free=message.free,
        tags=dict(message.tags),
        vpc_cidrs=tuple(message.vpc_cidrs),
        gateway=message.gateway,
        ipv6_cidr=message.ipv6_cidr,
        free_prefixes=message.free_prefixes if message.HasField("free_prefixes") else None,
    )


def subnet_to(subnet: Subnet) -> cloud_pb.Subnet:
    return cloud_pb.Subnet(
        id=subnet.id,
        cidr=subnet.cidr,
        zone=subnet.zone,
        vpc_id=subnet.vpc_id,
        free=max(0, subnet.free),
        tags=subnet.tags,
        vpc_cidrs=subnet.vpc_cidrs,
        gateway=subnet.gateway,
        ipv6_cidr=subnet.ipv6_cidr,
        free_prefixes=subnet.free_prefixes,
    )


def security_group_from(message: cloud_pb.SecurityGroup) -> SecurityGroup:
    return SecurityGroup(id=message.id, vpc_id=message.vpc_id, tags=dict(message.tags))


def security_group_to(group: SecurityGroup) -> cloud_pb.SecurityGroup:
    return cloud_pb.SecurityGroup(id=group.id, vpc_id=group.vpc_id, tags=group.tags)


def limits_from(message: cloud_pb.Limits) -> Limits:
    return Limits(
        instance_type=message.instance_type,
        interfaces=message.interfaces,
        ipv4_per_interface=message.ipv4_per_interface,
        ipv6_per_interface=message.ipv6_per_interface,
        prefixes=message.prefixes,
        network_cards=message.network_cards,
        addresses_per_instance=message.addresses_per_instance,
        card_interfaces=tuple(message.card_interfaces),
    )


def limits_to(limits: Limits) -> cloud_pb.Limits:
    return cloud_pb.Limits(
        instance_type=limits.instance_type,
        interfaces=limits.interfaces,
        ipv4_per_interface=limits.ipv4_per_interface,
        ipv6_per_interface=limits.ipv6_per_interface,
        prefixes=limits.prefixes,
        network_cards=limits.network_cards,
        addresses_per_instance=limits.addresses_per_instance,
        card_interfaces=limits.card_interfaces,
    )


def step_from(message: pb.Step) -> Step:
    """Raises InvalidInput for an operation or JSON that cannot be read."""
    try:
        operation = Operation(message.operation)
        arguments = json.loads(message.arguments or "{}")
        result = json.loads(message.result) if message.result else None
    except ValueError as error:
        raise InvalidInput(f"step {message.number} cannot be read: {error}", field="steps") from error
    return Step(message.number, operation, message.target, arguments, message.client_token, result)


def step_to(step: Step) -> pb.Step:
    return pb.Step(
        number=step.number,
        operation=str(step.operation),
        target=step.target,
        arguments=_json(step.arguments),
        client_token=step.client_token,
        result="" if step.result is None else _json(step.result),
    )


def _json(mapping: Mapping[str, object]) -> str:
    return json.dumps(dict(mapping), separators=(",", ":"), sort_keys=True)


def intent_from(message: pb.Intent) -> Intent:
    return Intent(
        id=message.id,
        kind=KIND_FROM_PB[message.kind],
        node=message.node,
        want=message.want,
        addresses=tuple(message.addresses),
        steps=tuple(step_from(each) for each in message.steps),
        attempts=message.attempts,
        created_at=seconds(message.created_at),
        not_before_at=seconds(message.not_before),
        last_error=message.last_error,
        holder=message.holder,
    )


def intent_to(intent: Intent) -> pb.Intent:
    return pb.Intent(
        id=intent.id,
        kind=KIND_TO_PB[intent.kind],
        node=intent.node,
        want=intent.want,
        addresses=intent.addresses,
        steps=[step_to(each) for each in intent.steps],
        attempts=intent.attempts,
        created_at=timestamp(intent.created_at),
        not_before=timestamp(intent.not_before_at),
        last_error=intent.last_error,
        holder=intent.holder,
    )


def dead_letter_to(letter: DeadLetter) -> pb.DeadLetter:
    return pb.DeadLetter(
        id=letter.id,
        intent=intent_to(letter.intent),
        why=letter.why,
        died_at=timestamp(letter.died_at),
        replays=letter.replays,
    )


def claim_to(claim: Claim) -> pb.ClaimIntentResponse:
    return pb.ClaimIntentResponse(
        intent=intent_to(claim.intent),
        fence=claim.fence,
        lease=duration(claim.lease_s),
        node=None if claim.node is None else node_spec_to(claim.node),
        instance=None if claim.instance is None else instance_to(claim.instance),
        subnets=[subnet_to(each) for each in claim.subnets],
        security_groups=[security_group_to(each) for each in claim.security_groups],
        limits=None if claim.limits is None else limits_to(claim.limits),
        blocked_subnet_ids=sorted(claim.blocked_subnet_ids),
        goal=None if claim.goal is None else goal_to(claim.goal),
    )


def claim_from(message: pb.ClaimIntentResponse) -> Claim:
    return Claim(
        intent=intent_from(message.intent),
        fence=message.fence,
        lease_s=message.lease.ToNanoseconds() / 1e9,
        node=node_spec_from(message.node, _NO_NODE) if message.HasField("node") else None,
        instance=instance_from(message.instance) if message.HasField("instance") else None,
        subnets=tuple(subnet_from(each) for each in message.subnets),
        security_groups=tuple(security_group_from(each) for each in message.security_groups),
        limits=limits_from(message.limits) if message.HasField("limits") else None,
        blocked_subnet_ids=frozenset(message.blocked_subnet_ids),
        goal=goal_from(message.goal) if message.HasField("goal") else None,
    )


def goal_to(goal: Goal) -> pb.Goal:
    return pb.Goal(addresses=goal.addresses, first=goal.first)


def goal_from(message: pb.Goal) -> Goal:
    return Goal(message.addresses, message.first)


def completion_to(intent_id: str, fence: int, outcome: Outcome, report: Report) -> pb.CompleteIntentRequest:
    message = pb.CompleteIntentRequest(
        intent_id=intent_id,
        fence=fence,
        instance=None if report.instance is None else instance_to(report.instance),
        instance_gone=report.instance_gone,
        denied=report.denied,
        subnets=[subnet_to(each) for each in report.subnets],
        security_groups=[security_group_to(each) for each in report.security_groups],
        limits=None if report.limits is None else limits_to(report.limits),
        blocked_subnets=[cloud_pb.BlockedSubnet(id=each, why=why) for each, why in report.blocked_subnets.items()],
        operations=[operation_to(each) for each in report.operations],
    )
    match outcome:
        case Done():
            message.done.SetInParent()
        case Retry(after_s, why, underway, no_turn):
            retry = pb.Retry(after=duration(after_s), why=why, underway=underway, no_turn=no_turn)
            message.retry.CopyFrom(retry)
        case GiveUp(why):
            message.give_up.CopyFrom(pb.GiveUp(why=why))
    return message


def outcome_from(message: pb.CompleteIntentRequest) -> Outcome:
    """Raises InvalidInput when none is set."""
    match message.WhichOneof("outcome"):
        case "done":
            return Done()
        case "retry":
            retry = message.retry
            return Retry(retry.after.ToNanoseconds() / 1e9, retry.why, retry.underway, retry.no_turn)
        case "give_up":
            return GiveUp(message.give_up.why)
        case _:
            raise InvalidInput("no outcome is set", field="outcome", remedy="set done, retry or give_up")


def report_from(message: pb.CompleteIntentRequest) -> Report:
    return Report(
        instance=instance_from(message.instance) if message.HasField("instance") else None,
        instance_gone=message.instance_gone,
        denied=message.denied,
        subnets=tuple(subnet_from(each) for each in message.subnets),
        security_groups=tuple(security_group_from(each) for each in message.security_groups),
        limits=limits_from(message.limits) if message.HasField("limits") else None,
        blocked_subnets={each.id: each.why for each in message.blocked_subnets},
        operations=tuple(operation_from(each) for each in message.operations),
    )


def operation_from(message: pb.OperationStatus) -> OperationCount:
    return OperationCount(message.operation, message.calls, message.throttled, message.failed)


def operation_to(count: OperationCount) -> pb.OperationStatus:
    return pb.OperationStatus(
        operation=count.operation, calls=count.calls, throttled=count.throttled, failed=count.failed
    )


def inventory_to(intent_id: str, fence: int, page: Inventory) -> pb.ReportInventoryRequest:
    return pb.ReportInventoryRequest(
        intent_id=intent_id,
        fence=fence,
        instances=[instance_to(each) for each in page.instances],
        detached_interfaces=[cloud_interface_to(each) for each in page.detached],
        subnets=[subnet_to(each) for each in page.subnets],
        security_groups=[security_group_to(each) for each in page.security_groups],
        last=page.last,
        started_at=timestamp(page.started_at),
    )


def inventory_from(message: pb.ReportInventoryRequest) -> Inventory:
    return Inventory(
        instances=tuple(instance_from(each) for each in message.instances),
        detached=tuple(cloud_interface_from(each) for each in message.detached_interfaces),
        subnets=tuple(subnet_from(each) for each in message.subnets),
        security_groups=tuple(security_group_from(each) for each in message.security_groups),
        started_at=seconds(message.started_at),
        last=message.last,
    )
