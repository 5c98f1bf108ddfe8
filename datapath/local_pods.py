"""Pods of this node as the programs know them: the `endpoints` map, and filters at their devices.

Implements ports.PodPrograms. What a former life of the daemon wrote is read back first, so that a pod keeps its
identity and its policy's flags while the registry is away.
"""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, Protocol

from datapath import layout
from datapath.errors import BpfRefused, NotWired
from datapath.layout import address_bytes, address_text, mac_bytes
from datapath.maps import MapLike, slices
from datapath.model import HOST_MAC, HOST_PREFIX, Endpoint
from datapath.programs import NodePrograms

_MTU: Final = 1500  # of a pair that is made without saying
_POLICY_FLAGS: Final = (
    layout.TARGET_INGRESS_POLICY
    | layout.TARGET_EGRESS_POLICY
    | layout.TARGET_INGRESS_AUDIT
    | layout.TARGET_EGRESS_AUDIT
)


class Book(Protocol):
    """Who has an address, as far as pods of this node go: identities/addresses.py."""

    def set_pod(self, addresses: Collection[str], target: layout.Target) -> bool:
        """True if a decision made before may be wrong now."""

    def forget_pod(self, addresses: Collection[str], ifindex: int) -> bool:
        """Forgets those that are still this pod's."""


@dataclass(frozen=True, slots=True)
class LocalPod:
    """:ivar index: of the node's end of its pair; also its number as an endpoint. :ivar label: as on the device.
    :ivar netns: path of the pod's network namespace; empty until the pod is told of in this life."""

    device: str
    index: int
    address: str
    address6: str
    target: layout.Target
    label: str = ""
    netns: str = ""

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(one for one in (self.address, self.address6) if one)

    def entry(self) -> bytes:
        return layout.Endpoint(address_bytes(self.address), address_bytes(self.address6), self.target).pack()


