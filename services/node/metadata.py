"""What the cloud says of a pod's interface, as labels of the pod, so that policy can select by it.

    cloud.plimsoll/vpc, /subnet, /zone, /interface     ids and names, as the cloud writes them
    cloud.plimsoll/security-group/<id>                 one label a group, of empty value
    cloud.plimsoll/tag/<key>                           a tag of the virtual machine, with its value

They count for a pod's identity only where the registry's `identity_labels` names them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ipam.model import PoolInterface

PREFIX: Final = "cloud.plimsoll/"
# The registry takes 256 labels of 512 bytes; a cloud allows fewer and shorter tags than would fill them.
_MOST_TAGS: Final = 64
_TEXT_BYTES: Final = 512


def cloud_labels(interface: PoolInterface) -> dict[str, str]:
    """Labels of pods of that interface; what the cloud did not tell has none."""
    facts = {
        "vpc": interface.vpc_id,
        "subnet": interface.subnet_id,
        "zone": interface.zone,
        "interface": interface.id if interface.mac else "",  # a range of the node's own is no interface
    }
    labels = {f"{PREFIX}{name}": value for name, value in facts.items() if value}
    labels |= {f"{PREFIX}security-group/{each}": "" for each in interface.security_group_ids}
    return labels | _tags(interface.instance_tags)


def _tags(tags: Mapping[str, str]) -> dict[str, str]:
    told = {f"{PREFIX}tag/{key}": value for key, value in sorted(tags.items())[:_MOST_TAGS]}
    return {key: value for key, value in told.items() if len(key.encode()) <= _TEXT_BYTES >= len(value.encode())}
