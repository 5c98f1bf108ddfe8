"""Calls by name. Each is a function of the cloud and the call's parameters that returns the answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from lab.fake_alibaba.cloud import Cloud

ECS: Final = "2014-05-26"
VPC: Final = "2016-04-28"

Parameters = Mapping[str, Any]
Answer = Mapping[str, Any]
Handler = Callable[[Cloud, Parameters], Answer]


@dataclass(frozen=True, slots=True)
class Action:
    """:ivar version: tells the API that the call belongs to."""

    name: str
    version: str
    handler: Handler

    @property
    def operation_class(self) -> str:
        return "read" if self.name.startswith("Describe") else "mutate"

    def perform(self, cloud: Cloud, parameters: Parameters) -> Answer:
        """Raises ApiError; nothing has changed then."""
        return self.handler(cloud, parameters)


ACTIONS: dict[str, Action] = {}


def action(name: str, version: str = ECS) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        ACTIONS[name] = Action(name, version, handler)
        return handler

    return register
