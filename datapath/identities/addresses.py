"""Who has which address: the cluster, the node's own pods and the node itself, brought into the maps of the programs.

Four parties know of addresses. Of two that claim one, the nearer is right:

    this node       its own addresses                    TARGET_HOST
    its pods        as they are wired                    TARGET_POD
    other nodes     as the registry tells                TARGET_REMOTE_NODE
    their pods      as the registry tells                TARGET_REMOTE_POD

Each change is compared with what the kernel holds, and only differences are written: one address, one update. After a
restart what a former life wrote is read back; what it knew of other nodes holds until the registry has told everything.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from datapath import layout
from datapath.errors import BpfError
from datapath.identities.cidrs import CidrTable, range_key
from datapath.identities.model import Change, ClusterEndpoint, ClusterNode, ClusterState, EndpointKey
from datapath.identities.numbers import NodeNumbers
from datapath.layout import Target, address_bytes
from datapath.maps import MapLike, slices

# Under this name the book wants ranges of a CidrTable.
NODES: Final = "nodes"
NATIVE: Final = "native"
TUNNEL: Final = "tunnel"
DIRECT: Final = "direct"
# Values are kept to be used again: most pods of a node share theirs with others.
_MOST_TARGETS: Final = 100_000
_BATCH: Final = 32_768
_MAPPED: Final = bytes(10) + b"\xff\xff"


@dataclass(frozen=True, slots=True)
class Reach:
    """How packets for pods of a node go, by family: flags of their targets and the node's number."""

    flags4: int = 0
    node4: int = 0
    flags6: int = 0
    node6: int = 0


_LOCAL: Final = Reach()
_NOWHERE: Final = Reach(layout.TARGET_TUNNEL, 0, layout.TARGET_TUNNEL, 0)


@dataclass(slots=True)
class _Layers:
    """Targets by address; the first that knows an address is right."""

    own: dict[bytes, bytes] = field(default_factory=dict)
    pods: dict[bytes, bytes] = field(default_factory=dict)
    nodes: dict[bytes, bytes] = field(default_factory=dict)
    remote: dict[bytes, bytes] = field(default_factory=dict)

    def of(self, address: bytes) -> bytes | None:
        for layer in (self.own, self.pods, self.nodes, self.remote):
            found = layer.get(address)
            if found is not None:
                return found
        return None

    def merged(self) -> dict[bytes, bytes]:
        return {**self.remote, **self.nodes, **self.pods, **self.own}


