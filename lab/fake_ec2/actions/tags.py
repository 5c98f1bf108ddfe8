"""CreateTags, DeleteTags, DescribeTags, and the tags that other calls put on what they create."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from lab.fake_cloud.history import Table
from lab.fake_ec2.actions.registry import Answer, Parameters, action
from lab.fake_ec2.cloud import Cloud
from lab.fake_ec2.errors import ApiError
from lab.fake_ec2.filters import keep
from lab.fake_ec2.pages import page

_RESOURCES: Final = {
    "i": ("instance", "instances"),
    "eni": ("network-interface", "interfaces"),
    "subnet": ("subnet", "subnets"),
    "vpc": ("vpc", "vpcs"),
    "sg": ("security-group", "groups"),
    "rtb": ("route-table", "route_tables"),
    "eipalloc": ("elastic-ip", "elastic_ips"),
}
_MAX_TAGS: Final = 50


def checked(tags: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Raises ApiError for what the cloud takes as no tag."""
    found: dict[str, str] = {}
    for tag in tags:
        key, value = tag.get("Key", ""), tag.get("Value", "")
        if not 1 <= len(key) <= 128:
            raise ApiError("InvalidParameterValue", f"Tag key must be between 1 and 128 characters: '{key}'")
        if len(value) > 256:
            raise ApiError(
                "InvalidParameterValue", f"Tag value exceeds the maximum length of 256 characters: '{value}'"
            )
        if key.lower().startswith("aws:"):
            raise ApiError("InvalidParameterValue", "Tag keys starting with 'aws:' are reserved for internal use")
        if key in found:
            raise ApiError("InvalidParameterValue", f"Duplicate tag key '{key}' specified.")
        found[key] = value
    if len(found) > _MAX_TAGS:
        raise ApiError("TagLimitExceeded", f"More than {_MAX_TAGS} tags specified")
    return found


def specified(parameters: Parameters, *resource_types: str) -> dict[str, dict[str, str]]:
    """Tags of TagSpecifications by resource type, of which the call creates `resource_types`."""
    found: dict[str, dict[str, str]] = {each: {} for each in resource_types}
    for specification in parameters.get("TagSpecifications", ()):
        resource_type = specification.get("ResourceType", "")
        if resource_type not in found:
            raise ApiError(
                "InvalidParameterValue", f"'{resource_type}' is not a valid taggable resource type for this operation."
            )
        found[resource_type] = checked(specification.get("Tags", ()))
    return found


def told(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _table(cloud: Cloud, resource_id: str) -> Table[Any]:
    kind = resource_id.partition("-")[0]
    if kind not in _RESOURCES:
        raise ApiError("InvalidID", f"The ID '{resource_id}' is not valid")
    table: Table[Any] = getattr(cloud, _RESOURCES[kind][1])
    return table


@action("CreateTags")
def create_tags(cloud: Cloud, parameters: Parameters) -> Answer:
    new = checked(parameters["Tags"])
    records = [cloud.find(_table(cloud, each), each) for each in parameters["Resources"]]
    for record in records:
        if len({*record.tags, *new}) > _MAX_TAGS:
            raise ApiError("TagLimitExceeded", f"The maximum number of tags for '{record.id}' is {_MAX_TAGS}")
    for record in records:
        _table(cloud, record.id).put(replace(record, tags={**record.tags, **new}))
    cloud.changed()
    return {}


@action("DeleteTags")
def delete_tags(cloud: Cloud, parameters: Parameters) -> Answer:
    """A tag named with a value goes only if it has that value; no tags named: all go."""
    records = [cloud.find(_table(cloud, each), each) for each in parameters["Resources"]]
    named = parameters.get("Tags")
    for record in records:
        left = {key: value for key, value in record.tags.items() if named and not _names(named, key, value)}
        _table(cloud, record.id).put(replace(record, tags=left))
    cloud.changed()
    return {}


def _names(named: Sequence[Mapping[str, str]], key: str, value: str) -> bool:
    return any(tag.get("Key") == key and tag.get("Value", value) == value for tag in named)


@dataclass(frozen=True, slots=True)
class _Tagging:
    number: int
    resource_id: str
    resource_type: str
    key: str
    value: str


_FACTS = {
    "resource-id": lambda tagging: tagging.resource_id,
    "resource-type": lambda tagging: tagging.resource_type,
    "key": lambda tagging: tagging.key,
    "value": lambda tagging: tagging.value,
}


@action("DescribeTags")
def describe_tags(cloud: Cloud, parameters: Parameters) -> Answer:
    taggings = keep(_taggings(cloud), parameters.get("Filters"), _FACTS)
    found, token = page(taggings, "DescribeTags", parameters)
    rows = [
        {"Key": each.key, "ResourceId": each.resource_id, "ResourceType": each.resource_type, "Value": each.value}
        for each in found
    ]
    return {"NextToken": token, "Tags": rows}


def _taggings(cloud: Cloud) -> Iterator[_Tagging]:
    # A record has at most 50 tags, so numbers made this way stay in order while records come and go.
    for resource_type, table in _RESOURCES.values():
        offset = list(_RESOURCES.values()).index((resource_type, table)) << 40
        for record in getattr(cloud, table).readable():
            for place, (key, value) in enumerate(sorted(record.tags.items())):
                yield _Tagging(offset + record.number * 64 + place, record.id, resource_type, key, value)
