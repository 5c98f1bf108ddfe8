"""What can go wrong in the datapath.

    DatapathError
    ├── InvalidEndpoint     a name, address or MTU that cannot be
    ├── InvalidFilter       a filter of events or flows names what cannot be
    ├── UnknownPod          no pod of this node has that name
    ├── InvalidSetting      a setting, or a configuration file, that cannot be
    ├── InvalidPolicy       a rule of a policy that cannot be
    ├── InvalidRange        a range of addresses that cannot be denied
    ├── OwnRange            a range that holds an address this node needs
    ├── NamespaceGone       the pod's network namespace does not exist
    ├── DeviceTaken         the pod has an interface of that name which is not ours
    ├── NotWired            the kernel does not hold what it should for an endpoint
    ├── KernelRefused       a netlink request failed; `errno` tells with what
    └── BpfError            eBPF objects, maps, programs and links
        ├── BpfRefused      bpf(2) or libbpf failed; `errno` tells with what
        ├── VerifierRefused the kernel does not accept a program; `log` tells why, shortened
        ├── LayoutChanged   a pinned map holds another layout, and nothing knows how to migrate it
        └── NotLoaded       a pin or an object file that should be there is not

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


class InvalidSetting(DatapathError):
    kind = "invalid"


class InvalidPolicy(DatapathError):
    kind = "invalid"


class InvalidRange(DatapathError):
    kind = "invalid"


class OwnRange(DatapathError):
    kind = "precondition"


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


class BpfError(DatapathError):
    """Root of what goes wrong with eBPF."""


class BpfRefused(BpfError):
    """`errno` is the kernel's error number, positive. `done`: how many entries of a batch were done before it."""

    def __init__(self, what: str, errno: int, said: str = "", *, done: int = 0) -> None:
        name = errno_names.errorcode.get(errno, str(errno))
        text = f"eBPF: cannot {what}: {os.strerror(errno)} ({name})" + (f"; {said}" if said else "")
        remedy = "run the daemon as root with CAP_BPF and CAP_NET_ADMIN" if errno == errno_names.EPERM else ""
        super().__init__(text, remedy=remedy)
        self.errno = errno
        self.done = done


class VerifierRefused(BpfError):
    """`log`: the end of the verifier's log with the failing lines of source; a screenful at most."""

    def __init__(self, program: str, log: str) -> None:
        super().__init__(
            f"the kernel's verifier refuses program {program}:\n{log}",
            remedy="report this with the kernel's version (uname -r); the release before may still load",
        )
        self.program = program
        self.log = log


class LayoutChanged(BpfError):
    """`old` and `new` describe the layouts of map `map`; the message tells where they part."""

    kind = "precondition"

    def __init__(self, map_name: str, old: str, new: str) -> None:
        before, after = _parted(old, new)
        super().__init__(
            f"the pinned map {map_name} holds {before}; this build has {after}, and knows no way from one to the other",
            remedy="go back to the build before, or run `plimsoll node cleanup` (open connections are forgotten)",
        )
        self.map = map_name
        self.old = old
        self.new = new


def _parted(old: str, new: str, most: int = 4) -> tuple[str, str]:
    """Two descriptions without the fields, between commas, that they share; the rest is told by its beginning."""
    ours, theirs = old.split(", "), new.split(", ")
    cut = []
    for one, other in ((ours, set(theirs)), (theirs, set(ours))):
        differing = [part for part in one if part not in other]
        more = f" and {len(differing) - most} more" if len(differing) > most else ""
        cut.append(", ".join(differing[:most]) + more if len(one) > 2 * most else ", ".join(one))
    return cut[0] or old, cut[1] or new


class NotLoaded(BpfError):
    kind = "not_found"
