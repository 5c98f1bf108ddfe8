"""Calls by name. Each is a function of the cloud and the call's parameters that returns the answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lab.fake_ec2.cloud import Cloud
from lab.fake_ec2.errors import ApiError

Parameters = Mapping[str, Any]
Answer = Mapping[str, Any]
Handler = Callable[[Cloud, Parameters], Answer]


@dataclass(frozen=True, slots=True)
class Action:
    name: str
    handler: Handler

    @property
    def operation_class(self) -> str:
        return "read" if self.name.startswith("Describe") else "mutate"

    def perform(self, cloud: Cloud, parameters: Parameters) -> Answer:
        """Raises ApiError; nothing has changed then."""
        if parameters.get("DryRun"):
            raise ApiError("DryRunOperation", "Request would have succeeded, but DryRun flag is set.")
        return self.handler(cloud, parameters)


ACTIONS: dict[str, Action] = {}


def action(name: str) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        ACTIONS[name] = Action(name, handler)
        return handler

    return register
