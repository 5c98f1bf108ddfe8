"""Attaching programs, so that they stay attached when the process ends and are replaced without a moment between.

A link is pinned as <bpf_dir>/links/<hook>-<device>; the next daemon finds it there and updates it in place. Where the
kernel has no TCX (before 6.6), a direct-action filter on the clsact queue serves in its place (legacy.py); it stays by
itself and needs no pin.
"""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from datapath import netlink
from datapath.errors import BpfRefused, NotLoaded
from datapath.loader import legacy, syscalls
from datapath.loader.programs import SCHED_CLS, Program
from datapath.loader.syscalls import Command, LinkCreate, LinkDetach, LinkInfo, LinkUpdate, ProgramAttach
from datapath.netlink import NetlinkSocket

XDP, TCX_INGRESS, TCX_EGRESS = 37, 46, 47
SOCK_OPS, SK_MSG_VERDICT, CONNECT4, CONNECT6 = 3, 7, 10, 11
_TYPE_CGROUP, _TYPE_XDP, _TYPE_TCX = 3, 6, 11
_XDP_GENERIC, _XDP_NATIVE = 1 << 1, 1 << 2
_IFLA_XDP, _IFLA_XDP_ATTACHED = 43, 2
_XDP_MODES: Final = {1: "native", 2: "generic", 3: "offloaded"}
_NO_DEVICE: Final = 0x7FFFFFFF


_tcx: list[bool] = []  # what the kernel answered once


def has_tcx(program: Program) -> bool:
    """Whether the kernel attaches to devices by TCX links: asked once, with a device that cannot be."""
    if not _tcx:
        if program.type != SCHED_CLS:
            raise BpfRefused(f"attach {program.name}", errno.EINVAL, "it is no program for the traffic of devices")
        try:
            syscalls.call(Command.LINK_CREATE, LinkCreate(program_fd=program.fd, target=_NO_DEVICE, type=TCX_INGRESS))
        except OSError as error:
            if error.errno not in (errno.ENODEV, errno.EINVAL):
                raise BpfRefused(f"attach {program.name}", error.errno or 0) from error
            _tcx.append(error.errno == errno.ENODEV)  # older ones say that the arguments make no sense
    return _tcx[0]


class Attachment(Protocol):
    """What attaching gives: a Link, or a filter of legacy.py. :ivar mode: how it is attached, in a word."""

    mode: str

    def update(self, program: Program) -> None:
        """Replaces the program at once; no packet passes without one. Raises BpfRefused, NotLoaded."""

    def detach(self) -> None:
        """Takes the program from the hook; harmless if it is gone."""

    def close(self) -> None:
        """Lets go of the handle; a pinned link stays attached."""


@dataclass(slots=True)
class Link:
    """An attached program. :ivar mode: "native" or "generic" for XDP, "tcx", "cgroup"."""

    fd: int
    mode: str
    path: Path | None = None

    def update(self, program: Program) -> None:
        syscalls.asked(
            f"replace the program of link {self.path or self.fd} by {program.name}",
            Command.LINK_UPDATE,
            LinkUpdate(fd=self.fd, program_fd=program.fd),
        )

    def pin(self, path: Path) -> None:
        """In place of what is pinned there."""
        syscalls.replace_pin(self.fd, path)
        self.path = path

    def info(self) -> LinkInfo:
        return syscalls.fill_info(self.fd, LinkInfo())

    def attached(self) -> bool:
        """Whether its device or cgroup still exists."""
        info = self.info()
        return bool(info.words[0] or (info.type == _TYPE_CGROUP and info.words[1]))

    def detach(self) -> None:
        if self.path is not None:
            self.path.unlink(missing_ok=True)
        try:
            syscalls.call(Command.LINK_DETACH, LinkDetach(fd=self.fd))
        except OSError as error:
            if error.errno not in (errno.ENOLINK, errno.ENODEV, errno.EOPNOTSUPP, errno.EINVAL):
                raise BpfRefused(f"detach link {self.path or self.fd}", error.errno or 0) from error
        self.close()

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def pin_name(hook: str, device: str) -> str:
    """Name of a link's pin. bpffs allows no dots, names of devices do."""
    return f"{hook}-{device.replace('%', '%25').replace('.', '%2e')}"


