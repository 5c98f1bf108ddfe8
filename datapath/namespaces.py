"""Entering a pod's network namespace with one thread, for as long as it takes to open a socket there.

A socket belongs to the namespace it was opened in, for ever; so a thread visits, opens, and goes home (5 µs), and the
work itself is done from home.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from datapath.errors import InvalidEndpoint, NamespaceGone

_CLONE_NEWNET: Final = 0x40000000
_NS_GET_NSTYPE: Final = 0xB703
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def opened(path: str) -> Iterator[int]:
    """File descriptor of the pod's namespace at `path`.

    Raises NamespaceGone if there is none, InvalidEndpoint for what is no network namespace, or is the node's own."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NamespaceGone(
            f"network namespace {path!r} cannot be opened: {error.strerror}",
            field="CNI_NETNS",
            remedy="the container is gone or going; let the runtime start it anew",
        ) from error
    try:
        _refuse_strange(path, descriptor)
        yield descriptor
    finally:
        os.close(descriptor)


def _refuse_strange(path: str, descriptor: int) -> None:
    try:
        is_network = fcntl.ioctl(descriptor, _NS_GET_NSTYPE) == _CLONE_NEWNET
    except OSError:
        is_network = False
    if not is_network:
        raise InvalidEndpoint(
            f"{path!r} is no network namespace",
            field="CNI_NETNS",
            remedy="give the path of the pod's network namespace, such as /run/netns/NAME",
        )
    if os.path.sameopenfile(descriptor, _home()):
        raise InvalidEndpoint(
            f"{path!r} is the node's own network namespace",
            field="CNI_NETNS",
            remedy="a pod in the host's network needs no CNI plugin; let the runtime leave it out",
        )


@functools.cache
def _home() -> int:
    """The node's own namespace: that of the process, open for its life."""
    return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


@contextmanager
def visiting(descriptor: int) -> Iterator[None]:
    """The calling thread is in the namespace until the end of the block. Do nothing slow and start no thread inside."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(descriptor)
        try:
            yield
        finally:
            try:
                _enter(home)
            except OSError:  # a thread lost in a pod would configure the pod's network as if it were the node's
                os._exit(70)
    finally:
        os.close(home)


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot enter a network namespace: {os.strerror(number)}")
