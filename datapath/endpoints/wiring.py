"""Pods' interfaces in the kernel."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from datapath import observe
from datapath.endpoints import messages
from datapath.errors import DatapathError, DeviceTaken, InvalidEndpoint, KernelRefused, NotWired
from datapath.model import HOST_PREFIX, Endpoint, Found, Link
from datapath.namespaces import opened, visiting
from datapath.netlink import NetlinkSocket

_DEVICE_NAME: Final = re.compile(r"[^\s/:]{1,15}")
_MTU_RANGE: Final = (68, 65535)
_DOOMED_GROUP: Final = 0x504C4D
_FORWARD: Final = Path("/proc/sys/net/ipv4/ip_forward")


@dataclass(slots=True)
class _Removal:
    host_device: str
    done: bool = False
    error: DatapathError | None = field(default=None)


class KernelEndpoints:
    """Implements ports.Endpoints. Thread-safe: each call opens its own socket."""

    def __init__(self) -> None:
        self._removals: list[_Removal] = []
        self._removals_lock = threading.Lock()
        self._remove_lock = threading.Lock()

    def prepare(self) -> None:
        try:
            if _FORWARD.read_text().strip() != "1":
                _FORWARD.write_text("1")
        except OSError as error:
            raise KernelRefused("forward packets (net.ipv4.ip_forward)", error.errno or 0) from error

    def wire(self, endpoint: Endpoint) -> None:
        _validate(endpoint)
        with opened(endpoint.netns) as netns, NetlinkSocket() as host:
            try:
                host.run([messages.create_pair(endpoint, netns)])
            except KernelRefused as refusal:
                if refusal.errno != errno.EEXIST:
                    raise
                if self._adopted(endpoint, netns):
                    return
                host.run([messages.create_pair(endpoint, netns)])
            try:
                self._dress(endpoint, netns, host)
            except BaseException:
                with contextlib.suppress(DatapathError):  # what went wrong first is what must be told
                    host.run([messages.delete_pair(endpoint.host_device)])
                raise

    def _dress(self, endpoint: Endpoint, netns: int, host: NetlinkSocket) -> None:
        with visiting(netns):
            pod = NetlinkSocket()
            index = _index(endpoint.device)
        with pod:
            pod.run(messages.pod_side(endpoint, index))
        host_index = _index(endpoint.host_device)
        requests = messages.host_side(endpoint.address, endpoint.mac, host_index, endpoint.host_device)
        # The label goes first: a device that has its route is known to be whose it is.
        labels = [messages.alias(endpoint.host_device, endpoint.label)] if endpoint.label else []
        host.run([*labels, *requests])

    def _adopted(self, endpoint: Endpoint, netns: int) -> bool:
        """Something has that name. True: it is this endpoint, and right. False: it was in the way, and is gone."""
        try:
            _index(endpoint.host_device)
        except NotWired:
            raise DeviceTaken(
                f"the pod has an interface {endpoint.device} already, which is not ours",
                field="CNI_IFNAME",
                remedy="use another interface name, or take the other network out of the pod's configuration",
            ) from None
        try:
            self.check(endpoint)
        except DatapathError:
            self.unwire(endpoint.host_device, endpoint.address)
            return False
        return True

    def unwire(self, host_device: str, address: str) -> None:
        # Routes and neighbours go with their device. Removing a device waits for a grace period, however many go
        # together: those who come while one removal is under way share the next.
        removal = _Removal(host_device)
        with self._removals_lock:
            self._removals.append(removal)
        with self._remove_lock:
            if not removal.done:
                with self._removals_lock:
                    batch, self._removals = self._removals, []
                self._remove(batch)
        if removal.error is not None:
            raise removal.error

    def _remove(self, batch: Sequence[_Removal]) -> None:
        error: DatapathError | None = None
        try:
            with NetlinkSocket() as host:
                if len(batch) == 1:
                    host.run([messages.delete_pair(batch[0].host_device)])
                else:
                    host.run([messages.into_group(one.host_device, _DOOMED_GROUP) for one in batch])
                    host.run([messages.delete_group(_DOOMED_GROUP)])
        except DatapathError as refusal:
            error = refusal
        except OSError as failure:
            error = KernelRefused("remove pairs", failure.errno or 0)
        for one in batch:
            one.done, one.error = True, error

    def check(self, endpoint: Endpoint) -> None:
        with opened(endpoint.netns) as netns, NetlinkSocket() as host:
            with visiting(netns):
                pod = NetlinkSocket()
            with pod:
                _check_pod(endpoint, pod)
            link = _named(observe.links(host), endpoint.host_device)
            if link is None or not link.up:
                raise NotWired(
                    f"{endpoint.host_device} is missing or down on the node", remedy="delete and add the pod"
                )
            if (endpoint.address, link.index) not in observe.routes(host)[1]:
                raise NotWired(
                    f"the node has no route to {endpoint.address} by {endpoint.host_device}",
                    remedy="restart the node daemon: it puts back what is missing",
                )

    def found(self) -> Sequence[Found]:
        with NetlinkSocket() as host:
            links = {link.index: link for link in observe.links(host) if link.name.startswith(HOST_PREFIX)}
            routes = observe.routes(host)[1]
        return [
            Found(links[index].name, address, links[index].label) for address, index in sorted(routes) if index in links
        ]

    def restore(self, endpoints: Collection[Endpoint]) -> Sequence[str]:
        done = []
        with NetlinkSocket() as host:
            links = {link.name: link for link in observe.links(host)}
            _, pod_routes = observe.routes(host)
            for endpoint in endpoints:
                link = links.get(endpoint.host_device)
                try:
                    if link is None:
                        self.wire(endpoint)
                        done.append(f"{endpoint.host_device} for {endpoint.address} was missing and is back")
                    elif (endpoint.address, link.index) not in pod_routes:
                        requests = messages.host_side(endpoint.address, endpoint.mac, link.index, link.name)
                        host.run(requests)
                        done.append(f"the route to {endpoint.address} was missing and is back")
                except DatapathError as error:
                    done.append(f"{endpoint.host_device} for {endpoint.address} cannot be put back: {error.message}")
        return done


def _check_pod(endpoint: Endpoint, pod: NetlinkSocket) -> None:
    remedy = "something in the pod changed its network; delete and add the pod"
    link = _named(observe.links(pod), endpoint.device)
    if link is None or not link.up:
        raise NotWired(f"{endpoint.device} is missing or down in the pod", field="CNI_IFNAME", remedy=remedy)
    if link.mac != endpoint.mac:
        raise NotWired(f"{endpoint.device} has MAC {link.mac}, not {endpoint.mac}", remedy=remedy)
    held = {one.address for one, _, _ in observe.addresses(pod) if one.link_index == link.index}
    if endpoint.address not in held:
        raise NotWired(f"{endpoint.device} lacks the address {endpoint.address}", remedy=remedy)
    if not any(destination == "0.0.0.0" for destination, _ in observe.routes(pod)[1]):  # noqa: S104  nothing is bound
        raise NotWired("the pod has no default route of ours", remedy=remedy)


def _validate(endpoint: Endpoint) -> None:
    if not _DEVICE_NAME.fullmatch(endpoint.device) or endpoint.device in (".", ".."):
        raise InvalidEndpoint(
            f"{endpoint.device!r} cannot be the name of an interface",
            field="CNI_IFNAME",
            remedy="use 1 to 15 characters without space, slash and colon",
        )
    if endpoint.mtu and not _MTU_RANGE[0] <= endpoint.mtu <= _MTU_RANGE[1]:
        raise InvalidEndpoint(f"MTU {endpoint.mtu} is not in {_MTU_RANGE[0]}..{_MTU_RANGE[1]}", field="mtu")
    try:
        version = ip_address(endpoint.address).version
    except ValueError as error:
        raise InvalidEndpoint(f"{endpoint.address!r} is no address", field="address") from error
    if version != 4:
        raise InvalidEndpoint(f"{endpoint.address} is not IPv4", field="address")


def _index(device: str) -> int:
    """Index of a device in the calling thread's namespace."""
    try:
        return socket.if_nametoindex(device)
    except OSError as error:
        raise NotWired(f"{device} does not exist: {os.strerror(error.errno or 0)}") from error


def _named(links: Sequence[Link], name: str) -> Link | None:
    return next((link for link in links if link.name == name), None)


__all__ = ["KernelEndpoints"]
