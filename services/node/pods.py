"""Pods on this node: their lease and their place in the kernel, always both or neither.

Blocking and thread-safe; requests for one container run one after the other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType

import structlog

from datapath.errors import DatapathError
from datapath.model import Endpoint, Found, host_device, pod_mac
from datapath.ports import Endpoints
from ipam.errors import AddressConflict, NotFound
from ipam.journal import ADDRESS6
from ipam.local import Lease, LocalPool, Owner

# Attribute of a lease.
_LABEL = "label:"
NO_LABELS: Mapping[str, str] = MappingProxyType({})

_log = structlog.get_logger("pods")


@dataclass(frozen=True, slots=True)
class Attached:
    """A pod's interface: its lease, and how it stands in the kernel."""

    lease: Lease
    endpoint: Endpoint

    @property
    def labels(self) -> dict[str, str]:
        """See `labels_of`."""
        given = {
            key.removeprefix(_LABEL): value for key, value in self.lease.attributes.items() if key.startswith(_LABEL)
        }
        return labels_of(self.lease.pod, given)


def labels_of(pod: str, given: Mapping[str, str]) -> dict[str, str]:
    """Those that the network configuration gave, and the pod's name and namespace, which are the runtime's word."""
    namespace, _, name = pod.rpartition("/")
    told = {"io.kubernetes.pod.namespace": namespace, "io.kubernetes.pod.name": name}
    return {**given, **{key: value for key, value in told.items() if value}}


