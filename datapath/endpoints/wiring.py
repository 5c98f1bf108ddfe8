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
from typing import Final

from datapath import observe, sysctls
from datapath.endpoints import messages
from datapath.errors import DatapathError, DeviceTaken, InvalidEndpoint, KernelRefused, NotWired
from datapath.model import HOST_PREFIX, Endpoint, Found, Link
from datapath.namespaces import opened, visiting
from datapath.netlink import NetlinkSocket
from datapath.ports import PodPrograms

_DEVICE_NAME: Final = re.compile(r"[^\s/:]{1,15}")
_MTU_RANGE: Final = (68, 65535)
_LEAST_MTU6: Final = 1280
_DOOMED_GROUP: Final = 0x504C4D


@dataclass(slots=True)
class _Removal:
    host_device: str
    done: bool = False
    error: DatapathError | None = field(default=None)


class KernelEndpoints:
    """Implements ports.Endpoints. Thread-safe: each call opens its own socket.

    :param programs: attached to each pod's device before the pod can say a word; None: plain routing.
    """

    def __init__(self, programs: PodPrograms | None = None) -> None:
        self._programs = programs
        self._removals: list[_Removal] = []
        self._removals_lock = threading.Lock()
        self._remove_lock = threading.Lock()
        self._ready6 = False
        self._ready6_lock = threading.Lock()

    def prepare(self) -> None:
        sysctls.forward4()

    def _prepare6(self) -> None:
        """With the first pod that needs it: nodes without IPv6 pods stay as their administrator set them."""
        with self._ready6_lock:
            if not self._ready6:
                sysctls.forward6()
                self._ready6 = True

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
                if self._programs is not None:
                    self._programs.attach(endpoint, _index(endpoint.host_device))
                self._dress(endpoint, netns, host)
            except BaseException:
                with contextlib.suppress(DatapathError):  # what went wrong first is what must be told
                    self.unwire(endpoint.host_device, endpoint.address)
                raise

    def _dress(self, endpoint: Endpoint, netns: int, host: NetlinkSocket) -> None:
        # Before the pod can say a word: a pod that plays router must not get the node's routes.
        sysctls.ignore_routers6(endpoint.host_device)
        with visiting(netns):
            pod = NetlinkSocket()
            index = _index(endpoint.device)
            if endpoint.address6:
                sysctls.ignore_routers6(endpoint.device)
                sysctls.speak6(endpoint.device)
        with pod:
            pod.run(messages.pod_side(endpoint, index))
        host_index = _index(endpoint.host_device)
        if endpoint.address6:
            self._prepare6()
            sysctls.speak6(endpoint.host_device)
        requests = messages.host_side(endpoint.addresses, endpoint.mac, host_index, endpoint.host_device)
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
        if self._programs is not None:
            self._programs.detach(host_device)
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
            if self._programs is not None:
                self._programs.check(endpoint, link.index)
            routes = observe.routes(host)[1]
            for address in endpoint.addresses:
                if (address, link.index) not in routes:
                    raise NotWired(
                        f"the node has no route to {address} by {endpoint.host_device}",
                        remedy="restart the node daemon: it puts back what is missing",
                    )

    def found(self) -> Sequence[Found]:
        with NetlinkSocket() as host:
            links = {link.index: link for link in observe.links(host) if link.name.startswith(HOST_PREFIX)}
            routes = observe.routes(host)[1]
        addresses: dict[int, dict[bool, str]] = {}
        for address, index in sorted(routes):
            if index in links:
                addresses.setdefault(index, {})[":" in address] = address
        return [
            Found(links[index].name, both.get(False, ""), links[index].label, both.get(True, ""))
            for index, both in addresses.items()
        ]

    def restore(self, endpoints: Collection[Endpoint]) -> Sequence[str]:
        done = []
        with NetlinkSocket() as host:
            links = {link.name: link for link in observe.links(host)}
            _, pod_routes = observe.routes(host)
            for endpoint in endpoints:
                link = links.get(endpoint.host_device)
                whose = f"{endpoint.host_device} for {' and '.join(endpoint.addresses)}"
                try:
                    if endpoint.address6:
                        self._prepare6()
                    if link is None:
                        self.wire(endpoint)
                        done.append(f"{whose} was missing and is back")
                        continue
                    sysctls.ignore_routers6(link.name)  # pairs of an earlier release listened
                    if self._programs is not None:
                        self._programs.attach(endpoint, link.index)
                    lost = [one for one in endpoint.addresses if (one, link.index) not in pod_routes]
                    host.run(messages.host_side(lost, endpoint.mac, link.index, link.name))
                    done += [f"the route to {one} was missing and is back" for one in lost]
                except DatapathError as error:
                    done.append(f"{whose} cannot be put back: {error.message}")
        return done


