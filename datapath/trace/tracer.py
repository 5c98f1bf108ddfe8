"""Dry runs as somebody asks for them: by the names of pods. The copy of the program is loaded for the first of them."""

from __future__ import annotations

import threading
from collections.abc import Callable

from datapath.errors import UnknownPod
from datapath.events.filters import pod_name
from datapath.trace.dryrun import DryRun, Sender, destination_of
from datapath.view.model import Traced


class Tracer:
    """Thread-safe.

    :param opened: loads the copy: DryRun.opened with what the programs were loaded with.
    :param sender_of: a pod of this node as the programs know it, None if it is not of this node.
    :param addresses_of: addresses of a pod of any node; none: it is not known.
    """

    def __init__(
        self,
        opened: Callable[[], DryRun],
        sender_of: Callable[[str], Sender | None],
        addresses_of: Callable[[str], tuple[str, ...]],
    ) -> None:
        self._opened = opened
        self._sender_of = sender_of
        self._addresses_of = addresses_of
        self._lock = threading.Lock()
        self._dry_run: DryRun | None = None

    def trace(self, pod: str, destination: str, port: int, protocol: str) -> Traced:
        """See ports.DatapathView. Raises InvalidFilter, UnknownPod, BpfError."""
        sender = self._sender_of(pod_name(pod))
        if sender is None:
            raise UnknownPod(
                f"no pod {pod} on this node",
                field="pod",
                remedy="ask its node's daemon: `plimsoll pods list` tells which that is",
            )
        address = destination_of(destination, self._addresses_of, sender)
        with self._lock:
            if self._dry_run is None:
                self._dry_run = self._opened()
            return self._dry_run.run(sender, address, port, protocol)

    def close(self) -> None:
        """Lets go of the copy. It is loaded anew when somebody asks again: after the programs were replaced, too."""
        with self._lock:
            if self._dry_run is not None:
                self._dry_run.close()
                self._dry_run = None
