"""The datapath of one node: programs, maps and devices, kept as the node and the cluster want them.

    what is told                     what is brought into force
    pods come and go                 endpoints, addresses, filters at their devices
    the cluster changes              addresses, identities, other nodes, routes to their pods, next hops
    devices, addresses, routes ...   devices map, links at devices, own addresses, the overlay, next hops

Whatever the programs remember of a flow is dropped by raising the generation: each flow is then decided anew, once.
Everything here blocks, and may come from any thread. What the kernel holds goes on when this ends.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

from datapath import layout
from datapath.acceleration.cookies import cookie_of
from datapath.acceleration.sockmap import SockmapAcceleration
from datapath.config import DatapathConfig, RoutingMode
from datapath.conntrack.evictions import created_of
from datapath.conntrack.gc import Collector, Pass
from datapath.conntrack.sizing import sizes
from datapath.devices import observe as network
from datapath.devices.kernel import KernelDevices
from datapath.devices.select import DeviceSelection
from datapath.devices.vxlan import KernelOverlay
from datapath.errors import DatapathError, NotLoaded
from datapath.identities.addresses import NODES, AddressBook
from datapath.identities.cidrs import CidrTable
from datapath.identities.model import ClusterNode, ClusterState, EndpointKey
from datapath.layout import address_bytes, mac_bytes
from datapath.loader import links
from datapath.loader.clock import Clock
from datapath.loader.maps import Map
from datapath.loader.pins import LINKS
from datapath.local_pods import LocalPods
from datapath.masquerade.agent_file import Watched
from datapath.masquerade.ranges import MASQUERADE, Ranges
from datapath.model import (
    HOST_MAC,
    OVERLAY_DEVICE,
    OVERLAY_MAC,
    POD_GATEWAY,
    POD_GATEWAY6,
    ExternalDevice,
    NextHop,
    NodePods,
)
from datapath.neighbours.kernel import KernelNeighbours
from datapath.neighbours.plan import next_hops
from datapath.netlink import NetlinkSocket
from datapath.network_events import Changes
from datapath.policy.model import EndpointPolicy
from datapath.policy.writer import PolicyReport, PolicyWriter
from datapath.prefilter.prefilter import HOOK as PREFILTER_HOOK
from datapath.prefilter.prefilter import Prefilter
from datapath.programs import NodePrograms
from datapath.raises import Raises
from datapath.routes.nodes import KernelNodeRoutes
from datapath.runtime import RuntimeSettings

_LPM_TRIE: Final = 11
_NO_PREALLOC: Final = 1
_POLICY_ENTRIES: Final = 16384
_NO_FILE_S: Final = 3600.0
_FILE: Final = "masquerade_file"
_SOCKMAP: Final = "sockmap"


@dataclass(frozen=True, slots=True)
class Underlay:
    """What was found and done when devices were last looked at.

    :ivar problems: what is not as it should be, one sentence by its subject.
    """

    selection: DeviceSelection = DeviceSelection()
    overlay_index: int = 0
    overlay_mtu: int = 0
    problems: Mapping[str, str] = field(default_factory=dict)


class Datapath:
    """`start` comes first, `close` last. `pods` implements ports.PodPrograms.

    :param node: this node's name, which tells its own things from those of others.
    """

    def __init__(self, config: DatapathConfig, node: str) -> None:
        self.config = config
        self._node = node
        memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        self._sizes = sizes(memory_bytes, config.sizing)
        self.programs = NodePrograms(config.bpf_dir, self._sizes)
        self._devices = KernelDevices(config.devices)
        self._overlay = KernelOverlay()
        self._node_routes = KernelNodeRoutes()
        self._neighbours = KernelNeighbours()
        self._lock = threading.RLock()  # of everything that looks at devices or at the cluster
        self._constants: layout.Config | None = None
        self._identities: dict[str, tuple[EndpointKey, int]] = {}
        self._nodes: dict[str, ClusterNode] = {}
        self._managed = True
        self.prefilter: Prefilter | None = None
        self._known_cookies: dict[int, int] = {}
        self._file = Watched(config.masquerade_file) if config.masquerade_file else None
        self._accelerated = False
        self.underlay = Underlay()
        self._problems: dict[str, Mapping[str, str]] = {}  # by who told of them last
        self._noting = threading.Lock()  # of those two; pods' changes come with their own lock held, not with _lock
        # When the collector last ended a pass, seconds since 1970.
        self.collected_at_s: float | None = None
        self.started_at_s = time.time()
        self.clock = Clock()

    def start(self) -> None:
        """Loads the programs and gives them to every device that a former life had attached to.

        Raises VerifierRefused, LayoutChanged, NotLoaded, BpfRefused, KernelRefused."""
        with self._lock:
            selection = self._devices.detect()
            self._load(self._wanted_constants(selection, self._ensure_overlay(selection)))
            maps = self.programs.maps
            self.runtime = RuntimeSettings(maps["runtime"])
            self._raises = Raises(self.runtime.raise_generation)
            table = CidrTable(maps["cidrs"], (MASQUERADE, NODES))
            self.book = AddressBook(maps["addresses"], table, maps["nodes"], self._node, self.config.routing)
            self._ranges = Ranges(table, self.config.cluster_cidrs, self.config.stack_cidrs)
            self.policies = PolicyWriter(maps["policies"], self._new_policy)
            self.collector = Collector(
                maps["flows"],
                maps["nat"],
                maps["fragments"],
                now_j=self.clock.now_j,
                fragment_j=self.clock.to_jiffies(self.config.timeouts.fragment_s),
                told=self._collected,
                created=created_of(maps["created"], layout.CREATED),
            )
            self.pods = LocalPods(
                lambda: self.programs.maps["endpoints"],
                self.programs,
                self.book,
                identity_of=self._identity_of,
                changed=self._pods_changed,
                gone=lambda address: self.collector.forget_address(address_bytes(address)),
            )
            self.look_at_ranges()
            self.runtime.set(
                trace_every=self.config.trace_every,
                flow_events=self.config.flow_events,
                verdict_events=self.config.verdict_events,
                drop_events_per_tick=self.config.drop_events_per_tick,
                icmp_errors_per_tick=self.config.icmp_errors_per_tick,
            )
            self.pods.restore()
            self._start_extras()
            self.look()
            self.decide_anew()

    def _start_extras(self) -> None:
        """What is off unless it is asked for; what a former life had on is switched off."""
        root = self.config.bpf_dir
        if self.config.prefilter:
            self.prefilter = Prefilter.opened(root, _needed, sizes=self._sizes)
        else:
            for path in (root / LINKS).glob(f"{PREFILTER_HOOK}-*"):
                links.pinned(path).detach()
        self.acceleration = SockmapAcceleration(root, rodata={"config": self.constants.pack()}, sizes=self._sizes)
        self._accelerate()

    def _accelerate(self) -> None:
        """What speeds things up must not keep them from going: without it, the stack carries everything."""
        with self._lock:
            self._accelerated = False
            problems: dict[str, str] = {}
            try:
                if self.config.sockmap_cgroup is None:
                    self.acceleration.disable()
                else:
                    self.acceleration.enable(self.config.sockmap_cgroup)
                    self.acceleration.follow(self._cookies())
                    self._accelerated = True
            except DatapathError as error:
                problems[_SOCKMAP] = f"local TCP is not sped up: {error.message}"
            self._note("acceleration", problems)

    def close(self) -> None:
        self._raises.close()
        if self.prefilter is not None:
            self.prefilter.close()
        self.runtime.close()
        self.programs.close()
        self.clock.close()

    @property
    def constants(self) -> layout.Config:
        """Those that the programs in force were loaded with."""
        if self._constants is None:
            raise NotLoaded("the programs are not loaded yet")
        return self._constants

    def pod_mtu(self, device_mtu: int) -> int:
        """The most bytes that a packet of a pod may have to leave whole by a device of this MTU; by any, if that is 0.
        0: no device leads out."""
        if self.underlay.overlay_mtu:
            return min(filter(None, (device_mtu, self.underlay.overlay_mtu)))
        return device_mtu or min((one.mtu for one in self.underlay.selection.devices), default=0)

    def decide_anew(self) -> None:
        """What the programs remember of flows may be wrong: they ask again, from before this returns."""
        self._raises.now()

    def look(self) -> Underlay:
        """Compares devices, own addresses, the overlay and next hops with the kernel. Raises DatapathError."""
        with self._lock:
            problems: dict[str, str] = {}
            selection = self._devices.detect()
            overlay = self._ensure_overlay(selection)
            constants = self._wanted_constants(selection, overlay)
            changed = constants != self._constants
            if changed:
                self._load(constants)
            changed |= self._write_devices(selection, overlay)
            external = {one.name: one.index for one in selection.devices if one.has_ethernet}
            problems |= self.programs.attach_devices(external, {OVERLAY_DEVICE: overlay[0]} if overlay[0] else {})
            if self.prefilter is not None:
                problems |= self.prefilter.attach(external)
            for one in selection.devices:
                if not one.has_ethernet:
                    problems[one.name] = "it has no Ethernet header: the node's stack carries its packets"
            changed |= self.book.set_own({one.address for one in _own()})
            self._note("devices", problems, Underlay(selection, overlay[0], overlay[1]))
            self._note("nodes", self._reach_nodes(selection))
            if changed:
                self.decide_anew()
            return self.underlay

    def take(self, state: ClusterState) -> Mapping[str, str]:
        """Brings what is new in the cluster into force: for new flows at once, for known ones within Raises' time.
        Returns what is not, by subject. Raises BpfError."""
        with self._lock:
            own = self._note_identities(state)
            changed = self.book.take(state)
            self.pods.identify(own)
            if state.node_changes:
                self._nodes = {name: one for name, one in state.nodes.items() if name != self._node}
                self._note("nodes", self._reach_nodes(self.underlay.selection))
            self._note("cluster", self.book.problems)
            if changed:
                self._raises.soon()
            return self.underlay.problems

    def changed(self, changes: Changes) -> None:
        """News of the node's network. Raises KernelRefused, BpfError."""
        if changes.devices or changes.routes or changes.lost:
            self.look()
        if changes.routes or changes.next_hops or changes.lost:
            self.decide_anew()

    def refresh(self) -> None:
        """To be called twice a minute: what no event tells of. Raises KernelRefused, BpfError."""
        self.look()
        if self.config.sockmap_cgroup is not None and not self._accelerated:
            self._accelerate()
        if not self._managed:
            with self._lock:
                self._neighbours.refresh(self._wanted_hops(self.underlay.selection))

    def look_at_ranges(self) -> float:
        """Reads the file of ranges that are not masqueraded towards. Returns after how many seconds to look again.

        Raises BpfRefused: too many ranges; those before stay in force."""
        if self._file is None:
            if self._ranges.apply():
                self.decide_anew()
            return _NO_FILE_S
        reading = self._file.look()
        with self._lock:
            self._note("file", {_FILE: reading.problem} if reading.problem else {})
            if self._ranges.apply(reading.file):
                self.decide_anew()
        return reading.file.resync_interval_s

    def enforce(self, policies: Mapping[int, EndpointPolicy]) -> PolicyReport:
        """The whole policy of this node's pods, by their numbers. Who is not named is not restricted.

        Raises BpfRefused.

        Rules are in force before they are enforced, and enforced before established flows are asked again. Where rules
        cannot be written, those before hold; a pod that had none is denied everything that is to be enforced."""
        with self._lock:
            report = self.policies.apply(policies)
            self.pods.enforce({number: one.enforcement.target_flags for number, one in policies.items()})
            self.decide_anew()
            return report

    def _note(self, who: str, problems: Mapping[str, str], found: Underlay | None = None) -> None:
        with self._noting:
            self._problems[who] = dict(problems)
            together = {subject: why for one in self._problems.values() for subject, why in one.items()}
            self.underlay = replace(found or self.underlay, problems=together)

    def _collected(self, _: Pass) -> None:
        self.collected_at_s = time.time()

    def _pods_changed(self) -> None:
        self.decide_anew()
        if self._accelerated:
            try:
                self.acceleration.follow(self._cookies())
            except DatapathError as error:
                self._accelerated = False  # the next refresh tries again
                self._note("acceleration", {_SOCKMAP: f"not all pods are sped up: {error.message}"})

    def _cookies(self) -> Mapping[str, int]:
        """Network namespaces of the pods, by address."""
        found: dict[str, int] = {}
        pods = [pod for pod in self.pods.pods() if pod.netns]
        self._known_cookies = {pod.index: self._known_cookies.get(pod.index, 0) for pod in pods}
        for pod in pods:
            if not self._known_cookies[pod.index]:
                with suppress(DatapathError):  # its container is going
                    self._known_cookies[pod.index] = cookie_of(pod.netns)
            if cookie := self._known_cookies[pod.index]:
                found |= dict.fromkeys(pod.addresses, cookie)
        return found

    def _load(self, constants: layout.Config) -> None:
        self.programs.load(constants)
        self._constants = constants

    def _new_policy(self) -> Map:
        return Map.create(
            _LPM_TRIE, layout.POLICY_KEY_SIZE, layout.POLICY_SIZE, _POLICY_ENTRIES, flags=_NO_PREALLOC, name="policy"
        )

    def _ensure_overlay(self, selection: DeviceSelection) -> tuple[int, int]:
        """Index and MTU of the overlay; zeros: there is none."""
        if self.config.routing is not RoutingMode.TUNNEL:
            return 0, 0
        mtu = min((one.mtu for one in selection.devices), default=1500)
        family = 4 if any(one.addresses4 for one in selection.devices) else 6
        overlay = self._overlay.ensure(underlay_mtu=mtu, port=self.config.tunnel_port, underlay_family=family)
        return overlay.index, overlay.mtu

    def _wanted_constants(self, selection: DeviceSelection, overlay: tuple[int, int]) -> layout.Config:
        config, jiffies, timeouts = self.config, self.clock.to_jiffies, self.config.timeouts
        speaks4 = next((one.masquerade4 for one in selection.devices if one.masquerade4), POD_GATEWAY)
        speaks6 = next((one.masquerade6 for one in selection.devices if one.masquerade6), POD_GATEWAY6)
        flags = layout.CONFIG_IPV4
        flags |= layout.CONFIG_IPV6 if config.ipv6 else 0
        flags |= layout.CONFIG_ENDPOINT_ROUTES if config.endpoint_routes else 0
        flags |= layout.CONFIG_MASQUERADE4 if config.masquerade4 else 0
        flags |= layout.CONFIG_MASQUERADE6 if config.masquerade6 else 0
        return layout.Config(
            hz=self.clock.hz,
            tunnel_ifindex=overlay[0],
            flags=flags,
            tcp_open_j=jiffies(timeouts.tcp_open_s),
            tcp_opening_j=jiffies(timeouts.tcp_opening_s),
            tcp_closing_j=jiffies(timeouts.tcp_closing_s),
            other_open_j=jiffies(timeouts.other_open_s),
            other_opening_j=jiffies(timeouts.other_opening_s),
            fragment_j=jiffies(timeouts.fragment_s),
            recheck_j=jiffies(config.recheck_s),
            nat_port_low=config.nat_ports[0],
            nat_port_high=config.nat_ports[1],
            host_mac=mac_bytes(HOST_MAC),
            tunnel_mac=mac_bytes(OVERLAY_MAC),
            gateway4=address_bytes(speaks4),
            gateway6=address_bytes(speaks6),
        )

    def _write_devices(self, selection: DeviceSelection, overlay: tuple[int, int]) -> bool:
        wanted = {one.index: _device(one) for one in selection.devices}
        if overlay[0]:
            wanted[overlay[0]] = layout.Device(
                flags=layout.DEVICE_OVERLAY, mtu=overlay[1], mac=mac_bytes(OVERLAY_MAC),
                masquerade4=layout.NO_ADDRESS, masquerade6=layout.NO_ADDRESS,
            )  # fmt: skip
        devices = self.programs.maps["devices"]
        have = {int.from_bytes(key, "little"): value for key, value in devices.items()}
        changed = False
        for index in have.keys() - wanted.keys():
            changed |= devices.delete(index.to_bytes(4, "little"))
        for index, device in wanted.items():
            if have.get(index) != device.pack():
                devices.update(index.to_bytes(4, "little"), device.pack())
                changed = True
        return changed

    def _note_identities(self, state: ClusterState) -> Collection[str]:
        """Identities of this node's own pods. Returns addresses whose identity may be another now."""
        touched: list[str] = []
        for key, change in state.endpoint_changes.items():
            before = change.before if change.before and change.before.node == self._node else None
            after = change.after if change.after and change.after.node == self._node else None
            for address in before.addresses if before else ():
                # Another of our pods may have it by now, and have been told of first.
                if address in self._identities and self._identities[address][0] == key:
                    del self._identities[address]
                touched.append(address)
            if after is not None:
                self._identities.update(dict.fromkeys(after.addresses, (key, after.identity)))
                touched += after.addresses
        return touched

    def _identity_of(self, address: str) -> int:
        found = self._identities.get(address)
        return found[1] if found else 0

    def _wanted_hops(self, selection: DeviceSelection) -> Collection[NextHop]:
        nodes = [address for one in self._nodes.values() for address in one.addresses]
        with NetlinkSocket() as connection:
            return next_hops(selection.devices, network.kernel_routes(connection), nodes)

    def _reach_nodes(self, selection: DeviceSelection) -> dict[str, str]:
        """Next hops, and routes of the node's own stack to pods of other nodes."""
        problems: dict[str, str] = {}
        report = self._neighbours.reconcile(self._wanted_hops(selection))
        self._managed = report.managed
        pods = [NodePods(one.name, one.addresses, one.pod_cidrs) for one in self._nodes.values() if one.pod_cidrs]
        try:
            if self.config.routing is RoutingMode.TUNNEL:
                routes = self._node_routes.tunnel(pods)
            elif self.config.routing is RoutingMode.DIRECT:
                routes = self._node_routes.direct(pods)
            else:
                routes = self._node_routes.clear()
        except DatapathError as error:
            return {"routes": error.message}
        problems.update(routes.problems)
        return problems


def _device(one: ExternalDevice) -> layout.Device:
    return layout.Device(
        masquerade4=address_bytes(one.masquerade4),
        masquerade6=address_bytes(one.masquerade6),
        flags=0 if one.has_ethernet else layout.DEVICE_NO_ETHERNET,
        mtu=min(one.mtu, 65535),
        mac=mac_bytes(one.mac),
    )


def _own() -> Collection[network.KernelAddress]:
    """Every address of the node's own namespace that a packet may be for."""
    with NetlinkSocket() as connection:
        return network.kernel_addresses(connection)


def _needed() -> Collection[str]:
    """Addresses without which the node would be cut off: its own, and those of its gateways."""
    with NetlinkSocket() as connection:
        gateways = {one.gateway for one in network.kernel_routes(connection) if one.gateway}
        return {one.address for one in network.kernel_addresses(connection)} | gateways


__all__ = ["Datapath", "Underlay"]
