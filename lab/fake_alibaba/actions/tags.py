"""Tags of everything: ECS and VPC have one call each of the same name, told apart by the kind of resource."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lab.fake_alibaba.actions.registry import Answer, Parameters, action
from lab.fake_alibaba.cloud import Cloud
from lab.fake_alibaba.errors import ApiError, missing
from lab.fake_alibaba.parameters import tags, text, texts

_MOST_TAGS = 20


def has(record: Any, parameters: Parameters) -> bool:
    """Whether the record has all tags that a listing asks for; one without a value goes by its key."""
    wanted: Mapping[str, str] = tags(parameters) if parameters.get("Tag") else {}
    return all(key in record.tags and value in ("", record.tags[key]) for key, value in wanted.items())


@action("TagResources")
def tag_resources(cloud: Cloud, parameters: Parameters) -> Answer:
    kind, ids, more = text(parameters, "ResourceType"), texts(parameters, "ResourceId", 50), tags(parameters)
    if not ids:
        raise missing("ResourceId")
    if not more:
        raise missing("Tag")
    tables: dict[str, Any] = {"eni": cloud.interfaces, "instance": cloud.instances, "securitygroup": cloud.groups}
    if kind not in tables:
        raise ApiError("InvalidResourceType.NotFound", f"The ResourceType {kind} is not supported.")
    records = [cloud.find(tables[kind], each) for each in ids]
    if any(len({**each.tags, **more}) > _MOST_TAGS for each in records):
        raise ApiError("NumberExceed.Tags", "The Tags parameter's number is exceed.")
    for record in records:
        tables[kind].put(replace(record, tags={**record.tags, **more}))
    cloud.changed()
    return {}
