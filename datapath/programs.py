"""The programs of a node: loaded with its constants, attached to its devices, replaced in place.

Pods' devices get direct-action filters: attaching those takes 0.3 ms, a TCX link 8 ms (a grace period), of which a pod
start would wait for two. A filter goes with its device, and needs no pin. External devices and the overlay get pinned
TCX links, where the kernel has them.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from datapath.errors import BpfRefused, DatapathError
from datapath.layout import Config
from datapath.loader import legacy, links, objects, pins
from datapath.loader.links import Attachment
from datapath.loader.maps import Map
from datapath.loader.objects import Loaded
from datapath.loader.programs import Program

_DEVICE: Final = (("from_device", True), ("to_device", False))
_OVERLAY: Final = (("from_overlay", True), ("to_overlay", False))
_POD: Final = (("from_pod", True), ("to_pod", False))
OBJECTS: Final = ("pod", "device")


@dataclass(frozen=True, slots=True)
class Attached:
    """:ivar by: tcx or clsact."""

    program: str
    device: str
    by: str


@dataclass(slots=True)
class _Device:
    """An external device, or the overlay, with what is attached to it."""

    index: int
    overlay: bool
    attachments: dict[str, Attachment]


class NodePrograms:
    """Thread-safe. `load` comes first, and may come again: what is attached is then replaced, one hook after the other.

    :param root: the bpf_dir.
    :param sizes: entries by map.
    :param folder: where the objects are; None: as built or installed.
    """

    def __init__(self, root: Path, sizes: Mapping[str, int], *, folder: Path | None = None) -> None:
        self._root = root
        self._sizes = dict(sizes)
        self._folder = folder
        self._lock = threading.RLock()
        self._programs: dict[str, Program] = {}
        self._maps: dict[str, Map] = {}
        self._pods: dict[int, str] = {}
        self._devices: dict[str, _Device] = {}

    @property
    def maps(self) -> Mapping[str, Map]:
        return self._maps

    @property
    def programs(self) -> Mapping[str, Program]:
        return self._programs

    def load(self, config: Config) -> int:
        """Raises VerifierRefused, LayoutChanged, NotLoaded, BpfRefused; then what is attached stays as it is.

        :return: entries that the former programs wrote into a map of another size while it was replaced."""
        with self._lock:
            loaded: list[Loaded] = []
            try:
                for name in OBJECTS:
                    path = objects.find(name, self._folder)
                    loaded.append(
                        objects.load(path, pins=self._root, rodata={"config": config.pack()}, sizes=self._sizes)
                    )
            except BaseException:
                for one in loaded:
                    one.close()
                raise
            former = list(self._programs.values())
            self._programs = {name: program for one in loaded for name, program in one.programs.items()}
            self._keep_maps(loaded)
            self._replace_all()
            settled = sum(one.settle() for one in loaded)
            pins.pin_programs(self._root, self._programs)
            for program in former:
                program.close()
            return settled

    def _keep_maps(self, loaded: Collection[Loaded]) -> None:
        """Others hold on to the maps of the first load; those of later ones are the same in the kernel."""
        for one in loaded:
            for name, found in one.maps.items():
                if name in self._maps:
                    found.close()
                else:
                    self._maps[name] = found

    def attach_pod(self, index: int, device: str) -> None:
        """Idempotent. Raises BpfRefused."""
        with self._lock:
            programs = [(self._programs[name], ingress) for name, ingress in _POD]
        legacy.attach_all(programs, index)
        with self._lock:
            self._pods[index] = device

    def forget_pod(self, index: int) -> None:
        """Its device is gone, or going: the filters with it."""
        with self._lock:
            self._pods.pop(index, None)

    def attach_devices(self, external: Mapping[str, int], overlay: Mapping[str, int]) -> Mapping[str, str]:
        """Attaches to these devices, by name and index, and to no others. Returns why some are not, by name."""
        problems: dict[str, str] = {}
        with self._lock:
            wanted = {**external, **overlay}
            for name in [name for name, one in self._devices.items() if wanted.get(name) != one.index]:
                self._detach(name)
            self._detach_strangers(wanted)
            for name, index in wanted.items():
                try:
                    self._attach_device(name, index, overlay=name in overlay)
                except BpfRefused as refused:
                    problems[name] = refused.message
        return problems

    def attached(self) -> Collection[Attached]:
        with self._lock:
            found = [Attached(name, device, "clsact") for device in self._pods.values() for name, _ in _POD]
            for device, one in self._devices.items():
                found += [Attached(name, device, how.mode) for name, how in one.attachments.items()]
            return found

    def close(self) -> None:
        """Lets go of all handles; what is attached stays attached."""
        with self._lock:
            for one in self._devices.values():
                for attachment in one.attachments.values():
                    attachment.close()
            self._devices.clear()
            for program in self._programs.values():
                program.close()
            for found in self._maps.values():
                found.close()
            self._programs.clear()
            self._maps.clear()

    def _attach_device(self, name: str, index: int, *, overlay: bool) -> None:
        one = self._devices.setdefault(name, _Device(index, overlay, {}))
        for hook, ingress in _OVERLAY if overlay else _DEVICE:
            if hook not in one.attachments:
                pin = self._pin(hook, name)
                one.attachments[hook] = links.attach_tcx(self._programs[hook], index, ingress, pin=pin)

    def _replace_all(self) -> None:
        for index, device in list(self._pods.items()):
            try:
                self.attach_pod(index, device)
            except BpfRefused:  # it went meanwhile
                self._pods.pop(index, None)
        for name, one in list(self._devices.items()):
            try:
                for hook, attachment in one.attachments.items():
                    attachment.update(self._programs[hook])
            except DatapathError:
                self._detach(name)

    def _detach(self, name: str) -> None:
        for attachment in self._devices.pop(name).attachments.values():
            with suppress(DatapathError):
                attachment.detach()

    def _detach_strangers(self, wanted: Collection[str]) -> None:
        """Links that an earlier life pinned for devices that are none of ours now."""
        keep = {self._pin(hook, name).name for name in wanted for hook, _ in (*_DEVICE, *_OVERLAY)}
        folder = self._root / pins.LINKS
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.name not in keep and path.name.startswith(tuple(f"{hook}-" for hook, _ in (*_DEVICE, *_OVERLAY))):
                with suppress(DatapathError):
                    links.pinned(path).detach()

    def _pin(self, hook: str, device: str) -> Path:
        return self._root / pins.LINKS / links.pin_name(hook, device)


__all__ = ["OBJECTS", "Attached", "NodePrograms"]
