"""The denied ranges of this node, and the devices where packets are held against them.

Rules and links are pinned: they guard on while the daemon is away, and the next one finds them. A device that goes
takes its link along; `attach` is told of the devices whenever they change.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from datapath.errors import BpfRefused
from datapath.loader import links, objects
from datapath.loader.objects import Loaded
from datapath.prefilter.ranges import parse, refuse_own
from datapath.prefilter.rules import Rules

HOOK: Final = "xdp"


@dataclass(frozen=True, slots=True)
class Denied:
    """A denied range. :ivar number: as drop events name it, in `rule`. :ivar packets: dropped since it was added."""

    cidr: str
    number: int
    packets: int
    byte_count: int


class Prefilter:
    """Safe to use from several threads.

    :param loaded: bpf/xdp.bpf.c in the kernel; closed with the prefilter, which ends nothing.
    :param links_dir: where links are pinned.
    :param own_addresses: tells the node's addresses and gateways, asked for each addition.
    """

    def __init__(self, loaded: Loaded, links_dir: Path, own_addresses: Callable[[], Collection[str]]) -> None:
        self._loaded = loaded
        self._links_dir = links_dir
        self._own_addresses = own_addresses
        self._rules = Rules(loaded.maps)
        self._lock = threading.Lock()

    @classmethod
    def opened(
        cls,
        bpf_dir: Path,
        own_addresses: Callable[[], Collection[str]],
        *,
        object_path: Path | None = None,
        rodata: Mapping[str, bytes] | None = None,
        sizes: Mapping[str, int] | None = None,
    ) -> Prefilter:
        """Loads the program, with the rules that are pinned from before. It is attached nowhere anew by this.

        Raises NotLoaded, VerifierRefused, LayoutChanged, BpfRefused."""
        path = object_path or objects.find("xdp")
        loaded = objects.load(path, pins=bpf_dir, rodata=rodata or {}, sizes=sizes or {})
        try:
            return cls(loaded, bpf_dir / "links", own_addresses)
        except BaseException:
            loaded.close()
            raise

    def close(self) -> None:
        """Lets go of the handles; rules and attached programs stay."""
        self._loaded.close()

    def __enter__(self) -> Prefilter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- rules ----

    def list(self) -> Sequence[Denied]:
        """IPv4 first, in the order of addresses."""
        with self._lock:
            return [
                Denied(str(one), number, counted.packets, counted.byte_count)
                for one, number, counted in self._rules.counted()
            ]

    def add(self, cidrs: Collection[str], *, force: bool = False) -> int:
        """Denies all of them, or none. Those that are denied already keep their counts. Returns how many are new.

        :param force: also ranges that hold the node's own addresses or gateways.

        Raises InvalidRange, OwnRange, BpfRefused."""
        ranges = [parse(text) for text in cidrs]
        if not force:
            refuse_own(ranges, self._own_addresses())
        with self._lock:
            return self._rules.add(ranges)

    def delete(self, cidrs: Collection[str]) -> int:
        """Lets them pass again. Returns how many were denied. Raises InvalidRange, BpfRefused."""
        ranges = [parse(text) for text in cidrs]
        with self._lock:
            return self._rules.delete(ranges)

    # ---- devices ----

    def attach(self, devices: Mapping[str, int]) -> Mapping[str, str]:
        """Makes `devices` (ifindex by name) the ones that are guarded, and no others: new ones get the program, in the
        driver if it can, those that have one of an earlier build have it replaced in place.

        Returns what went wrong, a sentence by device; the others are guarded nevertheless."""
        wanted = {links.pin_name(HOOK, name): (name, ifindex) for name, ifindex in devices.items()}
        problems = {}
        with self._lock:
            for path in self._pins():
                if path.name not in wanted:
                    links.pinned(path).detach()
            for pin, (name, ifindex) in wanted.items():
                try:
                    program = self._loaded.programs["prefilter"]
                    links.attach_xdp(program, ifindex, pin=self._links_dir / pin).close()
                except BpfRefused as refused:
                    problems[name] = f"denied ranges are not dropped at {name}: {refused.message}"
        return problems

    def detach(self) -> None:
        """Guards no device any more; the rules stay. Harmless if none is guarded."""
        self.attach({})

    def _pins(self) -> Sequence[Path]:
        if not self._links_dir.is_dir():
            return []
        return sorted(path for path in self._links_dir.iterdir() if path.name.startswith(f"{HOOK}-"))
