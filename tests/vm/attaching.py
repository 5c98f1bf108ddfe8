"""Attaching on this kernel: by TCX links, or by clsact where it has none; replaced while packets pass; taken away."""

from __future__ import annotations

import socket
import struct
import subprocess
from typing import Final

from datapath.loader import links, objects
from datapath.loader.maps import Map

_FRAME: Final = bytes.fromhex("0200000000010200000000020800") + bytes(50)


def attach_replace_detach() -> str:
    """
    vm0 ── vm1: what vm1 sends is counted by a program at vm0
    """
    subprocess.run(["ip", "link", "add", "vm0", "type", "veth", "peer", "name", "vm1"], check=True)
    try:
        for device in ("vm0", "vm1"):
            subprocess.run(["ip", "link", "set", device, "up"], check=True)
        return _tried(socket.if_nametoindex("vm0"))
    finally:
        subprocess.run(["ip", "link", "del", "vm0"], check=True)


def _tried(ifindex: int) -> str:
    with objects.load(objects.find("pod"), pins=None) as loaded, objects.load(objects.find("pod"), pins=None) as newer:
        attachment = links.attach_tcx(loaded.programs["from_pod"], ifindex, True)
        assert _seen(loaded.maps["counters"], 5) == 5, "the program does not see what comes in"
        attachment.update(newer.programs["from_pod"])
        assert _seen(newer.maps["counters"], 5) == 5, "the new program is not in the old one's place"
        assert _seen(loaded.maps["counters"], 1) == 0, "the old program is still there"
        attachment.detach()
        assert _seen(newer.maps["counters"], 5) == 0, "the program is still there"
        return f"by {getattr(attachment, 'mode', 'clsact')}"


def _seen(counters: Map, frames: int) -> int:
    """How many of the frames sent now the program counted, whatever it did with them."""
    before = _total(counters)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind(("vm1", 0))
        for _ in range(frames):
            raw.send(_FRAME)
    return _total(counters) - before


def _total(counters: Map) -> int:
    return sum(packets for _, values in counters.items() for packets, _ in struct.iter_unpack("=QQ", values))
