"""Switching the acceleration of local TCP on and off.

Off by default. Switched on for a cgroup (v2), it takes up connections that are opened from then on by processes in it
and below: over the loopback addresses, and between pods of this node that `follow` was told of. A connection whose pods
have policy is taken up only after the datapath has let its handshake through, and goes back to the stack for good once
policy no longer allows it. A direction whose reader falls behind goes back to the stack for good too, which then holds
the sender back.

Switched off, new connections are left alone, and running ones go on through the stack. Their sockets stay in the
kernel's map until they close: what waits there for a slow reader would be lost otherwise.

What programs notice: a short read in spite of MSG_WAITALL; SIOCINQ that leaves out redirected bytes (before 6.19);
urgent data that comes in line. Programs that splice() from a socket, or receive without copying (TCP_ZEROCOPY_RECEIVE),
do not find redirected bytes: keep them out of the cgroup.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from datapath.acceleration.layout import (
    ACCELERATION_COUNTERS,
    ACCELERATION_ENTERED,
    ACCELERATION_REDIRECTED,
    REASONS,
    AccelerationSettings,
)
from datapath.errors import InvalidSetting
from datapath.layout import Counter, address_bytes
from datapath.loader import links, objects
from datapath.loader.maps import Map, pinned_if_any
from datapath.loader.objects import Loaded

LINK: Final = "sockops"
# How much may wait for a reader before the stack takes over and holds the sender back.
BEHIND_BYTES: Final = 16 << 20
_INDEX: Final = struct.Struct("=I")
_COOKIE: Final = struct.Struct("=Q")


@dataclass(frozen=True, slots=True)
class AccelerationStatus:
    """:ivar enabled: new connections are taken up.
    :ivar sockets: how many are in the kernel's map now; two for each connection.
    :ivar entered: how many have ever been.
    :ivar redirected_messages: of them, `redirected_bytes` long.
    :ivar stack_messages: of taken-up sockets that went through the stack nevertheless, by reason (layout.REASONS).
    :ivar stack_bytes: likewise."""

    enabled: bool = False
    sockets: int = 0
    entered: int = 0
    redirected_messages: int = 0
    redirected_bytes: int = 0
    stack_messages: Mapping[str, int] = field(default_factory=dict)
    stack_bytes: Mapping[str, int] = field(default_factory=dict)


class SockmapAcceleration:
    """Safe to use from several threads.

    :param bpf_dir: where maps and the link are pinned; shared with the other programs of the datapath.
    :param object_path: the object file; by default the one that was built or shipped.
    :param rodata: the packed `config` of the datapath's programs.
    :param sizes: max_entries by map, as for the datapath's programs.
    """

    def __init__(
        self,
        bpf_dir: Path,
        *,
        object_path: Path | None = None,
        rodata: Mapping[str, bytes] | None = None,
        sizes: Mapping[str, int] | None = None,
        behind_bytes: int = BEHIND_BYTES,
    ) -> None:
        self._dir = bpf_dir
        self._object_path = object_path
        self._rodata = dict(rodata or {})
        self._sizes = dict(sizes or {})
        self._behind_bytes = behind_bytes
        self._lock = threading.Lock()

    def enable(self, cgroup_path: Path) -> None:
        """Takes up new connections of the cgroup. One that is enabled already, by a daemon before this one too, has its
        programs replaced in place, or is moved to another cgroup.

        Raises InvalidSetting, NotLoaded, VerifierRefused, LayoutChanged, BpfRefused."""
        if not (cgroup_path / "cgroup.controllers").exists():
            raise InvalidSetting(
                f"{cgroup_path} is no cgroup of version 2",
                remedy="name a folder of the cgroup2 file system, such as /sys/fs/cgroup",
            )
        with self._lock, self._load() as loaded:
            links.attach_map(loaded.programs["redirect"], loaded.maps["accelerated"].fd)
            self._set(loaded.maps["accelerated_settings"], enabled=True)
            link = links.attach_cgroup(
                loaded.programs["enter"], cgroup_path, links.SOCK_OPS, pin=self._dir / "links" / LINK
            )
            link.close()

    def disable(self) -> None:
        """Leaves new connections alone and sends running ones through the stack. Harmless if it is off."""
        with self._lock:
            settings = pinned_if_any(self._maps / "accelerated_settings")
            if settings is not None:
                with settings:
                    self._set(settings, enabled=False)
            pin = self._dir / "links" / LINK
            if pin.exists():
                links.pinned(pin).detach()

    def follow(self, namespaces: Mapping[str, int]) -> int:
        """Makes `namespaces` (cookie by address) the pods of this node that may talk without the stack; connections of
        other addresses are left alone. Returns how many changed. Without effect while it was never enabled."""
        with self._lock:
            found = pinned_if_any(self._maps / "accelerated_namespaces")
            if found is None:
                return 0
            wanted = {address_bytes(text): _COOKIE.pack(cookie) for text, cookie in namespaces.items()}
            with found:
                there = dict(found.items())
                gone = [key for key in there if key not in wanted]
                new = {key: value for key, value in wanted.items() if there.get(key) != value}
                found.delete_batch(b"".join(gone), len(gone))
                found.update_batch(b"".join(new), b"".join(new.values()), len(new))
            return len(gone) + len(new)

    def status(self) -> AccelerationStatus:
        with self._lock:
            found = [pinned_if_any(self._maps / name) for name in ("accelerated_settings", "accelerated_counters")]
            sockets = pinned_if_any(self._maps / "accelerated")
            try:
                settings, counters = found
                if settings is None or counters is None or sockets is None:
                    return AccelerationStatus()
                told = AccelerationSettings.unpack(settings.lookup(_INDEX.pack(0)) or bytes(AccelerationSettings.SIZE))
                attached = (self._dir / "links" / LINK).exists()
                return _status(bool(told.enabled) and attached, _entries(sockets), counters)
            finally:
                for one in (*found, sockets):
                    if one is not None:
                        one.close()

    @property
    def _maps(self) -> Path:
        return self._dir / "maps"

    def _load(self) -> Loaded:
        path = self._object_path or objects.find("sockmap")
        return objects.load(path, pins=self._dir, rodata=self._rodata, sizes=self._sizes)

    def _set(self, settings: Map, *, enabled: bool) -> None:
        settings.update(_INDEX.pack(0), AccelerationSettings(int(enabled), self._behind_bytes).pack())


def _entries(sockets: Map) -> int:
    count, key = 0, sockets.next_key(None)
    while key is not None and count <= sockets.max_entries:  # a key that goes meanwhile begins the walk anew
        count, key = count + 1, sockets.next_key(key)
    return count


def _status(enabled: bool, sockets: int, counters: Map) -> AccelerationStatus:
    sums = [_sum(counters.lookup(_INDEX.pack(number)) or b"") for number in range(ACCELERATION_COUNTERS)]
    return AccelerationStatus(
        enabled=enabled,
        sockets=sockets,
        entered=sums[ACCELERATION_ENTERED].packets,
        redirected_messages=sums[ACCELERATION_REDIRECTED].packets,
        redirected_bytes=sums[ACCELERATION_REDIRECTED].byte_count,
        stack_messages={word: sums[number].packets for number, word in REASONS.items()},
        stack_bytes={word: sums[number].byte_count for number, word in REASONS.items()},
    )


def _sum(values: bytes) -> Counter:
    """All CPUs' counters as one."""
    each = list(Counter.unpack_all(values))
    return Counter(sum(one.packets for one in each), sum(one.byte_count for one in each))
