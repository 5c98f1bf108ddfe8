"""What tests make the cloud do wrong, set at run time over the admin endpoint.

Nothing here knows what a call does: the gate asks `Faults` before and after each call.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

# What a fault may do instead of answering with an error code.
CUT: Final = "cut"  # close the connection without an answer
HANG: Final = "hang"  # never answer
MALFORMED: Final = "malformed"  # answer 200 with something that is no answer of the cloud


class BadFaults(ValueError):
    """The settings cannot be; the text names the field."""


@dataclass(slots=True)
class Bucket:
    """A token bucket: `rate` calls a second, `burst` at once."""

    rate: float
    burst: float
    tokens: float = field(init=False)
    filled_at: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        if self.rate < 0 or self.burst < 1:
            raise BadFaults("throttle: rate must be 0 or more, burst at least 1")
        self.tokens = self.burst

    def take(self, now: float) -> bool:
        if self.filled_at:
            self.tokens = min(self.burst, self.tokens + (now - self.filled_at) * self.rate)
        self.filled_at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


@dataclass(slots=True)
class Failure:
    """The next `count` calls of `action` ("*": any, "mutate" or "read": of that class) fail with `code`.

    `code` is an error code of the cloud, "cut", "hang" or "malformed". `after_effect`: the call takes effect anyway.
    `skip` calls go through before.
    """

    action: str
    code: str = CUT
    count: int = 1
    after_effect: bool = False
    skip: int = 0
    message: str = ""

    def takes(self, action: str, operation_class: str) -> bool:
        if not self.count or self.action not in (action, operation_class, "*"):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.count -= 1
        return True


@dataclass(slots=True)
class Faults:
    """:param latency_s: how long a call takes.
    :param mutate_latency_s: the same for calls that change something, if it is other.
    :param error_rate: part of all calls that answer with an internal error and do nothing.
    :param cut_rate: part of all calls that take effect and whose connection is cut.
    :param throttle: buckets by class ("mutate", "read") or by the call's name.
    :param eventual_consistency_s: how far reads lag behind.
    :param eventual_consistency_on_writes: what was just created is not found by calls that change it, either.
    :param attach_s: how long an interface stays in attaching; `detach_s` in detaching; `create_s` in creation, on a
        cloud where that takes its time; `boot_s` an instance in pending.
    """

    latency_s: float = 0.0
    mutate_latency_s: float | None = None
    error_rate: float = 0.0
    cut_rate: float = 0.0
    throttle: dict[str, Bucket] = field(default_factory=dict)
    eventual_consistency_s: float = 0.0
    eventual_consistency_on_writes: bool = False
    attach_s: float = 0.0
    detach_s: float = 0.0
    create_s: float = 0.0
    boot_s: float = 0.0
    fail: list[Failure] = field(default_factory=list)

    def latency(self, operation_class: str) -> float:
        if operation_class == "mutate" and self.mutate_latency_s is not None:
            return self.mutate_latency_s
        return self.latency_s

    def admits(self, action: str, operation_class: str, now: float) -> bool:
        """Whether the call is within its rate; takes a token if it is."""
        bucket = self.throttle.get(action) or self.throttle.get(operation_class)
        return bucket is None or bucket.take(now)

    def failure(self, action: str, operation_class: str, chance: random.Random) -> Failure | None:
        for each in self.fail:
            if each.takes(action, operation_class):
                return each
        if self.error_rate and chance.random() < self.error_rate:
            return Failure(action, "InternalError", message="An internal error has occurred")
        if self.cut_rate and chance.random() < self.cut_rate:
            return Failure(action, CUT, after_effect=True)
        return None

    def document(self) -> dict[str, Any]:
        """As the admin endpoint tells it: failures that are left, buckets without their level."""
        document = asdict(self)
        document["throttle"] = {name: {"rate": each.rate, "burst": each.burst} for name, each in self.throttle.items()}
        document["fail"] = [asdict(each) for each in self.fail if each.count]
        return document


_NUMBERS: Final = tuple(each.name for each in fields(Faults) if each.name.endswith(("_s", "_rate")))


def read_faults(document: object) -> Faults:
    """Faults from JSON. What is not named is off. Raises BadFaults."""
    if not isinstance(document, Mapping):
        raise BadFaults("the faults must be an object")
    unknown = sorted(set(document) - {each.name for each in fields(Faults)})
    if unknown:
        known = ", ".join(each.name for each in fields(Faults))
        raise BadFaults(f"{unknown[0]}: no such field; the fields are {known}")
    values = {key: value for key, value in document.items() if value is not None}
    for name in _NUMBERS:
        if name in values:
            values[name] = _number(name, values[name])
    throttle = values.get("throttle", {})
    if not isinstance(throttle, Mapping):
        raise BadFaults("throttle: must be an object of {rate, burst} by class or call")
    values["throttle"] = {name: _build(Bucket, "throttle", each) for name, each in throttle.items() if each}
    values["fail"] = [_build(Failure, "fail", each) for each in values.get("fail", [])]
    return Faults(**values)


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise BadFaults(f"{name}: must be a number, 0 or more, not {value!r}")
    if name.endswith("_rate") and value > 1:
        raise BadFaults(f"{name}: must lie between 0 and 1, not {value}")
    return float(value)


def _build(kind: Callable[..., Any], name: str, document: object) -> Any:
    if not isinstance(document, Mapping):
        raise BadFaults(f"{name}: each must be an object")
    try:
        return kind(**document)
    except TypeError as error:
        raise BadFaults(f"{name}: {str(error).replace('.__init__()', '')}") from None
