"""What the node daemon consumes of the datapath. Blocking and thread-safe; testing.py has fakes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from datapath.model import CloudLink, Endpoint, Found, RoutingReport


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


class DeviceEvents(Protocol):
    """Tells of devices that come, go or change. Readable (`fileno`) when there may be something; never blocks."""

    def fileno(self) -> int: ...

    def drain(self) -> bool:
        """Forgets what has queued up. True if some of it was not about pods' own devices."""

    def close(self) -> None: ...


class Routing(Protocol):
    """The node's side of the cloud interfaces."""

    def reconcile(self, links: Collection[CloudLink]) -> RoutingReport:
        """Makes the kernel hold what `links` ask for, and nothing else of ours. Raises KernelRefused."""

    def events(self) -> DeviceEvents: ...

    def node_addresses(self) -> Sequence[str]:
        """The node's own addresses, the one it speaks from first."""