class AddressBook:
    """Thread-safe. Every method that changes something returns true if a decision made before may be wrong now: raise
    the generation. All raise BpfRefused if the kernel refuses; the next call then compares everything.

    :param node: this node's name.
    :param routing: how packets reach pods of other nodes: "native", "tunnel" or "direct".
    """

    def __init__(self, addresses: MapLike, cidrs: CidrTable, nodes: MapLike, node: str, routing: str) -> None:
        self._addresses = addresses
        self._cidrs = cidrs
        self._node = node
        self._routing = str(routing)
        self._lock = threading.RLock()
        self._numbers = NodeNumbers(nodes)
        self._layers = _Layers()
        self._reach: dict[str, Reach] = {}
        self._owners: dict[bytes, EndpointKey] = {}
        self._targets: dict[tuple[int, str, bool], bytes] = {}
        self._held = self._read()
        self._unsure = False  # a write failed half-way
        self._complete = False  # the registry has told everything once
        # What cannot be brought into force, one sentence by its subject.
        self.problems: dict[str, str] = {}
        for address, value in self._held.items():
            if value[0] == layout.TARGET_HOST:
                self._layers.own[address] = value
            elif value[0] == layout.TARGET_POD:
                self._layers.pods[address] = value

    def __len__(self) -> int:
        """Addresses that the kernel holds."""
        return len(self._held)

    def set_own(self, addresses: Collection[str]) -> bool:
        """The node's own addresses, all of them."""
        value = Target(layout.TARGET_HOST, identity=layout.IDENTITY_HOST).pack()
        with self._lock:
            own = dict.fromkeys(map(address_bytes, addresses), value)
            touched = own.keys() ^ self._layers.own.keys()
            self._layers.own = own
            return self._write(touched)

    def set_pod(self, addresses: Collection[str], target: Target) -> bool:
        """A pod of this node."""
        value = target.pack()
        with self._lock:
            touched = [address_bytes(address) for address in addresses]
            self._layers.pods.update(dict.fromkeys(touched, value))
            return self._write(touched)

    def forget_pod(self, addresses: Collection[str], ifindex: int) -> bool:
        """Forgets those addresses that are still this pod's."""
        with self._lock:
            touched = []
            for address in map(address_bytes, addresses):
                value = self._layers.pods.get(address)
                if value is not None and Target.unpack(value).ifindex == ifindex:
                    del self._layers.pods[address]
                    touched.append(address)
            return self._write(touched)

    def take(self, state: ClusterState) -> bool:
        """What is new in the cluster, or all of it. What entries refer to comes before them, and goes after them."""
        with self._lock:
            nodes_changed = bool(state.node_changes) or state.whole
            touched: set[bytes] = set()
            moved: set[str] = set()
            if nodes_changed:
                needs = {name: _needs(one, self._routing) for name, one in state.nodes.items() if name != self._node}
                lacking = self._numbers.claim({address for one in needs.values() for address in one})
                self._note("nodes", f"{lacking} addresses of nodes got no number: the map is full" if lacking else "")
                moved = self._take_reach(state.nodes)
                touched |= self._take_nodes(state.nodes)
            if state.whole:
                self._take_all(state.endpoints)
                self._complete = True
            else:
                touched |= self._take_changes(state.endpoint_changes)
                touched |= self._take_moved(state.endpoints, moved)
            changed = self._write(None if state.whole else touched)
            if nodes_changed:
                changed |= self._cidrs.set(NODES, self._ranges(state.nodes))
                self._numbers.keep({address for one in needs.values() for address in one})
            return changed

    def number_of(self, address: str) -> int:
        """Number of another node's address; 0: none."""
        with self._lock:
            return self._numbers.get(address_bytes(address))

    def _take_reach(self, nodes: Mapping[str, ClusterNode]) -> set[str]:
        """Names of nodes that are reached otherwise than before."""
        before, self._reach = (
            self._reach,
            {name: _reach(one, self._routing, self._numbers) for name, one in nodes.items() if name != self._node},
        )
        moved = {name for name in before.keys() | self._reach.keys() if before.get(name) != self._reach.get(name)}
        if moved:
            self._targets.clear()
        return moved

    def _take_nodes(self, nodes: Mapping[str, ClusterNode]) -> set[bytes]:
        value = Target(layout.TARGET_REMOTE_NODE, identity=layout.IDENTITY_REMOTE_NODE).pack()
        others = (one for name, one in nodes.items() if name != self._node)
        found = {address: value for one in others for address in _parsed(one.addresses)}
        before, self._layers.nodes = self._layers.nodes, found
        return before.keys() ^ found.keys()

    def _ranges(self, nodes: Mapping[str, ClusterNode]) -> dict[str, Target]:
        """Where pods are that nobody has told of by address."""
        found = {}
        for name, one in nodes.items():
            reach = self._reach.get(name, _LOCAL)
            for text in one.pod_cidrs:
                if not _is_range(text):
                    self._note(name, f"{text!r}, where {name} says its pods are, is no range")
                    continue
                flags, number = (reach.flags6, reach.node6) if ":" in text else (reach.flags4, reach.node4)
                found[text] = Target(
                    layout.TARGET_RANGE,
                    layout.TARGET_CLUSTER | flags,
                    identity=layout.IDENTITY_UNMANAGED,
                    node=number,
                )
        return found

    def _take_all(self, endpoints: Mapping[EndpointKey, ClusterEndpoint]) -> None:
        remote: dict[bytes, bytes] = {}
        owners: dict[bytes, EndpointKey] = {}
        own, parse, value_of = self._node, socket.inet_pton, self._targets
        for key, one in endpoints.items():  # 100,000 of them: no call that can be done without
            node = one.node
            if node == own:
                continue
            for text in one.addresses:
                six = ":" in text
                try:
                    address = parse(socket.AF_INET6, text) if six else _MAPPED + parse(socket.AF_INET, text)
                except (OSError, ValueError):
                    continue
                remote[address] = value_of.get((one.identity, node, six)) or self._value(one.identity, node, six)
                owners[address] = key
        self._layers.remote, self._owners = remote, owners

    def _take_changes(self, changes: Mapping[EndpointKey, Change[ClusterEndpoint]]) -> set[bytes]:
        touched: set[bytes] = set()
        for key, change in changes.items():
            before, after = change.before, change.after
            if before is not None:
                for address in _parsed(before.addresses):
                    if self._owners.get(address) == key:  # another may have it by now
                        del self._owners[address], self._layers.remote[address]
                        touched.add(address)
            if after is not None and after.node != self._node:
                for address in _parsed(after.addresses):
                    self._owners[address] = key
                    self._layers.remote[address] = self._value_at(after, address)
                    touched.add(address)
        return touched

    def _take_moved(self, endpoints: Mapping[EndpointKey, ClusterEndpoint], nodes: Collection[str]) -> set[bytes]:
        """Pods of nodes that are reached otherwise now."""
        touched: set[bytes] = set()
        if not nodes:
            return touched
        for key, one in endpoints.items():
            if one.node in nodes:
                for address in _parsed(one.addresses):
                    if self._owners.get(address) == key:
                        self._layers.remote[address] = self._value_at(one, address)
                        touched.add(address)
        return touched

    def _value(self, identity: int, node: str, six: bool) -> bytes:
        """Target of a pod of another node; most pods share theirs with others."""
        value = self._targets.get((identity, node, six))
        if value is None:
            reach = self._reach.get(node)
            if reach is None:  # its node is not known yet
                reach = _NOWHERE if self._routing == TUNNEL else _LOCAL
            flags, number = (reach.flags6, reach.node6) if six else (reach.flags4, reach.node4)
            value = Target(layout.TARGET_REMOTE_POD, flags, identity=identity, node=number).pack()
            if len(self._targets) >= _MOST_TARGETS:
                self._targets.clear()
            self._targets[identity, node, six] = value
        return value

    def _value_at(self, one: ClusterEndpoint, address: bytes) -> bytes:
        return self._value(one.identity, one.node, not address.startswith(_MAPPED))

    def _write(self, touched: Collection[bytes] | None) -> bool:
        """Brings these addresses into the kernel; None: all."""
        held = self._held
        if touched is None or self._unsure:
            wanted = self._layers.merged()
            update = {address: value for address, value in wanted.items() if held.get(address) != value}
            gone = [address for address in held.keys() - wanted.keys() if self._complete or _is_local(held[address])]
        else:
            update, gone = {}, []
            for address in touched:
                value = self._layers.of(address)
                if value is None:
                    if address in held:
                        gone.append(address)
                elif held.get(address) != value:
                    update[address] = value
        stale = bool(update) or any(_is_local(held[address]) for address in gone)
        try:
            self._unsure = True
            for some in _parts(gone):  # first: they make room
                self._addresses.delete_batch(b"".join(some), len(some))
            for some in _parts(list(update)):
                self._addresses.update_batch(b"".join(some), b"".join(map(update.__getitem__, some)), len(some))
            self._unsure = False
        except BpfError:
            self._held = self._read()
            raise
        held.update(update)
        for address in gone:
            del held[address]
        return stale

    def _read(self) -> dict[bytes, bytes]:
        held: dict[bytes, bytes] = {}
        for keys, values, count in self._addresses.keys_batches():
            held.update(zip(slices(keys, 16, count), slices(values, Target.SIZE, count), strict=True))
        return held

    def _note(self, subject: str, problem: str) -> None:
        if problem:
            self.problems[subject] = problem
        else:
            self.problems.pop(subject, None)


