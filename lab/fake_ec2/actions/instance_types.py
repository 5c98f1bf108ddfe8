"""DescribeInstanceTypes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lab.fake_ec2.actions.registry import Answer, Parameters, action
from lab.fake_ec2.cloud import Cloud
from lab.fake_ec2.errors import ApiError
from lab.fake_ec2.filters import keep
from lab.fake_ec2.limits import InstanceType, instance_types
from lab.fake_ec2.pages import page

_DEFAULT_PAGE = 100
_FACTS: dict[str, Any] = {
    "instance-type": lambda row: row.type.name,
    "bare-metal": lambda row: str(row.type.bare_metal).lower(),
    "current-generation": lambda row: str(row.type.current_generation).lower(),
    "hypervisor": lambda row: row.type.hypervisor,
    "processor-info.supported-architecture": lambda row: row.type.architectures,
    "network-info.maximum-network-interfaces": lambda row: str(row.type.interfaces),
    "network-info.ipv4-addresses-per-interface": lambda row: str(row.type.ipv4_per_interface),
    "network-info.ipv6-supported": lambda row: str(row.type.ipv6).lower(),
}


@dataclass(frozen=True, slots=True)
class _Row:
    number: int
    type: InstanceType


@action("DescribeInstanceTypes")
def describe_instance_types(cloud: Cloud, parameters: Parameters) -> Answer:
    rows = [_Row(number, each) for number, each in enumerate(instance_types().values())]
    if names := parameters.get("InstanceTypes"):
        if unknown := [name for name in names if name not in instance_types()]:
            raise ApiError(
                "InvalidInstanceType",
                f"The following supplied instance types do not exist: [{', '.join(sorted(unknown))}]",
            )
        rows = [row for row in rows if row.type.name in names]
    # This call has pages even when nobody asked for them.
    paged = parameters if names else {"MaxResults": _DEFAULT_PAGE, **parameters}
    kept = keep(rows, parameters.get("Filters"), _FACTS)
    found, token = page(kept, "DescribeInstanceTypes", paged, ids="InstanceTypes", largest=100)
    return {"InstanceTypes": [_told(row.type) for row in found], "NextToken": token}


def _told(facts: InstanceType) -> dict[str, Any]:
    cards = [
        {"NetworkCardIndex": index, "NetworkPerformance": facts.network_performance, "MaximumNetworkInterfaces": size}
        for index, size in enumerate(facts.network_cards)
    ]
    return {
        "InstanceType": facts.name,
        "CurrentGeneration": facts.current_generation,
        "BareMetal": facts.bare_metal,
        "Hypervisor": facts.hypervisor or None,
        "ProcessorInfo": {"SupportedArchitectures": facts.architectures},
        "VCpuInfo": {"DefaultVCpus": facts.vcpus},
        "MemoryInfo": {"SizeInMiB": facts.memory_mib},
        "NetworkInfo": {
            "NetworkPerformance": facts.network_performance,
            "MaximumNetworkInterfaces": facts.interfaces,
            "MaximumNetworkCards": len(cards),
            "DefaultNetworkCardIndex": 0,
            "NetworkCards": cards,
            "Ipv4AddressesPerInterface": facts.ipv4_per_interface,
            "Ipv6AddressesPerInterface": facts.ipv6_per_interface,
            "Ipv6Supported": facts.ipv6,
        },
    }
