"""Netlink for the pod path: messages encoded by pyroute2's classes, many in one system call.

pyroute2's own IPRoute goes through an event loop for each request (about 0.2 ms each); a pod start makes a dozen. Here
a plain blocking socket carries them as one batch, and each request's own answer is still known. Not thread-safe:
sockets are cheap, open one for each piece of work.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from datapath.errors import KernelRefused

_NETLINK_EXT_ACK: Final = 11
_NETLINK_CAP_ACK: Final = 10
_NETLINK_GET_STRICT_CHK: Final = 12
_SOL_NETLINK: Final = 270
_SO_RCVBUFFORCE: Final = 33

REQUEST: Final = 0x1 | 0x4  # NLM_F_REQUEST | NLM_F_ACK
CREATE: Final = REQUEST | 0x400 | 0x200  # NLM_F_CREATE | NLM_F_EXCL
REPLACE: Final = REQUEST | 0x400 | 0x100  # NLM_F_CREATE | NLM_F_REPLACE
REQUEST_DUMP: Final = 0x1 | 0x300
_CAPPED: Final = 0x100
_HAS_TLVS: Final = 0x200
_ERROR, _DONE = 2, 3
_HEADER: Final = struct.Struct("=IHHII")  # length, type, flags, sequence, port id

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34
RTM_NEWQDISC, RTM_DELQDISC = 36, 37
RTM_NEWTFILTER, RTM_DELTFILTER, RTM_GETTFILTER = 44, 45, 46

_CLASSES: Final[Mapping[int, Any]] = {
    RTM_NEWLINK: ifinfmsg, RTM_DELLINK: ifinfmsg, RTM_GETLINK: ifinfmsg, RTM_SETLINK: ifinfmsg,
    RTM_NEWADDR: ifaddrmsg, RTM_DELADDR: ifaddrmsg, RTM_GETADDR: ifaddrmsg,
    RTM_NEWROUTE: rtmsg, RTM_DELROUTE: rtmsg, RTM_GETROUTE: rtmsg,
    RTM_NEWNEIGH: ndmsg, RTM_DELNEIGH: ndmsg, RTM_GETNEIGH: ndmsg,
    RTM_NEWRULE: fibmsg, RTM_DELRULE: fibmsg, RTM_GETRULE: fibmsg,
}  # fmt: skip
# Size of the fixed part that follows the header, by message type of a dump's answer.
FIXED: Final = {
    RTM_NEWLINK: 16, RTM_NEWADDR: 8, RTM_NEWROUTE: 12, RTM_NEWNEIGH: 12, RTM_NEWRULE: 12, RTM_NEWTFILTER: 20,
}  # fmt: skip

Attributes = Sequence[tuple[str, object]]


@dataclass(frozen=True, slots=True)
class Request:
    """One encoded message. `what` says what it does, for errors; `ignore` are errnos that mean "already so"."""

    data: bytearray
    what: str
    ignore: tuple[int, ...] = ()


def request(
    kind: int,
    flags: int,
    fields: Mapping[str, object],
    attributes: Attributes,
    *,
    what: str,
    ignore: tuple[int, ...] = (),
) -> Request:
    """Encodes a message of type `kind` (RTM_...) with pyroute2's class for it."""
    message = _CLASSES[kind]()
    for name, value in fields.items():
        message[name] = value
    message["attrs"] = list(attributes)
    header = message["header"]
    header["type"], header["flags"], header["sequence_number"], header["pid"] = kind, flags, 0, 0
    message.encode()
    return Request(bytearray(message.data), what, ignore)


class NetlinkSocket:
    """A route socket of the calling thread's network namespace."""

    def __init__(self, groups: int = 0, buffer_bytes: int = 1 << 20) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        if groups:
            with contextlib.suppress(PermissionError):  # beyond net.core.rmem_max, for root
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer_bytes)
        self._socket.bind((0, groups))
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> NetlinkSocket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def receive(self, *, wait: bool) -> bytes:
        """One datagram, for those who listen to groups. Raises BlockingIOError if there is none and `wait` is false."""
        return self._socket.recv(1 << 17, 0 if wait else socket.MSG_DONTWAIT)

    def run(self, requests: Sequence[Request]) -> None:
        """Sends all requests at once; the kernel performs every one in order, also behind a refused one.

        Raises KernelRefused for the first that failed with an errno it does not ignore."""
        for start in range(0, len(requests), 100):
            for refusal in self._batch(requests[start : start + 100]):
                raise refusal

    def _batch(self, requests: Sequence[Request]) -> list[KernelRefused]:
        first = self._sequence + 1
        for one in requests:
            self._sequence += 1
            struct.pack_into("=I", one.data, 8, self._sequence)
        self._socket.send(b"".join(one.data for one in requests))
        waiting, refusals = len(requests), []
        while waiting:
            for kind, flags, sequence, body in messages_of(self._socket.recv(1 << 17)):
                if kind != _ERROR or not first <= sequence <= self._sequence:
                    continue
                waiting -= 1
                code = -struct.unpack_from("=i", body)[0]
                one = requests[sequence - first]
                if code and code not in one.ignore:
                    refusals.append(KernelRefused(one.what, code, _said(flags, body)))
        return refusals

    def dump(
        self, kind: int, fields: Mapping[str, object], attributes: Attributes = ()
    ) -> Iterator[tuple[bytes, dict[int, bytes]]]:
        """All objects that match: their fixed part and their attributes by number, undecoded."""
        yield from self.dump_request(request(kind, REQUEST_DUMP, fields, attributes, what="list"))

    def dump_request(self, one: Request) -> Iterator[tuple[bytes, dict[int, bytes]]]:
        """As `dump`, for a message that is encoded already (flags REQUEST_DUMP)."""
        self._sequence += 1
        struct.pack_into("=I", one.data, 8, self._sequence)
        self._socket.send(one.data)
        while True:
            for answer, _, sequence, body in messages_of(self._socket.recv(1 << 17)):
                if sequence != self._sequence:
                    continue
                if answer in (_DONE, _ERROR):
                    code = -struct.unpack_from("=i", body)[0] if len(body) >= 4 else 0
                    if code and code != errno.ENOENT:  # a table that does not exist is an empty one
                        raise KernelRefused("list its objects", code)
                    return
                size = FIXED[answer]
                yield body[:size], attributes_of(body[size:])


def attributes_of(data: bytes) -> dict[int, bytes]:
    """Attributes of a message by their number; the last of a kind wins."""
    found = {}
    position = 0
    while position + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, position)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[position + 4 : position + length]
        position += (length + 3) & ~3
    return found


def messages_of(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Messages of a datagram: type, flags, sequence number, and what follows the header."""
    position = 0
    while position + 16 <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, position)
        if length < 16:
            return
        yield kind, flags, sequence, data[position + 16 : position + length]
        position += (length + 3) & ~3


def _said(flags: int, body: bytes) -> str:
    """The kernel's own words (extended acknowledgement), if it has any."""
    if not flags & _HAS_TLVS:
        return ""
    skip = 4 + (16 if flags & _CAPPED else struct.unpack_from("=I", body, 4)[0])
    text = attributes_of(body[skip:]).get(1, b"")
    return text.rstrip(b"\0").decode(errors="replace")
