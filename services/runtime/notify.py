"""Tells systemd how a service is doing; does nothing elsewhere."""

from __future__ import annotations

import os
import socket


def notify(*lines: str) -> bool:
    """Sends lines such as READY=1 to the service manager. False: there is none, or it did not listen."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path or path[0] not in "/@":
        return False
    address = "\0" + path[1:] if path[0] == "@" else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.connect(address)
            sock.sendall("\n".join(lines).encode())
    except OSError:
        return False
    return True
