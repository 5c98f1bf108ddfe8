"""Attaching to devices by a direct-action filter on the clsact queue, for kernels without TCX.

The filter has a fixed handle and priority, so replacing it is one netlink request that the kernel performs at once, and
finding it needs no pin. Ours is told by its name; the queue itself is left when others have filters in it.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from datapath import netlink
from datapath.errors import BpfRefused, KernelRefused
from datapath.loader.programs import Program
from datapath.netlink import (
    RTM_DELQDISC,
    RTM_DELTFILTER,
    RTM_GETTFILTER,
    RTM_NEWQDISC,
    RTM_NEWTFILTER,
    NetlinkSocket,
    Request,
    attributes_of,
)

PRIORITY: Final = 1
_HANDLE: Final = 0x504C
_NAME_PREFIX: Final = "plimsoll:"
_CLSACT: Final = 0xFFFFFFF1
_INGRESS, _EGRESS = 0xFFFFFFF2, 0xFFFFFFF3
_ETH_P_ALL_BE: Final = 0x0300
_TCMSG: Final = struct.Struct("=BxxxiIII")
_KIND, _OPTIONS = 1, 2
_BPF_FD, _BPF_NAME, _BPF_FLAGS = 6, 7, 8
_DIRECT_ACTION: Final = 1
_GONE: Final = (errno.ENOENT, errno.ENODEV, errno.EINVAL)


@dataclass(slots=True)
class Filter:
    """An attached program. It stays when the process ends."""

    ifindex: int
    ingress: bool
    mode: str = "clsact"

    def update(self, program: Program) -> None:
        """In place, at once. Raises BpfRefused."""
        attach(program, self.ifindex, self.ingress)

    def detach(self) -> None:
        detach(self.ifindex, self.ingress)

    def close(self) -> None:
        """Nothing to let go of."""


def attach(program: Program, ifindex: int, ingress: bool) -> Filter:
    """Attaches, or replaces what is attached. Raises BpfRefused."""
    attach_all([(program, ingress)], ifindex)
    return Filter(ifindex, ingress)


def attach_all(programs: Collection[tuple[Program, bool]], ifindex: int) -> None:
    """As `attach`, for programs with "at ingress", in one system call. Raises BpfRefused."""
    queue = _request(
        RTM_NEWQDISC, netlink.CREATE, _TCMSG.pack(0, ifindex, 0xFFFF0000, _CLSACT, 0), _attribute(_KIND, b"clsact\0"),
        "add the clsact queue", ignore=(errno.EEXIST,),
    )  # fmt: skip
    filters = [_filter(program, ifindex, ingress) for program, ingress in programs]
    with NetlinkSocket() as connection:
        _run(connection, queue, *filters)


def detach(ifindex: int, ingress: bool) -> None:
    """Removes our filter, and the queue if it is empty then. Harmless if there is none."""
    program_filter = _request(
        RTM_DELTFILTER, netlink.REQUEST, _filter_head(ifindex, ingress), _attribute(_KIND, b"bpf\0"),
        "detach a filter", ignore=_GONE,
    )  # fmt: skip
    queue = _request(
        RTM_DELQDISC, netlink.REQUEST, _TCMSG.pack(0, ifindex, 0xFFFF0000, _CLSACT, 0), _attribute(_KIND, b"clsact\0"),
        "remove the clsact queue", ignore=_GONE,
    )  # fmt: skip
    with NetlinkSocket() as connection:
        _run(connection, program_filter)
        if not any(_filters(connection, ifindex, side) for side in (True, False)):
            _run(connection, queue)


def ours(ifindex: int) -> Iterator[Filter]:
    """Our filters on a device."""
    with NetlinkSocket() as connection:
        for ingress in (True, False):
            if any(name.startswith(_NAME_PREFIX) for name in _filters(connection, ifindex, ingress)):
                yield Filter(ifindex, ingress)


def _filters(connection: NetlinkSocket, ifindex: int, ingress: bool) -> list[str]:
    """Names of the filters at a hook; empty for those that are no eBPF."""
    head = _TCMSG.pack(0, ifindex, 0, _INGRESS if ingress else _EGRESS, 0)
    names = []
    try:
        for _, attributes in connection.dump_request(_request(RTM_GETTFILTER, netlink.REQUEST_DUMP, head, b"", "list")):
            options = attributes.get(_OPTIONS)
            if options is not None:  # the first message of a chain has none
                names.append(attributes_of(options).get(_BPF_NAME, b"").rstrip(b"\0").decode(errors="replace"))
    except KernelRefused as refused:
        if refused.errno not in _GONE:
            raise
    return names


def _filter(program: Program, ifindex: int, ingress: bool) -> Request:
    options = _attribute(_BPF_FD, struct.pack("=I", program.fd))
    options += _attribute(_BPF_NAME, f"{_NAME_PREFIX}{program.name}".encode() + b"\0")
    options += _attribute(_BPF_FLAGS, struct.pack("=I", _DIRECT_ACTION))
    return _request(
        RTM_NEWTFILTER, netlink.REPLACE, _filter_head(ifindex, ingress),
        _attribute(_KIND, b"bpf\0") + _attribute(_OPTIONS, options), f"attach {program.name} (clsact)",
    )  # fmt: skip


def _filter_head(ifindex: int, ingress: bool) -> bytes:
    parent = _INGRESS if ingress else _EGRESS
    return _TCMSG.pack(0, ifindex, _HANDLE, parent, PRIORITY << 16 | _ETH_P_ALL_BE)


def _attribute(kind: int, data: bytes) -> bytes:
    length = 4 + len(data)
    return struct.pack("=HH", length, kind) + data + bytes(-length % 4)


def _request(
    kind: int, flags: int, head: bytes, attributes: bytes, what: str, *, ignore: tuple[int, ...] = ()
) -> Request:
    length = 16 + len(head) + len(attributes)
    return Request(bytearray(struct.pack("=IHHII", length, kind, flags, 0, 0) + head + attributes), what, ignore)


def _run(connection: NetlinkSocket, *requests: Request) -> None:
    try:
        connection.run(requests)
    except KernelRefused as refused:
        raise BpfRefused("attach or detach by clsact", refused.errno, refused.message) from refused
