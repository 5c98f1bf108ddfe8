"""What can go wrong in the registry.

RegistryError
├── InvalidInput      a request says something that cannot be; `field` names it
├── NotFound          no such node
├── NodeAlive         the node's heartbeat is fresh, so it is not deleted
├── NotYours          the caller speaks for another node than itself
├── SessionReplaced   the node has opened a newer stream; this one ends
├── StaleLead         another registry leads by now
├── IdentityTaken     a set of labels would have two numbers
├── IdentitiesExhausted   every number is given out
├── NoClusterRanges   no ranges for nodes are configured
└── RangesExhausted   every node's range is given out
"""

from __future__ import annotations

from typing import ClassVar


class RegistryError(Exception):
    """Root of the registry's errors.

    :param message: what happened, one sentence.
    :param field: the request field to blame, dotted, or empty.
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


class InvalidInput(RegistryError):
    kind = "invalid"


class NotFound(RegistryError):
    kind = "not_found"


class NodeAlive(RegistryError):
    kind = "precondition"


class SessionReplaced(RegistryError):
    kind = "conflict"


class StaleLead(RegistryError):
    kind = "unavailable"


class IdentityTaken(RegistryError):
    kind = "conflict"


class IdentitiesExhausted(RegistryError):
    kind = "exhausted"


class NoClusterRanges(RegistryError):
    kind = "precondition"


class RangesExhausted(RegistryError):
    kind = "exhausted"
