"""Views of the service as messages."""

from __future__ import annotations

import math
from typing import Final

from ipam.degradation import Degradation
from ipam.errors import InvalidInput
from ipam.model import Finding, Level
from ipam.obtainable import Obtainable
from ipam.views import LevelView, PoolView, Status, SubnetView
from services.api.ipam.convert import interface_to, node_spec_to, timestamp, watermarks_to
from services.api.ipam.convert_work import duration, operation_to
from services.api.ipam.v1 import ipam_pb2 as pb
from services.api.ipam.v1 import level_pb2 as level_pb

_LEVELS: Final = {
    Level.OK: pb.FINDING_LEVEL_OK,
    Level.WAITING: pb.FINDING_LEVEL_WAITING,
    Level.PROBLEM: pb.FINDING_LEVEL_PROBLEM,
}


LEVELS: Final = {
    Degradation.NORMAL: level_pb.DEGRADATION_LEVEL_NORMAL,
    Degradation.NO_RELEASE: level_pb.DEGRADATION_LEVEL_NO_RELEASE,
    Degradation.NO_MUTATION: level_pb.DEGRADATION_LEVEL_NO_MUTATION,
    Degradation.FROZEN: level_pb.DEGRADATION_LEVEL_FROZEN,
}


def pool_to(view: PoolView) -> pb.Pool:
    return pb.Pool(
        node=node_spec_to(view.spec),
        instance_type=view.instance_type,
        zone=view.zone,
        interfaces=[interface_to(each) for each in view.interfaces.values()],
        attached=view.attached,
        in_use=view.in_use,
        cooling=view.cooling,
        needed=view.needed,
        excess=view.excess,
        capacity=view.capacity,
        interface_limit=view.interface_limit,
        addresses_per_interface=view.addresses_per_interface,
        connected=view.connected,
        pending_pods=view.pending_pods,
        open_intents=view.open_intents,
        last_error=view.last_error,
        last_synced_at=timestamp(view.last_synced_at),
        marks=watermarks_to(view.marks),
        marks_why=view.marks_why,
        overrides=view.overrides,
        obtainable=None if view.obtainable is None else obtainable_to(view.obtainable),
    )


def obtainable_to(found: Obtainable) -> pb.Obtainable:
    return pb.Obtainable(
        addresses=found.addresses,
        limited_by=found.limited_by,
        by_limits=found.by_limits,
        by_subnets=found.by_subnets,
        subnets=found.subnets,
    )


def finding_to(finding: Finding) -> pb.Finding:
    return pb.Finding(
        level=_LEVELS[finding.level], subject=finding.subject, message=finding.message, remedy=finding.remedy
    )


def status_to(status: Status, *, cloud: str, account: str, region: str) -> pb.GetStatusResponse:
    return pb.GetStatusResponse(
        cloud=cloud,
        account=account,
        region=region,
        leader=status.leader,
        nodes=status.nodes,
        nodes_in_deficit=status.nodes_in_deficit,
        nodes_at_capacity=status.nodes_at_capacity,
        open_intents=status.open_intents,
        dead_letters=status.dead_letters,
        operations=[operation_to(each) for each in status.operations],
        subnets=[_subnet_to(each) for each in status.subnets],
        last_resync_at=timestamp(status.last_resync_at),
        degradation=level_to(status.level),
    )


def level_to(view: LevelView) -> level_pb.Degradation:
    return level_pb.Degradation(
        level=LEVELS[view.level],
        by_hand=LEVELS[view.by_hand],
        by_budget=LEVELS[view.by_budget],
        why=view.why,
        until=timestamp(view.until_at),
    )


def level_from(number: int) -> Degradation:
    """Raises InvalidInput for none, and for one that this release does not know."""
    for level, known in LEVELS.items():
        if known == number:
            return level
    raise InvalidInput("no level is named", field="level", remedy="use normal, no-release, no-mutation or frozen")


def _subnet_to(subnet: SubnetView) -> pb.SubnetStatus:
    trend = subnet.exhaustion
    return pb.SubnetStatus(
        id=subnet.id,
        vpc_id=subnet.vpc_id,
        cidr=subnet.cidr,
        zone=subnet.zone,
        free=max(0, subnet.free),
        blocked_until=timestamp(subnet.blocked_until_at),
        blocked_why=subnet.blocked_why,
        runs_out_in=duration(trend.in_s) if trend is not None and math.isfinite(trend.in_s) else None,
        taken_per_hour=trend.taken_per_hour if trend is not None else 0.0,
    )
