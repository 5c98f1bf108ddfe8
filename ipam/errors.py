"""What can go wrong in IPAM.

    IpamError
    ├── InvalidInput            a setting, a request or a file says something that cannot be
    ├── NotFound                no such node, pool, intent or dead letter
    ├── NotLeader               another replica leads; ask that one
    ├── StaleFence              somebody else holds the intent now; stop at once
    ├── AddressConflict         an address would belong to two owners
    ├── PoolEmpty               the node's pool holds no free address; the pod must wait
    ├── StoreError              the store did not take it
    └── CloudError              the cloud said no
        ├── Throttled           too many calls; retry after `retry_after_s`
        ├── Unavailable         5xx, cut connection, timeout: the call may have taken effect
        ├── SubnetExhausted     no free address in `subnet_id`
        ├── LimitReached        interface or address limit of the instance
        ├── Conflict            index taken, already so
        ├── InProgress          the cloud has begun; look again after `retry_after_s`
        ├── Gone                the interface, instance or subnet named does not exist
        ├── Denied              credentials or permissions
        └── Rejected            the call's arguments are wrong

Each carries what to do next (`remedy`) and, where one is to blame, the `field`.
`kind` is what the transport maps to a status code; it is one of the names in `KINDS`.
"""

from __future__ import annotations

from typing import ClassVar, Final

KINDS: Final = (
    "invalid", "not_found", "conflict", "precondition", "exhausted", "unavailable", "denied", "internal",
)  # fmt: skip


class IpamError(Exception):
    """Root of the domain's errors.

    :param message: what happened, one sentence.
    :param field: the setting or request field to blame, dotted, or empty.
    :param remedy: what the reader can do about it.
    :param retry_after_s: when trying again makes sense, in seconds; None if it does not.
    """

    kind: ClassVar[str] = "internal"

    def __init__(self, message: str, *, field: str = "", remedy: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.remedy = remedy
        self.retry_after_s = retry_after_s


class InvalidInput(IpamError):
    kind = "invalid"


class NotFound(IpamError):
    kind = "not_found"


class NotLeader(IpamError):
    kind = "precondition"


class StaleFence(IpamError):
    kind = "conflict"


class AddressConflict(IpamError):
    kind = "conflict"


class PoolEmpty(IpamError):
    kind = "exhausted"


class StoreError(IpamError):
    kind = "unavailable"


class CloudError(IpamError):
    """The cloud said no. `code` is the cloud's own error code, `operation` the call's name at the cloud."""

    kind = "unavailable"

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        operation: str = "",
        field: str = "",
        remedy: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, field=field, remedy=remedy, retry_after_s=retry_after_s)
        self.code = code
        self.operation = operation


class Throttled(CloudError):
    kind = "unavailable"


class Unavailable(CloudError):
    kind = "unavailable"


class SubnetExhausted(CloudError):
    """No free address in the subnet named by `subnet_id` (empty when the cloud did not say which).

    :ivar prefixes: it lacks a whole free block; single addresses it may have.
    """

    kind = "exhausted"
    subnet_id: str = ""
    prefixes: bool = False


class LimitReached(CloudError):
    kind = "exhausted"


class Conflict(CloudError):
    kind = "conflict"


class InProgress(CloudError):
    """The cloud is at work on this, or on what has to end before this can begin. Nothing failed: who asked comes back
    after `retry_after_s` and reads how far it is, and no worker waits meanwhile."""

    kind = "unavailable"


class Gone(CloudError):
    kind = "not_found"


class Denied(CloudError):
    kind = "denied"


class Rejected(CloudError):
    kind = "invalid"
