"""Settings of the kernel's IP stack that pods need, in the calling thread's network namespace.

A host that forwards IPv6 stops listening to routers, unless told otherwise (accept_ra=2): one that learned its default
route from them would lose it. So the devices that listen are told before forwarding is switched on. What is set here
stays when pods and daemon are gone: others may have come to lean on it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from datapath.errors import KernelRefused
from datapath.model import HOST_PREFIX

_NET: Final = Path("/proc/sys/net")
_CONF6: Final = _NET / "ipv6/conf"


def forward4() -> None:
    """Raises KernelRefused."""
    _write(_NET / "ipv4/ip_forward", "1")


def forward6() -> None:
    """Nothing on a kernel without IPv6. Raises KernelRefused."""
    switch = _CONF6 / "all/forwarding"
    if not switch.exists() or _read(switch) == "1":
        return
    for device in _CONF6.iterdir():
        listens = device / "accept_ra"
        if device.name in ("all", "default", "lo") or device.name.startswith(HOST_PREFIX):
            continue
        if _read(listens) == "1":
            _write(listens, "2")
    _write(switch, "1")


def ignore_routers6(device: str) -> None:
    """The device takes no routes and addresses from what calls itself a router there. Raises KernelRefused."""
    setting = _CONF6 / device / "accept_ra"
    if _read(setting):
        _write(setting, "0")


def speak6(device: str) -> None:
    """Undoes what some runtimes do to every device of a new pod. Raises KernelRefused."""
    _write(_CONF6 / device / "disable_ipv6", "0")


def answer_for_others6(device: str) -> None:
    """Lets the proxy neighbours of a device work; those of IPv4 need no switch. Raises KernelRefused."""
    _write(_CONF6 / device / "proxy_ndp", "1")


def _read(path: Path) -> str:
    """Empty if there is no such setting: devices come and go."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _write(path: Path, value: str) -> None:
    if _read(path) == value:
        return
    try:
        path.write_text(value)
    except OSError as error:
        name = ".".join(path.relative_to(_NET.parent).parts)
        raise KernelRefused(f"set {name} to {value}", error.errno or 0) from error


__all__ = ["answer_for_others6", "forward4", "forward6", "ignore_routers6", "speak6"]
