"""Ids of Azure's resources. ARM compares them without regard to case and writes them in several; here they are in lower
case, wherever they come from.

https://learn.microsoft.com/azure/azure-resource-manager/management/resource-name-rules
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ipam.errors import Rejected

_GROUP: Final = r"/subscriptions/(?P<subscription>[^/]+)/resourcegroups/(?P<group>[^/]+)/providers/"
_NIC: Final = re.compile(_GROUP + r"microsoft\.network/networkinterfaces/(?P<name>[^/]+)")
_MACHINE: Final = re.compile(_GROUP + r"microsoft\.compute/virtualmachines/(?P<name>[^/]+)")
_IN_SET: Final = _GROUP + r"microsoft\.compute/virtualmachinescalesets/(?P<set>[^/]+)/virtualmachines/(?P<index>[^/]+)"
_SET_MACHINE: Final = re.compile(_IN_SET)
_SET_NIC: Final = re.compile(_IN_SET + r"/networkinterfaces/(?P<name>[^/]+)")
_SET: Final = re.compile(_GROUP + r"microsoft\.compute/virtualmachinescalesets/(?P<name>[^/]+)")
_NETWORK: Final = re.compile(_GROUP + r"microsoft\.network/virtualnetworks/(?P<name>[^/]+)")

_PUBLIC: Final = re.compile(_GROUP + r"microsoft\.network/(?P<kind>publicipaddresses|publicipprefixes)/(?P<name>[^/]+)")


@dataclass(frozen=True, slots=True)
class Resource:
    """:ivar set: the uniform scale set that it belongs to; empty: none. `index` is the machine's there."""

    id: str
    group: str
    name: str
    set: str = ""
    index: str = ""

    @property
    def machine_id(self) -> str:
        """Of an interface in a uniform scale set: the machine it belongs to."""
        return self.id.rpartition("/networkinterfaces/")[0] if self.set else ""


def machine(resource_id: str) -> Resource:
    """Raises Rejected for what is no virtual machine's id."""
    return _parse(resource_id, "instance_id", _MACHINE, _SET_MACHINE)


def nic(resource_id: str) -> Resource:
    """Raises Rejected for what is no interface's id."""
    return _parse(resource_id, "interface_id", _NIC, _SET_NIC)


def scale_set(resource_id: str) -> Resource:
    return _parse(resource_id, "scale_set_id", _SET)


def network(resource_id: str) -> Resource:
    return _parse(resource_id, "vpc_id", _NETWORK)


def network_of(subnet_id: str) -> str:
    """The virtual network that a subnet belongs to."""
    return subnet_id.rpartition("/subnets/")[0]


def public(resource_id: str) -> tuple[str, str, str]:
    """Group, kind and name of a public address ("publicipaddresses") or of a prefix of them ("publicipprefixes")."""
    found = _PUBLIC.fullmatch(resource_id.lower())
    if found is None:
        raise Rejected(f"{resource_id!r} is no public address", code="InvalidResourceId", field="public_address_id")
    return found["group"], found["kind"], found["name"]


def is_machine(resource_id: str) -> bool:
    low = resource_id.lower()
    return bool(_MACHINE.fullmatch(low) or _SET_MACHINE.fullmatch(low))


def _parse(resource_id: str, field: str, *patterns: re.Pattern[str]) -> Resource:
    low = resource_id.lower()
    for pattern in patterns:
        if matched := pattern.fullmatch(low):
            found = matched.groupdict()
            index = found.get("index") or ""
            return Resource(low, found["group"], found.get("name") or index, found.get("set") or "", index)
    raise Rejected(
        f"{field} is {resource_id!r}", code="InvalidResourceId", field=field,
        remedy="give the whole id: /subscriptions/ID/resourceGroups/NAME/providers/Microsoft.Compute/virtualMachines/VM"
    )  # fmt: skip