def _reach(node: ClusterNode, routing: str, numbers: NodeNumbers) -> Reach:
    mode = _mode(node, routing)
    if mode == NATIVE:
        return _LOCAL
    flag = layout.TARGET_TUNNEL if mode == TUNNEL else layout.TARGET_DIRECT
    ends = _ends(node, mode)
    return Reach(flag, numbers.get(ends[0]), flag, numbers.get(ends[1]))


def _mode(node: ClusterNode, routing: str) -> str:
    """A node says how its pods are found; a node without a tunnel, or in a network that knows all pods, cannot
    follow."""
    if routing == NATIVE or (routing == DIRECT and node.routing_mode == TUNNEL):
        return routing
    return node.routing_mode or routing


def _ends(node: ClusterNode, mode: str) -> tuple[bytes, bytes]:
    """Where packets for its IPv4 and IPv6 pods are sent; none: NO_ADDRESS. A tunnel carries both families."""
    addresses = _parsed(node.addresses)
    if mode == TUNNEL:
        tunnel = (_parsed((node.tunnel_address,)) if node.tunnel_address else addresses)[:1] or [layout.NO_ADDRESS]
        return tunnel[0], tunnel[0]
    four = next((one for one in addresses if one.startswith(_MAPPED)), layout.NO_ADDRESS)
    six = next((one for one in addresses if not one.startswith(_MAPPED)), layout.NO_ADDRESS)
    return four, six


def _needs(node: ClusterNode, routing: str) -> set[bytes]:
    """Addresses of a node that entries refer to."""
    mode = _mode(node, routing)
    return set() if mode == NATIVE else set(_ends(node, mode)) - {layout.NO_ADDRESS}


def _parsed(addresses: Iterable[str]) -> list[bytes]:
    """What is no address is passed over: one wrong word of another node must not keep all others out."""
    found = []
    for text in addresses:
        try:
            found.append(address_bytes(text))
        except (OSError, ValueError):
            continue
    return found


def _is_range(text: str) -> bool:
    try:
        range_key(text)
    except ValueError:
        return False
    return True


def _is_local(value: bytes) -> bool:
    return value[0] in (layout.TARGET_HOST, layout.TARGET_POD)


def _parts(addresses: list[bytes]) -> Iterator[list[bytes]]:
    return (addresses[start : start + _BATCH] for start in range(0, len(addresses), _BATCH))