def _check_pod(endpoint: Endpoint, pod: NetlinkSocket) -> None:
    remedy = "something in the pod changed its network; delete and add the pod"
    link = _named(observe.links(pod), endpoint.device)
    if link is None or not link.up:
        raise NotWired(f"{endpoint.device} is missing or down in the pod", field="CNI_IFNAME", remedy=remedy)
    if link.mac != endpoint.mac:
        raise NotWired(f"{endpoint.device} has MAC {link.mac}, not {endpoint.mac}", remedy=remedy)
    held = {one.address for one, _, _ in observe.addresses(pod) if one.link_index == link.index}
    destinations = {destination for destination, _ in observe.routes(pod)[1]}
    for address in endpoint.addresses:
        if address not in held:
            raise NotWired(f"{endpoint.device} lacks the address {address}", remedy=remedy)
        family, words = (socket.AF_INET6, "IPv6") if ":" in address else (socket.AF_INET, "IPv4")
        if observe.ANY[family] not in destinations:
            raise NotWired(f"the pod has no default route of ours for {words}", remedy=remedy)


def _validate(endpoint: Endpoint) -> None:
    if not _DEVICE_NAME.fullmatch(endpoint.device) or endpoint.device in (".", ".."):
        raise InvalidEndpoint(
            f"{endpoint.device!r} cannot be the name of an interface",
            field="CNI_IFNAME",
            remedy="use 1 to 15 characters without space, slash and colon",
        )
    if endpoint.mtu and not _MTU_RANGE[0] <= endpoint.mtu <= _MTU_RANGE[1]:
        raise InvalidEndpoint(f"MTU {endpoint.mtu} is not in {_MTU_RANGE[0]}..{_MTU_RANGE[1]}", field="mtu")
    for text, version, name in ((endpoint.address, 4, "address"), (endpoint.address6, 6, "address6")):
        if text:
            _validate_address(text, version, name)
    if not endpoint.addresses:
        raise InvalidEndpoint("a pod needs an address", field="address")
    if endpoint.address6 and endpoint.mtu and endpoint.mtu < _LEAST_MTU6:
        raise InvalidEndpoint(f"MTU {endpoint.mtu} is too small for IPv6, which needs {_LEAST_MTU6}", field="mtu")


def _validate_address(text: str, version: int, field: str) -> None:
    try:
        address = ip_address(text)
    except ValueError as error:
        raise InvalidEndpoint(f"{text!r} is no address", field=field) from error
    if address.version != version:
        raise InvalidEndpoint(f"{text} is not IPv{version}", field=field)
    if str(address) != text:
        raise InvalidEndpoint(f"{text} is to be written {address}", field=field)


def _index(device: str) -> int:
    """Index of a device in the calling thread's namespace."""
    try:
        return socket.if_nametoindex(device)
    except OSError as error:
        raise NotWired(f"{device} does not exist: {os.strerror(error.errno or 0)}") from error


def _named(links: Sequence[Link], name: str) -> Link | None:
    return next((link for link in links if link.name == name), None)


__all__ = ["KernelEndpoints"]
