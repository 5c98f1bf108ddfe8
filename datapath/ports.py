"""What the node daemon consumes of the datapath. Blocking and thread-safe; testing.py has fakes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Protocol

from datapath.devices.select import DeviceSelection
from datapath.devices.vxlan import Overlay as OverlayFacts
from datapath.events.filters import Filter, Names
from datapath.events.hub import Subscription
from datapath.model import CloudLink, Endpoint, Found, NextHop, NodePods, NodeRoutesReport, RoutingReport
from datapath.neighbours.kernel import NeighbourReport
from datapath.network_events import Changes
from datapath.view.model import (
    AddressFacts,
    DeviceFacts,
    EndpointFacts,
    FlowFacts,
    HookCount,
    MapFacts,
    PolicyFacts,
    Prefilter,
    Selection,
    Status,
    Traced,
    TranslationFacts,
)


class Endpoints(Protocol):
    """Pods' interfaces."""

    def prepare(self) -> None:
        """Sets what all pods need of the host (forwarding). Idempotent."""

    def wire(self, endpoint: Endpoint) -> None:
        """Makes the kernel hold the endpoint, whole or not at all. One that is there already, and right, is untouched.

        Raises NamespaceGone, DeviceTaken, InvalidEndpoint, KernelRefused."""

    def unwire(self, host_device: str, address: str) -> None:
        """Removes device and routes. What is not there is no error."""

    def check(self, endpoint: Endpoint) -> None:
        """Raises NotWired with the first difference between kernel and endpoint."""

    def found(self) -> Sequence[Found]:
        """Every pod's interface that the kernel holds on the node's side, whoever remembers it."""

    def restore(self, endpoints: Collection[Endpoint]) -> Sequence[str]:
        """Puts back what of the host's side is missing, without touching what runs. Returns what was done or cannot be,
        one sentence each."""


class PodPrograms(Protocol):
    """Programs at pods' devices, and what they know of each pod."""

    def attach(self, endpoint: Endpoint, index: int) -> None:
        """The pod's packets pass the programs from now on; before, they are dropped. Idempotent.

        :param index: of the node's end of its pair. Raises BpfError."""

    def detach(self, host_device: str) -> None:
        """The pod's device is about to go. What is not there is no error."""

    def check(self, endpoint: Endpoint, index: int) -> None:
        """Raises NotWired with the first difference."""


class DeviceEvents(Protocol):
    """Tells of devices that come, go or change. Readable (`fileno`) when there may be something; never blocks."""

    def fileno(self) -> int: ...

    def drain(self) -> bool:
        """Forgets what has queued up. True if some of it was not about pods' own devices."""

    def close(self) -> None: ...


class Routing(Protocol):
    """The node's side of the cloud interfaces."""

    def reconcile(self, links: Collection[CloudLink], ranges: Collection[str] = ()) -> RoutingReport:
        """Makes the kernel hold what `links` ask for, and nothing else of ours. Raises KernelRefused.

        :param ranges: of the node's own, for pods: what of them no pod has is unreachable."""

    def events(self) -> DeviceEvents: ...

    def node_addresses(self) -> Sequence[str]:
        """The node's own addresses, the one it speaks from first."""


class DatapathView(Protocol):
    """What an administrator asks of the programs: DatapathService tells it. Nothing here is on a packet's way.

    Raises InvalidFilter for what cannot be, UnknownPod for a pod that is not of this node, BpfError if the kernel
    refuses.
    """

    def status(self) -> Status: ...

    def maps(self) -> Sequence[MapFacts]: ...

    def endpoints(self) -> Sequence[EndpointFacts]: ...

    def flows(
        self, wanted: Selection, *, states: Collection[str] = (), order: str = "none", limit: int = 0
    ) -> Iterator[FlowFacts]:
        """Reads the table as it goes: what changes meanwhile may be seen or not.

        :param states: opening, open, closing; none: all.
        :param order: one of conntrack.flows.ORDERS. :param limit: 0: all."""

    def flush_flows(self, wanted: Selection) -> int:
        """Forgets connections with their translations; how many."""

    def translations(self, wanted: Selection) -> Iterator[TranslationFacts]: ...

    def counts(self) -> Sequence[HookCount]:
        """What passed and what was dropped, by hook and reason; those that are zero may be left out."""

    def addresses(self, address: str = "") -> Sequence[AddressFacts]:
        """Who has which address. With `address`: only what the programs would find for it, first match first."""

    def policies(self, pod: str = "") -> Sequence[PolicyFacts]: ...

    def devices(self) -> Sequence[DeviceFacts]: ...

    def trace(self, pod: str, destination: str, port: int, protocol: str) -> Traced:
        """What would become of a packet.

        :param destination: an address, or a pod of any node that has an address of the pod's family.
        :param port: 0: none.
        :param protocol: tcp, udp, icmp; empty: tcp with a port, icmp without.
        """

    def subscribe(self, wanted: Filter, notify: Callable[[], None]) -> Subscription:
        """Events from the moment that the subscription is entered; see events.hub."""

    @property
    def names(self) -> Names:
        """Whose addresses and devices are."""

    def prefilter(self) -> Prefilter: ...

    def update_prefilter(
        self, add: Collection[str], delete: Collection[str], *, force: bool = False
    ) -> tuple[int, int]:
        """How many ranges are new, and how many are gone; those that were there, or not there, are no error.

        :param force: also ranges that hold the node's own addresses."""


class Devices(Protocol):
    """Devices that lead out of the node."""

    def detect(self) -> DeviceSelection:
        """As they are now. Raises KernelRefused."""


class Overlay(Protocol):
    """The device that carries packets between nodes."""

    def ensure(self, *, underlay_mtu: int, port: int = ..., underlay_family: int = ...) -> OverlayFacts:
        """Makes it as it should be, and keeps one that is. Raises KernelRefused, NotWired."""

    def remove(self) -> bool:
        """False: it was not there."""


class NodeRoutes(Protocol):
    """Routes to the pods of other nodes; each call is told of all of them, and leaves no others."""

    def tunnel(self, nodes: Collection[NodePods], sources: Mapping[int, str] | None = None) -> NodeRoutesReport:
        """By the overlay device. Raises KernelRefused, NotWired if it is missing.

        :param sources: addresses that this node itself speaks from to them, by family (4, 6)."""

    def direct(self, nodes: Collection[NodePods]) -> NodeRoutesReport:
        """By the nodes' addresses. Raises KernelRefused."""

    def clear(self) -> NodeRoutesReport: ...


class Neighbours(Protocol):
    """Next hops that the kernel keeps resolved."""

    def reconcile(self, wanted: Collection[NextHop]) -> NeighbourReport:
        """Keeps these, and no others of ours. Raises KernelRefused."""

    def refresh(self, wanted: Collection[NextHop]) -> None:
        """To be called twice a minute if the report says that they are not managed. Raises KernelRefused."""


class NetworkEvents(Protocol):
    """Tells what may have changed. Readable (`fileno`) when there may be something; `drain` never blocks."""

    def fileno(self) -> int: ...

    def drain(self) -> Changes: ...

    def close(self) -> None: ...
