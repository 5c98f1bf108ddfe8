"""Where to listen and whom to call: "host:port" or "unix:/path"."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Final

# sun_path of Linux has 108 bytes, the last one zero.
SOCKET_PATH_BYTES: Final = 107


def parse_listen(text: str) -> Path | tuple[str, int]:
    """A socket's path, or host and port. Raises ValueError saying what is accepted."""
    if text.startswith("unix:"):
        path = Path(text.removeprefix("unix:"))
        if not path.is_absolute() or len(str(path).encode()) > SOCKET_PATH_BYTES:
            raise ValueError(f"unix: must be followed by an absolute path of at most {SOCKET_PATH_BYTES} bytes")
        return path
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("expected host:port with a port of 0 to 65535, such as 127.0.0.1:7401 or [::1]:7401")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError("an IPv6 address stands in brackets, such as [::1]:7401")
    return host.strip("[]"), int(port)


def is_loopback(text: str) -> bool:
    """Whether a listen address can only be reached from this machine."""
    address = parse_listen(text)
    if isinstance(address, Path):
        return True
    if address[0] == "localhost":
        return True
    try:
        return ipaddress.ip_address(address[0]).is_loopback
    except ValueError:
        return False
