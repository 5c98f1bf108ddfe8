"""The map `cidrs`: ranges that are asked when no address matches, written by one hand for all who want some.

Masquerade wants ranges that pods' own addresses are good in, the cluster's nodes want those of their pods. Each tells
its whole wish, and what nobody wants any more goes; but what a former life left not before everybody has spoken once:
its ranges hold until the registry answers.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Collection, Mapping
from ipaddress import ip_network

from datapath.errors import BpfError
from datapath.layout import CidrKey, Target, address_bytes
from datapath.maps import MapLike, slices


class CidrTable:
    """Thread-safe.

    :param sources: who will speak; of two that want one range, the later one's entry holds, with the flags of both.
    """

    def __init__(self, cidrs: MapLike, sources: Collection[str]) -> None:
        self._cidrs = cidrs
        self._lock = threading.Lock()
        self._wishes: dict[str, Mapping[bytes, Target] | None] = dict.fromkeys(sources)
        self._held = self._read()
        self._ours: set[bytes] = set()  # wanted by somebody in this life

    def set(self, source: str, ranges: Mapping[str, Target]) -> bool:
        """The whole wish of one source, by range ("10.0.0.0/8"). True if a decision made before may be wrong now.

        Raises BpfRefused (E2BIG: too many ranges), ValueError for what is no range."""
        wish = {range_key(text): target for text, target in ranges.items()}
        with self._lock:
            if source not in self._wishes:
                raise ValueError(f"{source!r} is none of {', '.join(self._wishes)}")
            self._wishes[source] = wish
            return self._apply()

    def _apply(self) -> bool:
        wanted: dict[bytes, Target] = {}
        for wish in self._wishes.values():
            for key, target in (wish or {}).items():
                flags = wanted[key].flags if key in wanted else 0
                wanted[key] = _flagged(target, flags)
        values = {key: target.pack() for key, target in wanted.items()}
        update = {key: value for key, value in values.items() if self._held.get(key) != value}
        everybody = None not in self._wishes.values()
        gone = {key for key in self._held.keys() - values.keys() if everybody or key in self._ours}
        self._ours.update(values)
        if not update and not gone:
            return False
        try:
            if gone:  # first: they make room
                self._cidrs.delete_batch(b"".join(gone), len(gone))
            if update:
                self._cidrs.update_batch(b"".join(update), b"".join(update.values()), len(update))
        except BpfError:
            self._held = self._read()
            raise
        self._held.update(update)
        for key in gone:
            del self._held[key]
        self._ours -= gone
        return True

    def _read(self) -> dict[bytes, bytes]:
        held: dict[bytes, bytes] = {}
        for keys, values, count in self._cidrs.keys_batches():
            held.update(zip(slices(keys, CidrKey.SIZE, count), slices(values, Target.SIZE, count), strict=True))
        return held


def range_key(text: str) -> bytes:
    """Key of a range. Raises ValueError."""
    network = ip_network(text)
    bits = network.prefixlen + (96 if network.version == 4 else 0)
    return CidrKey(bits, address_bytes(str(network.network_address))).pack()


def range_text(key: bytes) -> str:
    """The range of a key: 10.0.0.0/8, fd00::/8. An IPv6 range that holds all mapped IPv4 addresses is one of IPv6."""
    bits = int.from_bytes(key[:4], sys.byteorder)
    address = key[4:]
    mapped = bits >= 96 and address[:12] == bytes(10) + b"\xff\xff"
    return str(ip_network((address[12:], bits - 96) if mapped else (address, bits)))


def _flagged(target: Target, flags: int) -> Target:
    if not flags & ~target.flags:
        return target
    return Target(
        target.kind, target.flags | flags, target.mtu, target.identity, target.ifindex, target.endpoint, target.node
    )
