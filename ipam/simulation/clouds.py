"""Rules of clouds as they are without an account: a workload's `[rules]` puts the account's own in their place.

Limits of types are the clouds' published ones. Seconds and throttles differ by account, region and hour; what stands
here is their order of magnitude, to be replaced by what the metrics of a running service tell
(`plimsoll_cloud_api_duration_seconds`) and by the account's quota.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ipam.model import Limits, Operation
from ipam.ports import Capabilities
from ipam.simulation.model import CallRate, CloudRules


def _types(*rows: Limits) -> Mapping[str, Limits]:
    return {row.instance_type: row for row in rows}


def _aws(name: str, interfaces: int, addresses: int, *, prefixes: bool = True) -> Limits:
    return Limits(name, interfaces, addresses, addresses, prefixes=prefixes)


def _azure(name: str, interfaces: int) -> Limits:
    return Limits(name, interfaces, 256, addresses_per_instance=256)


def _alibaba(name: str, interfaces: int, addresses: int) -> Limits:
    return Limits(name, interfaces, addresses, prefixes=True)


AWS: Final = CloudRules(
    name="aws",
    capabilities=Capabilities(
        creates_interfaces=True, max_addresses_per_call=49, max_addresses_on_create=49, delete_on_termination=True,
        asynchronous_attach=True, prefixes=True, ipv6=True, ipv6_prefixes=True, changes_interfaces=True,
        public_addresses=True,
    ),
    types=_types(
        _aws("t3.medium", 3, 6), _aws("t3.large", 3, 12), _aws("m4.large", 2, 10, prefixes=False),
        _aws("m5.large", 3, 10), _aws("m5.xlarge", 4, 15), _aws("m5.2xlarge", 4, 15), _aws("m5.4xlarge", 8, 30),
        _aws("m5.8xlarge", 8, 30), _aws("m5.16xlarge", 15, 50), _aws("c5.large", 3, 10), _aws("c5.xlarge", 4, 15),
        _aws("c5.2xlarge", 4, 15), _aws("c5.4xlarge", 8, 30), _aws("r5.large", 3, 10), _aws("r5.xlarge", 4, 15),
        _aws("r5.4xlarge", 8, 30), _aws("m6i.large", 3, 10), _aws("m6i.xlarge", 4, 15), _aws("m6i.4xlarge", 8, 30),
    ),
    seconds={
        Operation.CREATE_INTERFACE: 0.8, Operation.ATTACH_INTERFACE: 2.5, Operation.PROTECT_INTERFACE: 0.3,
        Operation.ASSIGN_ADDRESSES: 0.5, Operation.ASSIGN_PREFIXES: 0.5, Operation.UNASSIGN_ADDRESSES: 0.5,
        Operation.UNASSIGN_PREFIXES: 0.5, Operation.DETACH_INTERFACE: 3.0, Operation.DELETE_INTERFACE: 0.6,
    },
    throttle=CallRate(10.0, 100.0),
    reserved=5,
    page=200,
)  # fmt: skip
AZURE: Final = CloudRules(
    name="azure",
    capabilities=Capabilities(
        creates_interfaces=False, max_addresses_per_call=255, max_addresses_on_create=0, delete_on_termination=False,
        assign_tokens=True, public_addresses=True, ids_ignore_case=True,
    ),
    types=_types(
        _azure("Standard_D2s_v5", 2), _azure("Standard_D4s_v5", 2), _azure("Standard_D8s_v5", 4),
        _azure("Standard_D16s_v5", 8), _azure("Standard_E4s_v5", 2), _azure("Standard_F8s_v2", 4),
    ),
    # A change of the virtual machine's model, polled until it has succeeded.
    seconds={Operation.ASSIGN_ADDRESSES: 12.0, Operation.UNASSIGN_ADDRESSES: 12.0},
    throttle=CallRate(4.0, 200.0),
    reserved=5,
    page=100,
)  # fmt: skip
ALIBABA: Final = CloudRules(
    name="alibaba",
    capabilities=Capabilities(
        creates_interfaces=True, max_addresses_per_call=10, max_addresses_on_create=10, delete_on_termination=True,
        asynchronous_attach=True, prefixes=True, assign_tokens=True, changes_interfaces=True, public_addresses=True,
        protects_on_create=True,
    ),
    types=_types(
        _alibaba("ecs.g7.large", 3, 6), _alibaba("ecs.g7.xlarge", 4, 15), _alibaba("ecs.g7.2xlarge", 4, 15),
        _alibaba("ecs.g7.4xlarge", 8, 30), _alibaba("ecs.g6.large", 2, 6), _alibaba("ecs.g6.xlarge", 3, 10),
        _alibaba("ecs.c7.xlarge", 4, 15), _alibaba("ecs.c7.4xlarge", 8, 30),
    ),
    seconds={
        Operation.CREATE_INTERFACE: 1.0, Operation.ATTACH_INTERFACE: 4.0, Operation.PROTECT_INTERFACE: 0.5,
        Operation.ASSIGN_ADDRESSES: 0.8,
        Operation.ASSIGN_PREFIXES: 0.8, Operation.UNASSIGN_ADDRESSES: 0.8, Operation.UNASSIGN_PREFIXES: 0.8,
        Operation.DETACH_INTERFACE: 3.0, Operation.DELETE_INTERFACE: 0.8,
    },
    throttle=CallRate(8.0, 40.0),
    reserved=4,
    page=100,
)  # fmt: skip

CLOUDS: Final[Mapping[str, CloudRules]] = {each.name: each for each in (AWS, AZURE, ALIBABA)}