def pinned(path: Path) -> Link:
    """Raises NotLoaded."""
    link = Link(syscalls.pinned(path), "", path)
    info = link.info()
    link.mode = {_TYPE_CGROUP: "cgroup", _TYPE_XDP: "xdp", _TYPE_TCX: "tcx"}.get(int(info.type), "other")
    return link


def attach_tcx(
    program: Program, ifindex: int, ingress: bool, *, pin: Path | None = None, force_legacy: bool = False
) -> Attachment:
    """Attaches to a device of the calling thread's network namespace; what is attached there by `pin` is replaced.

    :param ifindex: of the device.
    :param pin: where the link is, or will be, pinned. Without: it ends with the process.
    :param force_legacy: use clsact though there is TCX; for tests of what older kernels do.

    Raises BpfRefused."""
    if force_legacy or not has_tcx(program):
        return legacy.attach(program, ifindex, ingress)
    kind = TCX_INGRESS if ingress else TCX_EGRESS
    existing = _living(pin, _TYPE_TCX, (ifindex, kind))
    if existing is not None:
        existing.update(program)
        return existing
    return _create(program, ifindex, kind, 0, "tcx", pin)


def attach_xdp(program: Program, ifindex: int, *, pin: Path | None = None, generic: bool = False) -> Link:
    """Attaches in the driver, or where that cannot (or `generic` is asked for) behind it. Raises BpfRefused."""
    existing = _living(pin, _TYPE_XDP, (ifindex,))
    if existing is not None:
        existing.update(program)
        existing.mode = xdp_mode(ifindex)
        return existing
    if not generic:
        try:
            return _create(program, ifindex, XDP, _XDP_NATIVE, "native", pin)
        except BpfRefused as refused:
            if refused.errno in (errno.EBUSY, errno.ENODEV, errno.EPERM, errno.EEXIST):
                raise
    return _create(program, ifindex, XDP, _XDP_GENERIC, "generic", pin)


def xdp_mode(ifindex: int) -> str:
    """How XDP is attached to a device: "native", "generic", "offloaded"; empty: not at all."""
    with NetlinkSocket() as connection:
        for fixed, attributes in connection.dump(netlink.RTM_GETLINK, {}):
            if struct.unpack_from("=i", fixed, 4)[0] == ifindex:
                attached = netlink.attributes_of(attributes.get(_IFLA_XDP, b"")).get(_IFLA_XDP_ATTACHED, b"\0")
                return _XDP_MODES.get(attached[0], "")
    return ""


def attach_cgroup(program: Program, path: Path, kind: int, *, pin: Path | None = None) -> Link:
    """Attaches to a cgroup. `kind`: SOCK_OPS, CONNECT4, ... Raises BpfRefused, NotLoaded."""
    try:
        target = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise NotLoaded(f"cgroup {path} cannot be opened: {error.strerror}", remedy="mount cgroup2") from error
    try:
        identity = os.fstat(target).st_ino
        existing = _living(pin, _TYPE_CGROUP, (identity & 0xFFFFFFFF, identity >> 32, kind))
        if existing is not None:
            existing.update(program)
            return existing
        return _create(program, target, kind, 0, "cgroup", pin)
    finally:
        os.close(target)


def attach_map(program: Program, map_fd: int, kind: int = SK_MSG_VERDICT) -> None:
    """Gives a sockmap or sockhash its program, in place of the one it has. It stays as long as the map does."""
    syscalls.asked(
        f"attach {program.name} to a map of sockets",
        Command.PROG_ATTACH,
        ProgramAttach(target_fd=map_fd, program_fd=program.fd, type=kind),
    )


def _create(program: Program, target: int, kind: int, flags: int, mode: str, pin: Path | None) -> Link:
    fd = syscalls.asked(
        f"attach {program.name} ({mode})",
        Command.LINK_CREATE,
        LinkCreate(program_fd=program.fd, target=target, type=kind, flags=flags),
    )
    link = Link(fd, mode)
    if pin is not None:
        try:
            pin.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            link.pin(pin)
        except BaseException:
            link.close()
            raise
    return link


def _living(pin: Path | None, kind: int, words: tuple[int, ...]) -> Link | None:
    """The pinned link if it is attached to what it should be. One whose device is gone, or is another by now, is
    removed: its name may have been given to a new device."""
    if pin is None:
        return None
    try:
        link = pinned(pin)
    except NotLoaded:
        return None
    info = link.info()
    if info.type == kind and tuple(info.words[: len(words)]) == words:
        return link
    link.detach()
    return None
