"""How calls of the fake cloud fail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ipam.errors import CloudError, Throttled

if TYPE_CHECKING:
    from ipam.testing.cloud import FakeCloud


@dataclass(slots=True)
class Fault:
    """The next `count` calls of `operation` fail; `after_effect` means that they took effect nevertheless."""

    operation: str
    error: CloudError
    count: int = 1
    after_effect: bool = False


class Call:
    """One call: counted, throttled, failed or killed as the test wants, and atomic."""

    def __init__(self, cloud: FakeCloud, operation: str) -> None:
        self._cloud = cloud
        self._operation = operation
        self._late: CloudError | None = None

    def __enter__(self) -> None:
        cloud = self._cloud
        cloud._lock.acquire()
        try:
            cloud.calls[self._operation] += 1
            if cloud.watch is not None:
                cloud.watch(self._operation, "before")
            if cloud.clock.monotonic() < cloud.throttled_until:
                raise Throttled("request limit exceeded", code="RequestLimitExceeded", operation=self._operation)
            fault = next((each for each in cloud.faults if each.operation == self._operation), None)
            if fault is not None:
                fault.count -= 1
                if not fault.count:
                    cloud.faults.remove(fault)
                if not fault.after_effect:
                    raise fault.error
                self._late = fault.error
        except BaseException:
            cloud._lock.release()
            raise

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        cloud = self._cloud
        try:
            if error is None:
                if cloud.watch is not None:
                    cloud.watch(self._operation, "after")
                if self._late is not None:
                    raise self._late
        finally:
            cloud._lock.release()
