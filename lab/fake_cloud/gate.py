"""What stands before every call: throttling, latency, faults, and the count of calls."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from lab.fake_cloud.cloud import BaseCloud
from lab.fake_cloud.errors import ApiError
from lab.fake_cloud.faults import CUT, HANG, MALFORMED

C = TypeVar("C", bound=BaseCloud)
T = TypeVar("T")


class Special(Exception):
    """The call ends without an answer of the cloud: "cut", "hang" or "malformed"."""


@dataclass(slots=True)
class Calls:
    """Calls since the start or the last reset."""

    by_action: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    mutating: int = 0
    throttled: int = 0

    def document(self) -> dict[str, Any]:
        return {
            "total": self.by_action.total(),
            "mutating": self.mutating,
            "throttled": self.throttled,
            "by_action": dict(self.by_action),
            "errors": dict(self.errors),
        }


class Gate(Generic[C]):
    """Lets calls through to the cloud.

    :param throttled: makes the cloud's error of too many calls.
    :param injected: makes the error of a code and message that a fault asks for.
    """

    def __init__(self, cloud: C, throttled: Callable[[], ApiError], injected: Callable[[str, str], ApiError]) -> None:
        self.cloud = cloud
        self.calls = Calls()
        self._throttled = throttled
        self._injected = injected

    async def call(self, name: str, operation_class: str, perform: Callable[[], T], check: Callable[[], None]) -> T:
        """The answer of the call. Raises ApiError or Special.

        :param operation_class: "mutate" or "read".
        :param check: what the cloud refuses before it begins, such as a parameter that is missing.
        """
        self.calls.by_action[name] += 1
        self.calls.mutating += operation_class == "mutate"
        try:
            return await self._call(name, operation_class, perform, check)
        except ApiError as error:
            self.calls.errors[error.code] += 1
            raise
        except Special as special:
            self.calls.errors[str(special)] += 1
            raise

    async def _call(self, name: str, operation_class: str, perform: Callable[[], T], check: Callable[[], None]) -> T:
        cloud, faults = self.cloud, self.cloud.faults
        if not faults.admits(name, operation_class, time.monotonic()):
            self.calls.throttled += 1
            raise self._throttled()
        check()
        latency_s = faults.latency(operation_class)
        if latency_s:
            await asyncio.sleep(latency_s)
        failure = faults.failure(name, operation_class, cloud.chance)
        cloud.settle()
        if failure is None:
            return perform()
        if failure.after_effect:
            perform()
        if failure.code in (CUT, HANG, MALFORMED):
            raise Special(failure.code)
        raise self._injected(failure.code, failure.message or f"{failure.code}: injected")
