"""A copy of the pods' program that tells every step and changes nothing, run on a packet that nobody sends.

The copy shares the node's maps: it decides by what the programs decide by. Its ring buffer and its scratch room are its
own, so that neither its steps nor its work mix with those of real packets.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Protocol, Self

from datapath.errors import InvalidFilter
from datapath.events.decode import decode
from datapath.events.filters import Names
from datapath.events.hub import Records
from datapath.layout import CONFIG_TRACE, Config, address_bytes
from datapath.loader import objects
from datapath.loader.maps import pinned_if_any
from datapath.loader.programs import SkbContext, TestRun
from datapath.loader.ringbuf import RingReader
from datapath.trace.packet import Conversation, build, protocol_for
from datapath.trace.steps import told
from datapath.view.model import End, Traced

PROGRAM: Final = "from_pod"
_RING_BYTES: Final = 1 << 16
# What is written for every packet, whoever it is of.
PRIVATE: Final = objects.TRANSIENT | {"events", "lost_events"}


class Runnable(Protocol):
    """loader.programs.Program"""

    def test_run(self, packet: bytes = b"", *, context: bytes = b"") -> TestRun: ...


@dataclass(frozen=True, slots=True)
class Sender:
    """The pod that the packet is of. MACs are 6 bytes, addresses canonical text.

    :ivar ifindex: of the node's end of its pair.
    """

    pod: str
    ifindex: int
    mac: bytes
    host_mac: bytes
    addresses: tuple[str, ...]


class DryRun:
    """One run at a time; safe between threads.

    :param program: the tracing copy of `from_pod`. :param records: its ring buffer.
    """

    def __init__(self, program: Runnable, records: Records, names: Names) -> None:
        self._program = program
        self._records = records
        self._names = names
        self._lock = threading.Lock()
        self._resources = ExitStack()

    @classmethod
    def opened(cls, root: Path, config: Config, names: Names, *, folder: Path | None = None) -> Self:
        """Loads the copy beside the programs whose maps are pinned under `root`. Takes as long as loading them did.

        :param config: as the programs have it. :param folder: where the objects are; None: as built or installed.

        Raises VerifierRefused, LayoutChanged, NotLoaded, BpfRefused."""
        path = objects.find("pod", folder)
        tracing = replace(config, flags=config.flags | CONFIG_TRACE)
        loaded = objects.load(
            path, pins=root, rodata={"config": tracing.pack()}, sizes=_sizes(root), only={PROGRAM}, private=PRIVATE
        )
        with ExitStack() as resources:
            resources.callback(loaded.close)
            records = RingReader(loaded.maps["events"])
            resources.callback(records.close)
            made = cls(loaded.programs[PROGRAM], records, names)
            made._resources = resources.pop_all()
        return made

    def run(self, sender: Sender, destination: str, port: int, protocol: str) -> Traced:
        """What would become of the first packet of a conversation.

        :param destination: an address in canonical text.

        Raises InvalidFilter, BpfRefused."""
        word = protocol_for(protocol, port)
        talk = Conversation(sender.mac, sender.host_mac, source_for(sender, destination), destination, word, port)
        context = SkbContext(ifindex=sender.ifindex, ingress_ifindex=sender.ifindex).pack()
        with self._lock:
            self._records.read()
            self._program.test_run(build(talk), context=context)
            events, _ = decode(self._records.read())
        ends = (
            End(talk.source, talk.source_port, sender.pod),
            End(destination, port, self._names.pod_at(address_bytes(destination))),
        )
        return told(events, self._names, *ends, word)

    def close(self) -> None:
        with self._lock:
            self._resources.close()


def source_for(sender: Sender, destination: str) -> str:
    """The pod's address of the destination's family. Raises InvalidFilter."""
    family = ip_address(destination).version
    found = next((one for one in sender.addresses if ip_address(one).version == family), None)
    if found is None:
        raise InvalidFilter(
            f"pod {sender.pod} has no IPv{family} address to reach {destination} from",
            field="destination",
            remedy=f"name a destination of the other family: the pod has {', '.join(sender.addresses) or 'no address'}",
        )
    return found


def destination_of(text: str, addresses_of: Callable[[str], tuple[str, ...]], sender: Sender) -> str:
    """The address that a destination means: itself, or that of a pod of the sender's family. Raises InvalidFilter.

    :param addresses_of: addresses of a pod of any node, none if it is not known."""
    try:
        return str(ip_address(text))
    except ValueError:
        pass
    if "/" not in text:
        raise InvalidFilter(
            f"{text!r} is neither an address nor a pod", field="destination", remedy="write 10.0.1.5 or namespace/name"
        )
    families = [ip_address(one).version for one in sender.addresses]
    there = addresses_of(text)
    for family in families:
        for one in there:
            if ip_address(one).version == family:
                return one
    what = "is not known" if not there else "has no address of the sender's family"
    raise InvalidFilter(
        f"pod {text} {what}", field="destination", remedy="`plimsoll pods list` has all pods with their addresses"
    )


def _sizes(root: Path) -> Mapping[str, int]:
    """Of the maps as they are pinned, whatever this build would make them: they are to be used, not replaced."""
    found = {}
    folder = root / "maps"
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if (one := pinned_if_any(path)) is not None:
            with one:
                found[one.name] = one.max_entries
    return {**found, "events": _RING_BYTES}