class LocalPods:
    """Thread-safe.

    :param identity_of: the identity that the registry gives to whoever has an address; 0: it has not told.
    :param changed: called when decisions that the programs remember may be wrong.
    :param gone: called with addresses of a pod that has ended.
    """

    def __init__(
        self,
        endpoints: Callable[[], MapLike],
        programs: NodePrograms,
        book: Book,
        *,
        identity_of: Callable[[str], int],
        changed: Callable[[], None],
        gone: Callable[[str], None],
    ) -> None:
        self._endpoints = endpoints
        self._programs = programs
        self._book = book
        self._identity_of = identity_of
        self._changed = changed
        self._gone = gone
        self._lock = threading.RLock()
        self._pods: dict[str, LocalPod] = {}
        self._by_index: dict[int, LocalPod] = {}
        self._flags: dict[int, int] = {}

    def restore(self) -> None:
        """Pods that a former life knew and whose devices still exist get the programs of this one. What is refused for
        one of them keeps nobody else waiting: whoever holds its lease attaches it again, and tells why not."""
        names = dict(socket.if_nameindex())
        with self._lock:
            for index, found in list(_entries(self._endpoints())):
                name = names.get(index, "")
                if not name.startswith(HOST_PREFIX):
                    self._forget(index, [address_text(found.address4), address_text(found.address6)])
                    continue
                pod = LocalPod(name, index, address_text(found.address4), address_text(found.address6), found.target)
                self._pods[name] = self._by_index[index] = pod
                self._flags[index] = found.target.flags & _POLICY_FLAGS
                with suppress(BpfRefused):
                    self._programs.attach_pod(index, name)

    def attach(self, endpoint: Endpoint, index: int) -> None:
        with self._lock:
            known = self._pods.get(endpoint.host_device)
            if known is not None and known.index != index:
                self._drop(known)
                known = None
            pod = self._pod(endpoint, index, known)
            if pod != known:
                # The pod is known before its first packet can come: without this it would be dropped.
                self._endpoints().update(_number(index), pod.entry())
                if self._book.set_pod(pod.addresses, pod.target):
                    self._changed()
                self._pods[endpoint.host_device] = self._by_index[index] = pod
            self._programs.attach_pod(index, endpoint.host_device)

    def detach(self, host_device: str) -> None:
        with self._lock:
            pod = self._pods.pop(host_device, None)
            if pod is not None:
                self._drop(pod)

    def check(self, endpoint: Endpoint, index: int) -> None:
        with self._lock:
            pod = self._pods.get(endpoint.host_device)
            entry = self._endpoints().lookup(_number(index))
        if pod is None or pod.index != index or entry != pod.entry():
            raise NotWired(
                f"the programs do not know {endpoint.host_device} as it is",
                remedy="restart the node daemon: it puts back what is missing",
            )

    def keep(self, devices: Collection[str]) -> Collection[str]:
        """Forgets pods of other devices than these. Returns the devices that were forgotten."""
        with self._lock:
            others = [name for name in self._pods if name not in devices]
            for name in others:
                self._drop(self._pods.pop(name))
            return others

    def identify(self, addresses: Collection[str]) -> None:
        """Asks again whose these addresses are; those of other nodes are none of ours."""
        with self._lock:
            wanted = set(addresses)
            for name, pod in list(self._pods.items()):
                if wanted.intersection(pod.addresses):
                    identity = self._identity(pod.addresses, pod.target.identity)
                    self._retarget(name, replace(pod.target, identity=identity))

    def enforce(self, flags: Mapping[int, int]) -> None:
        """Sets which directions of which pod pass its policy, by its number; 0 for those that are not named."""
        with self._lock:
            self._flags = dict(flags)
            for name, pod in list(self._pods.items()):
                kept = pod.target.flags & ~_POLICY_FLAGS
                self._retarget(name, replace(pod.target, flags=kept | flags.get(pod.index, 0)))

    def pods(self) -> list[LocalPod]:
        with self._lock:
            return sorted(self._pods.values(), key=lambda pod: pod.index)

    def at(self, index: int) -> LocalPod | None:
        """The pod behind a device."""
        with self._lock:
            return self._by_index.get(index)

    def _retarget(self, name: str, target: layout.Target) -> None:
        pod = self._pods[name]
        if target == pod.target:
            return
        pod = replace(pod, target=target)
        self._endpoints().update(_number(pod.index), pod.entry())
        self._book.set_pod(pod.addresses, target)
        self._pods[name] = self._by_index[pod.index] = pod
        self._changed()

    def _pod(self, endpoint: Endpoint, index: int, known: LocalPod | None) -> LocalPod:
        before = known.target.identity if known and known.addresses == endpoint.addresses else layout.IDENTITY_UNMANAGED
        target = layout.Target(
            kind=layout.TARGET_POD,
            flags=self._flags.get(index, 0),
            mtu=min(endpoint.mtu or _MTU, 65535),
            identity=self._identity(endpoint.addresses, before),
            ifindex=index,
            endpoint=index,
            node=0,
            mac=mac_bytes(endpoint.mac),
            host_mac=mac_bytes(HOST_MAC),
        )
        return LocalPod(
            endpoint.host_device, index, endpoint.address, endpoint.address6, target, endpoint.label, endpoint.netns
        )

    def _identity(self, addresses: Collection[str], before: int) -> int:
        return next((found for one in addresses if (found := self._identity_of(one))), before)

    def _drop(self, pod: LocalPod) -> None:
        self._flags.pop(pod.index, None)
        self._by_index.pop(pod.index, None)
        self._programs.forget_pod(pod.index)
        self._forget(pod.index, pod.addresses)

    def _forget(self, index: int, addresses: Collection[str]) -> None:
        self._endpoints().delete(_number(index))
        if self._book.forget_pod([one for one in addresses if one], index):
            self._changed()
        for one in addresses:
            if one:
                self._gone(one)


def _entries(endpoints: MapLike) -> Iterator[tuple[int, layout.Endpoint]]:
    for keys, values, count in endpoints.keys_batches():
        pairs = zip(slices(keys, 4, count), slices(values, layout.ENDPOINT_SIZE, count), strict=True)
        for key, value in pairs:
            yield int.from_bytes(key, sys.byteorder), layout.Endpoint.unpack(value)


def _number(value: int) -> bytes:
    return value.to_bytes(4, sys.byteorder)


__all__ = ["Book", "LocalPod", "LocalPods"]
