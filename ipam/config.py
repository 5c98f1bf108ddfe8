"""What an operator may set for a cloud account. Validated where it enters (services/*/settings.py builds it)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ipam.model import NO_TAGS, Limits, Policy, Watermarks
from ipam.overrides import Override


@dataclass(frozen=True, slots=True)
class IpamConfig:
    """Settings of one account and region, with the defaults of nodes.

    :param cluster: name that is put on every resource created, and without which none is ever deleted.
    :param coalesce_s: how long a deficit that is not urgent waits for more, so that one call serves many pods.
    :param urgent_fraction: a deficit is urgent when fewer than this part of pre-allocate is free.
    :param policy: how marks come about where they are not plain counts.
    :param overrides: rules that set these for nodes by their labels, later ones over earlier ones.
    :param release_delay_s: how long an excess must last before it is released.
    :param release_batch: addresses of a node given back at once; 0: as many as one call takes.
    :param release_interval_s: between two batches of a node, on average; spread by half of it either way.
    :param release_interfaces: interfaces of ours of which no address is used go in one piece.
    :param reclaim: a node whose pods wait may have what others keep free, where the subnets in its reach are empty.
    :param leak_age_s: how long an interface of ours must have been detached before it is deleted.
    :param collect_limit: interfaces deleted in one pass.
    :param block_s: how long an exhausted subnet is passed over.
    :param lease_s: how long a worker holds an intent before another may take it.
    :param max_attempts: retries before an intent becomes a dead letter; 0 means never.
    :param limits_override: limits that win over the cloud's own words, by instance type.
    """

    account: str
    region: str
    cluster: str = "plimsoll"
    watermarks: Watermarks = Watermarks()
    policy: Policy = Policy()
    overrides: tuple[Override, ...] = ()
    first_interface_index: int = 0
    subnet_ids: tuple[str, ...] = ()
    subnet_tags: Mapping[str, str] = NO_TAGS
    security_group_ids: tuple[str, ...] = ()
    security_group_tags: Mapping[str, str] = NO_TAGS
    exclude_interface_tags: Mapping[str, str] = NO_TAGS
    interface_tags: Mapping[str, str] = NO_TAGS
    delete_on_termination: bool = True
    release_excess: bool = True
    release_delay_s: float = 180.0
    release_batch: int = 0
    release_interval_s: float = 30.0
    release_interfaces: bool = False
    reclaim: bool = True
    coalesce_s: float = 30.0
    urgent_fraction: float = 0.75
    resync_interval_s: float = 60.0
    collect_interval_s: float = 300.0
    leak_age_s: float = 300.0
    collect_limit: int = 25
    block_s: float = 300.0
    lease_s: float = 60.0
    retry_base_s: float = 1.0
    retry_cap_s: float = 300.0
    max_attempts: int = 20
    sweep_interval_s: float = 10.0
    limits_override: Mapping[str, Limits] = field(default_factory=dict)