class Pods:
    """
    :param mtu_of: MTU in bytes for pods on a cloud interface, by its id; 0: the kernel's default.
    :param address6_of: IPv6 address of a pod by its leased IPv4 one; empty: none.
    :param pool_of: the node's pool that a pod's address comes from, by its labels; empty: the default one.
    :param wait_s: how long an ADD waits for a free address.
    :param max_waiting: ADDs that may wait at once; further ones are answered at once, so that a DEL finds a thread.
    """

    def __init__(
        self,
        pool: LocalPool,
        endpoints: Endpoints,
        *,
        mtu_of: Callable[[str], int],
        address6_of: Callable[[str], str] = lambda _: "",
        pool_of: Callable[[Mapping[str, str]], str] = lambda _: "",
        wait_s: float = 2.0,
        max_waiting: int = 32,
    ) -> None:
        self._pool = pool
        self._endpoints = endpoints
        self._mtu_of = mtu_of
        self._address6_of = address6_of
        self._pool_of = pool_of
        self._wait_s = wait_s
        self._waiters = threading.BoundedSemaphore(max_waiting)
        self._locks: dict[str, tuple[threading.Lock, list[None]]] = {}
        self._locks_lock = threading.Lock()

    def add(
        self, owner: Owner, *, netns: str, pod: str = "", network: str = "", labels: Mapping[str, str] = NO_LABELS
    ) -> Attached:
        """Idempotent: asked again, it keeps the addresses and takes the labels.

        Raises PoolEmpty, StoreError, DatapathError; then nothing new is left behind."""
        with self._alone(owner):
            fresh = self._pool.find(owner) is None
            attributes = {"netns": netns, "network": network, **{_LABEL + name: labels[name] for name in labels}}
            lease = self._lease(owner, pod, attributes, self._pool_of(labels_of(pod, labels)))
            if not fresh:
                attributes |= {ADDRESS6: lease.attributes[ADDRESS6]} if ADDRESS6 in lease.attributes else {}
                if lease.attributes != attributes:
                    lease = self._pool.amend(owner, attributes) or lease
            attached = self._attached(lease)
            try:
                self._endpoints.wire(attached.endpoint)
            except BaseException:
                if fresh:
                    self._pool.cancel(owner)
                raise
            return attached

    def _lease(self, owner: Owner, pod: str, attributes: Mapping[str, str], pool: str) -> Lease:
        may_wait = self._waiters.acquire(blocking=False)
        try:
            wait_s = self._wait_s if may_wait else 0.0
            return self._pool.lease(
                owner, pod=pod, attributes=attributes, attributes_of=self._second_address, wait_s=wait_s, pool=pool
            )
        finally:
            if may_wait:
                self._waiters.release()

    def _second_address(self, address: str) -> Mapping[str, str]:
        # Written with the lease: what the settings say later must not change a running pod.
        address6 = self._address6_of(address)
        return {ADDRESS6: address6} if address6 else {}

    def remove(self, owner: Owner) -> Lease | None:
        """Idempotent; an owner that was never there is fine. Raises StoreError, DatapathError."""
        with self._alone(owner):
            lease = self._pool.find(owner)
            device = host_device(owner.container_id, owner.interface_name)
            self._endpoints.unwire(device, lease.address if lease else "")
            return self._pool.free(owner)

    def check(self, owner: Owner, *, netns: str) -> Attached:
        """Raises NotFound without a lease, NotWired if the kernel differs from it."""
        with self._alone(owner):
            lease = self._pool.find(owner)
            if lease is None:
                raise NotFound(f"{owner} has no address on this node", field="CNI_CONTAINERID")
            attached = self._attached(lease)
            self._endpoints.check(attached.endpoint)
            return attached

    def collect(self, valid: Collection[Owner], *, network: str) -> Sequence[Lease]:
        """Removes the pods of `network` that are not among `valid`. Goes on behind a failure, and raises it then."""
        removed, failure = [], None
        for lease in self._pool.leases():
            if lease.attributes.get("network", "") != network or lease.owner in valid:
                continue
            try:
                self.remove(lease.owner)
                removed.append(lease)
                _log.info("pod collected", owner=str(lease.owner), address=lease.address)
            except DatapathError as error:
                failure = error
        if failure is not None:
            raise failure
        return removed

    def restore(self) -> None:
        """After a start: puts back what is missing on the node's side. Running pods are not touched.

        Pods that the kernel holds and the journal does not (it was lost) are taken into it, by the labels of their
        devices: their addresses must not go to others."""
        known = {lease.address for lease in self._pool.leases()}
        for found in self._endpoints.found():
            if found.address not in known and found.address6 not in known:
                self._adopt(found)
        for line in self._endpoints.restore([self._attached(lease).endpoint for lease in self._pool.leases()]):
            _log.warning("restored", what=line)

    def _adopt(self, found: Found) -> None:
        name, network, netns, pod = (found.label.split(" ", 3) + [""] * 4)[:4]
        container_id, _, interface_name = name.rpartition("/")
        owner = Owner(container_id or found.host_device, interface_name or "unknown")
        address = found.address or found.address6
        attributes = {"netns": netns, "network": network}
        if found.address and found.address6:
            attributes[ADDRESS6] = found.address6
        try:
            self._pool.adopt(owner, address, pod=pod, attributes=attributes)
        except AddressConflict as error:
            _log.error("not adopted", address=address, error=error.message)
        else:
            _log.warning("adopted from the kernel", owner=str(owner), address=address)

    def attached(self) -> Sequence[Attached]:
        return [self._attached(lease) for lease in self._pool.leases()]

    def _attached(self, lease: Lease) -> Attached:
        owner = lease.owner
        endpoint = Endpoint(
            host_device=host_device(owner.container_id, owner.interface_name),
            netns=lease.attributes.get("netns", ""),
            device=owner.interface_name,
            address="" if ":" in lease.address else lease.address,
            address6=lease.address if ":" in lease.address else lease.attributes.get(ADDRESS6, ""),
            mac=pod_mac(lease.address),
            mtu=self._mtu_of(lease.interface_id),
            label=f"{owner} {lease.attributes.get('network', '')} {lease.attributes.get('netns', '')} {lease.pod}",
        )
        return Attached(lease, endpoint)

    @contextmanager
    def _alone(self, owner: Owner) -> Iterator[None]:
        key = owner.container_id
        with self._locks_lock:
            lock, users = self._locks.setdefault(key, (threading.Lock(), []))
            users.append(None)
        try:
            with lock:
                yield
        finally:
            with self._locks_lock:
                users.pop()
                if not users:
                    self._locks.pop(key, None)
