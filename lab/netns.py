"""Named network namespaces: create, delete, and do something inside one.

A namespace is a bind mount under /run/netns, as `ip netns` makes it, so that people can look into a lab with
`ip netns exec`. Entering concerns the calling thread only and for the length of a `with` block: a socket keeps the
namespace in which it was opened.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

RUN_NETNS: Final = Path("/run/netns")

_CLONE_NEWNET: Final = 0x40000000
_MS_BIND: Final = 0x1000
_MS_REC: Final = 0x4000
_MS_SHARED: Final = 1 << 20
_MNT_DETACH: Final = 2
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 1

_libc = ctypes.CDLL(None, use_errno=True)
T = TypeVar("T")


def path_of(name: str) -> Path:
    return RUN_NETNS / name


def exists(name: str) -> bool:
    return path_of(name).exists()


def create(name: str) -> None:
    """Makes an empty namespace with its loopback up. Raises FileExistsError if the name is taken."""
    _prepare_run_netns()
    path = path_of(name)
    path.touch(mode=0o444, exist_ok=False)
    try:
        # A thread of its own, as the only way back from unshare() is to end.
        in_thread(lambda: _unshare_onto(path))
    except BaseException:
        path.unlink()
        raise


def delete(name: str) -> None:
    """Deletes the namespace; quiet if there is none. It lives on in the kernel while a process or socket is in it."""
    path = path_of(name)
    with contextlib.suppress(OSError):  # not a mount point: only half made
        _call("umount2", bytes(path), _MNT_DETACH)
    path.unlink(missing_ok=True)


@contextlib.contextmanager
def entered(name: str) -> Iterator[None]:
    """The calling thread is inside the namespace. Nothing in the block may await, or start a thread or process."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        target = os.open(path_of(name), os.O_RDONLY | os.O_CLOEXEC)
        try:
            _call("setns", target, _CLONE_NEWNET)
        finally:
            os.close(target)
        try:
            yield
        finally:
            _call("setns", home, _CLONE_NEWNET)
    finally:
        os.close(home)


def in_thread(work: Callable[[], T]) -> T:
    """Runs `work` in a thread of its own and returns, or raises, what it does."""
    results: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            results.append(work())
        except BaseException as err:  # noqa: BLE001 - handed to the caller below
            errors.append(err)

    thread = threading.Thread(target=body, name="netns")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def set_sysctls(values: dict[str, str]) -> None:
    """Writes net.* sysctls, by names relative to /proc/sys/net, of the namespace that the calling thread is in.

    Those of IPv6 are passed over on a kernel without it.
    """
    for name, value in values.items():
        path = Path("/proc/sys/net", name)
        if path.exists() or not name.startswith("ipv6/"):
            path.write_text(value)


def _prepare_run_netns() -> None:
    RUN_NETNS.mkdir(mode=0o755, exist_ok=True)
    folder = os.open(RUN_NETNS, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # As iproute2 does: of two that find no mount point, the second would cover the namespaces of the first.
        fcntl.flock(folder, fcntl.LOCK_EX)
        _share_run_netns()
    finally:
        os.close(folder)


def _share_run_netns() -> None:
    try:
        _call("mount", b"", bytes(RUN_NETNS), b"none", _MS_SHARED | _MS_REC, None)
    except OSError as err:
        if err.errno != errno.EINVAL:
            raise
        # Not a mount point yet. Shared, so that a namespace made later is seen in mount namespaces made before.
        _call("mount", bytes(RUN_NETNS), bytes(RUN_NETNS), b"none", _MS_BIND | _MS_REC, None)
        _call("mount", b"", bytes(RUN_NETNS), b"none", _MS_SHARED | _MS_REC, None)


def _unshare_onto(path: Path) -> None:
    _call("unshare", _CLONE_NEWNET)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", _IFF_UP))
    _call("mount", b"/proc/thread-self/ns/net", bytes(path), b"none", _MS_BIND, None)


def _call(function: str, *args: object) -> None:
    if getattr(_libc, function)(*args) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{function}: {os.strerror(code)}")
