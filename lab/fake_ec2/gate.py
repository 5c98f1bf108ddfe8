"""What stands before every call: throttling, latency, faults, and the count of calls."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lab.fake_ec2.actions import ACTIONS
from lab.fake_ec2.actions.registry import Action
from lab.fake_ec2.cloud import Cloud
from lab.fake_ec2.errors import ApiError
from lab.fake_ec2.faults import CUT, HANG, MALFORMED
from lab.fake_ec2.protocol.model import operation_names
from lab.fake_ec2.protocol.parsing import parse


class Special(Exception):
    """The call ends without an EC2 answer: "cut", "hang" or "malformed"."""


@dataclass(slots=True)
class Calls:
    """Calls since the start or the last reset."""

    by_action: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)

    def document(self) -> dict[str, Any]:
        mutating = sum(count for name, count in self.by_action.items() if ACTIONS[name].operation_class == "mutate")
        return {
            "total": self.by_action.total(),
            "mutating": mutating,
            "throttled": self.errors["RequestLimitExceeded"],
            "by_action": dict(self.by_action),
            "errors": dict(self.errors),
        }


class Gate:
    """Lets calls through to the cloud."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.calls = Calls()

    async def call(self, name: str, fields: Iterable[tuple[str, str]]) -> Mapping[str, Any]:
        """The answer of the call. Raises ApiError or Special."""
        action = self._action(name)
        self.calls.by_action[name] += 1
        try:
            return await self._call(action, fields)
        except ApiError as error:
            self.calls.errors[error.code] += 1
            raise
        except Special as special:
            self.calls.errors[str(special)] += 1
            raise

    def _action(self, name: str) -> Action:
        if not name:
            raise ApiError("MissingAction", "The request must contain the parameter Action")
        if name in ACTIONS:
            return ACTIONS[name]
        if name in operation_names():
            raise ApiError("InvalidAction", f"The action {name} is not one of those that this EC2 answers.")
        raise ApiError("InvalidAction", f"The action {name} is not valid for this web service.")

    async def _call(self, action: Action, fields: Iterable[tuple[str, str]]) -> Mapping[str, Any]:
        cloud, faults = self.cloud, self.cloud.faults
        if not faults.admits(action.name, action.operation_class, time.monotonic()):
            raise ApiError("RequestLimitExceeded", "Request limit exceeded.")
        parameters = parse(action.name, fields)
        latency_s = faults.latency(action.operation_class)
        if latency_s:
            await asyncio.sleep(latency_s)
        failure = faults.failure(action.name, action.operation_class, cloud.chance)
        cloud.settle()
        answer = action.perform(cloud, parameters) if failure is None or failure.after_effect else {}
        if failure is None:
            return answer
        if failure.code in (CUT, HANG, MALFORMED):
            raise Special(failure.code)
        raise ApiError(failure.code, failure.message or f"{failure.code}: injected")
