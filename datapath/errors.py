"""What can go wrong in the datapath.

    DatapathError
    ├── InvalidEndpoint     a name, address or MTU that cannot be
    ├── InvalidFilter       a filter of events or flows names what cannot be
    ├── UnknownPod          no pod of this node has that name
    ├── NamespaceGone       the pod's network namespace does not exist
    ├── DeviceTaken         the pod has an interface of that name which is not ours
    ├── NotWired            the kernel does not hold what it should for an endpoint
    └── KernelRefused       a netlink request failed; `errno` tells with what

Same shape as the other domains' errors: `kind`, `message`, `field`, `remedy`, `retry_after_s`.
"""

from __future__ import annotations

import errno as errno_names
import os
from typing import ClassVar


class DatapathError(Exception):
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


class InvalidEndpoint(DatapathError):
    kind = "invalid"


class InvalidFilter(DatapathError):
    kind = "invalid"


class UnknownPod(DatapathError):
    kind = "not_found"


class NamespaceGone(DatapathError):
    kind = "not_found"


class DeviceTaken(DatapathError):
    kind = "conflict"


class NotWired(DatapathError):
    kind = "precondition"


class KernelRefused(DatapathError):
    """`errno` is the kernel's error number, positive."""

    def __init__(self, what: str, errno: int, said: str = "") -> None:
        name = errno_names.errorcode.get(errno, str(errno))
        text = f"the kernel refused to {what}: {os.strerror(errno)} ({name})" + (f"; it says: {said}" if said else "")
        remedy = "run the daemon as root with CAP_NET_ADMIN" if errno == errno_names.EPERM else ""
        super().__init__(text, remedy=remedy)
        self.errno = errno
