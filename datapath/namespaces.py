"""Entering a pod's network namespace with one thread, for as long as it takes to open a socket there.

A socket belongs to the namespace it was opened in, for ever; so a thread visits, opens, and goes home (5 µs), and the
work itself is done from home.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from datapath.errors import NamespaceGone

_CLONE_NEWNET: Final = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def opened(path: str) -> Iterator[int]:
    """File descriptor of the namespace at `path`. Raises NamespaceGone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NamespaceGone(
            f"network namespace {path!r} cannot be opened: {error.strerror}",
            field="CNI_NETNS",
            remedy="the container is gone or going; let the runtime start it anew",
        ) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


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
        raise (
            NamespaceGone(f"cannot enter the network namespace: {os.strerror(number)}", field="CNI_NETNS")
            if (number in (22, 9))
            else OSError(number, os.strerror(number))
        )
