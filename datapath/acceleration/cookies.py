"""Cookies of network namespaces: numbers that the kernel gives each, once, as long as it runs."""

from __future__ import annotations

import socket
import struct
from typing import Final

from datapath.namespaces import opened, visiting

_SO_NETNS_COOKIE: Final = 71
_COOKIE: Final = struct.Struct("=Q")


def own_cookie() -> int:
    """Of the calling thread's namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        return int(_COOKIE.unpack(probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, _COOKIE.size))[0])


def cookie_of(netns: str) -> int:
    """Of the pod's namespace at the path `netns`. Raises NamespaceGone, InvalidEndpoint."""
    with opened(netns) as descriptor, visiting(descriptor):
        return own_cookie()
