"""Settings of the kernel's IP stack that pods need, in the calling thread's network namespace.

A host that forwards IPv6 stops listening to routers, unless told otherwise (accept_ra=2): one that learned its default
route from them would lose it. So the devices that listen, and those to come ("default"), are told before forwarding is
switched on; our own never listen. What is set here stays when pods and daemon are gone: others may have come to lean on
it.
"""

from __future__ import annotations

import errno
import os
from typing import Final

from datapath.errors import KernelRefused
from datapath.model import HOST_PREFIX

_NET: Final = "/proc/sys/net"
_CONF6: Final = f"{_NET}/ipv6/conf"


def forward4() -> None:
    """Raises KernelRefused."""
    _write(f"{_NET}/ipv4/ip_forward", "1")


def forward6() -> None:
    """Nothing on a kernel without IPv6. Raises KernelRefused."""
    switch = f"{_CONF6}/all/forwarding"
    if _read(switch) in ("", "1"):
        return
    for device in os.listdir(_CONF6):
        if device in ("all", "lo") or device.startswith(HOST_PREFIX):
            continue
        if _read(f"{_CONF6}/{device}/accept_ra") == "1":
            _write(f"{_CONF6}/{device}/accept_ra", "2", ignore=errno.ENOENT)
    _write(switch, "1")


def ignore_routers6(device: str) -> None:
    """The device takes no routes and addresses from what calls itself a router there. Raises KernelRefused."""
    _write(f"{_CONF6}/{device}/accept_ra", "0", ignore=errno.ENOENT)


def speak6(device: str) -> None:
    """Undoes what some runtimes do to every device of a new pod. Raises KernelRefused."""
    _write(f"{_CONF6}/{device}/disable_ipv6", "0")


def answer_for_others6(device: str) -> None:
    """Lets the proxy neighbours of a device work; those of IPv4 need no switch. Raises KernelRefused."""
    _write(f"{_CONF6}/{device}/proxy_ndp", "1")


def _read(path: str) -> str:
    """Empty if there is no such setting: devices come and go."""
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""


def _write(path: str, value: str, *, ignore: int = 0) -> None:
    """On the path of a pod's start: a text file costs 20 times as much. What is so already need not be writable."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, value.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno != ignore and _read(path) != value:
            name = path.removeprefix("/proc/sys/").replace("/", ".")
            raise KernelRefused(f"set {name} to {value}", error.errno or 0) from error


__all__ = ["answer_for_others6", "forward4", "forward6", "ignore_routers6", "speak6"]
