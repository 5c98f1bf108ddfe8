"""The kernel's own answers to what an administrator asks: maps, programs and devices as they are now."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Final

from datapath import layout
from datapath.conntrack import flows
from datapath.errors import InvalidFilter, UnknownPod
from datapath.events import words
from datapath.events.filters import Filter, Names, compile_filter, pod_name
from datapath.events.hub import EventHub, Subscription
from datapath.identities.cidrs import range_text
from datapath.layout import address_bytes, address_text, mac_text
from datapath.loader import maps as kinds
from datapath.loader.maps import Map
from datapath.maps import slices
from datapath.masquerade import nat
from datapath.prefilter.prefilter import Prefilter as XdpPrefilter
from datapath.service import Datapath
from datapath.trace.dryrun import DryRun, Sender, destination_of
from datapath.view.model import (
    AddressFacts,
    Attachment,
    Collected,
    DeniedRange,
    DeviceFacts,
    EndpointFacts,
    EventTotals,
    Feature,
    FlowFacts,
    HookCount,
    MapFacts,
    PolicyFacts,
    Prefilter,
    ProgramFacts,
    Selection,
    Status,
    Traced,
    TranslationFacts,
    Trouble,
)

_TYPES: Final[Mapping[int, str]] = {
    kinds.HASH: "hash",
    kinds.ARRAY: "array",
    kinds.PERCPU_ARRAY: "percpu_array",
    kinds.LRU_HASH: "lru_hash",
    kinds.LPM_TRIE: "lpm_trie",
    kinds.HASH_OF_MAPS: "hash_of_maps",
    kinds.RINGBUF: "ringbuf",
}
_COUNTED: Final = frozenset({kinds.HASH, kinds.LRU_HASH, kinds.LPM_TRIE, kinds.HASH_OF_MAPS})
_KINDS: Final[Mapping[int, str]] = {
    layout.TARGET_POD: "pod",
    layout.TARGET_REMOTE_POD: "remote-pod",
    layout.TARGET_HOST: "host",
    layout.TARGET_REMOTE_NODE: "remote-node",
    layout.TARGET_RANGE: "range",
    layout.TARGET_STACK: "stack",
}
_FLAGS: Final[Mapping[int, str]] = {
    layout.TARGET_INGRESS_POLICY: "ingress-policy",
    layout.TARGET_EGRESS_POLICY: "egress-policy",
    layout.TARGET_CLUSTER: "cluster",
    layout.TARGET_TUNNEL: "tunnel",
    layout.TARGET_DIRECT: "direct",
    layout.TARGET_INGRESS_AUDIT: "ingress-audit",
    layout.TARGET_EGRESS_AUDIT: "egress-audit",
    layout.TARGET_ANY_SOURCE: "any-source",
}
_VERDICTS: Final[Mapping[int, str]] = layout.VERDICT_WORDS


class NodeNames:
    """Whose an address or a device is, from memory; implements events.filters.Names.

    :param pods_elsewhere: pods of other nodes by their addresses.
    """

    def __init__(self, datapath: Datapath, pod_of: Callable[[str], str], pods_elsewhere: Mapping[str, str]) -> None:
        self._datapath = datapath
        self._pod_of = pod_of
        self._elsewhere = pods_elsewhere
        self._devices: dict[int, str] = {}

    def pod_at(self, address: bytes) -> str:
        text = address_text(address)
        return self._pod_of(text) or self._elsewhere.get(text, "")

    def pod_behind(self, ifindex: int) -> str:
        pod = self._datapath.pods.at(ifindex)
        return self._pod_of(pod.addresses[0]) if pod is not None else ""

    def device(self, ifindex: int) -> str:
        name = self._devices.get(ifindex, "")
        if not name and ifindex:
            try:
                name = self._devices[ifindex] = socket.if_indextoname(ifindex)
            except OSError:
                return f"device-{ifindex}"
        return name


class KernelView:
    """Implements ports.DatapathView.

    :param pod_of: "namespace/name" of this node's pod that has an address, or empty.
    """

    def __init__(
        self,
        datapath: Datapath,
        hub: EventHub,
        names: Names,
        *,
        pod_of: Callable[[str], str],
        pods_elsewhere: Mapping[str, str],
        prefilter: XdpPrefilter | None,
    ) -> None:
        self._datapath = datapath
        self._hub = hub
        self._names = names
        self._pod_of = pod_of
        self._elsewhere = pods_elsewhere
        self._prefilter = prefilter
        self._dry_run: tuple[layout.Config, DryRun] | None = None
        self._tracing = threading.Lock()

    @property
    def names(self) -> Names:
        return self._names

    def status(self) -> Status:
        datapath, config = self._datapath, self._datapath.config
        collector, counts = datapath.collector, self._hub.counts()
        flows_table = collector.last.tables.get("flows")
        attached: dict[str, list[Attachment]] = {}
        for one in datapath.programs.attached():
            hook = words.hook_word(_HOOKS[one.program]) if one.program in _HOOKS else one.program
            attached.setdefault(one.program, []).append(Attachment(hook, one.device, one.by))
        return Status(
            mode="ebpf",
            kernel=os.uname().release,
            routing=config.routing.value,
            ipv6=config.ipv6,
            masquerade4=config.masquerade4,
            masquerade6=config.masquerade6,
            generation=datapath.runtime.generation,
            features=_features(datapath, self._prefilter is not None),
            programs=[
                ProgramFacts(name, "sched_cls", one.verified_instructions, attached.get(name, []))
                for name, one in sorted(datapath.programs.programs.items())
            ],
            devices=[one.name for one in datapath.underlay.selection.devices],
            endpoints=len(datapath.pods.pods()),
            collected=Collected(
                last_at_s=datapath.collected_at_s,
                interval_s=collector.interval_s,
                took_s=collector.last.seconds,
                seen=flows_table.entries if flows_table else 0,
                deleted=flows_table.deleted if flows_table else 0,
            ),
            events=EventTotals(
                counts.read, counts.lost, counts.suppressed, counts.subscribers, counts.lost_by_subscribers
            ),
            troubles=self._troubles(),
        )

    def maps(self) -> Sequence[MapFacts]:
        return [_map_facts(name, one) for name, one in sorted(self._datapath.programs.maps.items()) if "." not in name]

    def endpoints(self) -> Sequence[EndpointFacts]:
        pods = self._datapath.pods.pods()
        sums: dict[str, list[int]] = {one: [0, 0, 0, 0, 0] for pod in pods for one in pod.addresses}
        for flow in self.flows(Selection(addresses=tuple(sums))) if sums else ():
            for address, out, back in (
                (flow.source.address, flow.forth, flow.back),
                (flow.destination.address, flow.back, flow.forth),
            ):
                if (total := sums.get(address)) is not None:
                    for number, value in enumerate((1, out.packets, out.bytes, back.packets, back.bytes)):
                        total[number] += value
        found = []
        for pod in pods:
            total = [sum(column) for column in zip(*(sums[one] for one in pod.addresses), strict=True)] or [0] * 5
            found.append(
                EndpointFacts(
                    number=pod.index,
                    pod=self._pod_of(pod.addresses[0]),
                    addresses=pod.addresses,
                    ifindex=pod.index,
                    device=pod.device,
                    mac=mac_text(pod.target.mac),
                    identity=pod.target.identity,
                    flags=_flag_words(pod.target.flags),
                    mtu=pod.target.mtu,
                    flows=total[0],
                    packets_out=total[1],
                    bytes_out=total[2],
                    packets_in=total[3],
                    bytes_in=total[4],
                )
            )
        return found

    def flows(
        self, wanted: Selection, *, states: Collection[str] = (), order: str = "none", limit: int = 0
    ) -> Iterator[FlowFacts]:
        found = flows.listed(self._map("flows"), self._datapath.clock, self._names, wanted, states)
        return iter(flows.ordered(found, order, limit))

    def flush_flows(self, wanted: Selection) -> int:
        collector, clock = self._datapath.collector, self._datapath.clock
        return flows.flush(self._map("flows"), self._map("nat"), clock, self._names, wanted, told=collector.flushed)

    def translations(self, wanted: Selection) -> Iterator[TranslationFacts]:
        return nat.listed(self._map("nat"), self._datapath.clock, self._names, wanted)

    def counts(self) -> Sequence[HookCount]:
        found = []
        for key, value in self._map("counters").items():
            index = int.from_bytes(key, sys.byteorder)
            parts = [layout.Counter.unpack(one) for one in slices(value, layout.Counter.SIZE, len(value) // 16)]
            packets, total = sum(one.packets for one in parts), sum(one.byte_count for one in parts)
            if packets:
                found.append(HookCount(index // layout.DROP_REASONS, index % layout.DROP_REASONS, packets, total))
        return found

    def addresses(self, address: str = "") -> Sequence[AddressFacts]:
        names = self._node_names()
        exact, ranges = self._map("addresses"), self._map("cidrs")
        if not address:
            found = [self._address(address_text(key), value, names) for key, value in exact.items()]
            spans = [(range_text(key), value) for key, value in ranges.items()]
            spans.sort(key=lambda one: _range_order(one[0]))
            return [*found, *(self._address(text, value, names) for text, value in spans)]
        packed = address_bytes(address)
        found = []
        if (value := exact.lookup(packed)) is not None:
            found.append(self._address(address, value, names))
        covering = [
            (range_text(key), value) for key, value in ranges.items() if _covers(layout.CidrKey.unpack(key), packed)
        ]
        covering.sort(key=lambda one: -ip_network(one[0]).prefixlen)
        return [*found, *(self._address(text, value, names) for text, value in covering)]

    def policies(self, pod: str = "") -> Sequence[PolicyFacts]:
        wanted = pod_name(pod) if pod else ""
        pods = {one.index: self._pod_of(one.addresses[0]) for one in self._datapath.pods.pods()}
        if wanted and wanted not in pods.values():
            raise UnknownPod(f"{wanted} does not run on this node", field="pod", remedy="see `plimsoll pods list`")
        found = []
        for key, value in self._map("policies").items():
            number = int.from_bytes(key, sys.byteorder)
            name = pods.get(number, "")
            if wanted and name != wanted:
                continue
            with Map.by_id(int.from_bytes(value, sys.byteorder)) as inner:
                found += [_policy(name, number, entry, verdict) for entry, verdict in inner.items()]
        return sorted(found, key=lambda one: (one.pod, one.endpoint, one.direction, one.identity, one.rule))

    def devices(self) -> Sequence[DeviceFacts]:
        attached: dict[str, list[Attachment]] = {}
        for one in self._datapath.programs.attached():
            hook = words.hook_word(_HOOKS[one.program])
            attached.setdefault(one.device, []).append(Attachment(hook, one.device, one.by))
        found = []
        for key, value in self._map("devices").items():
            device = layout.Device.unpack(value)
            index = int.from_bytes(key, sys.byteorder)
            name = self._names.device(index)
            overlay = bool(device.flags & layout.DEVICE_OVERLAY)
            config = self._datapath.config
            found.append(
                DeviceFacts(
                    name=name,
                    ifindex=index,
                    kind="overlay" if overlay else "external",
                    mac=mac_text(device.mac),
                    mtu=device.mtu,
                    masquerade4=address_text(device.masquerade4) if config.masquerade4 else "",
                    masquerade6=address_text(device.masquerade6) if config.masquerade6 else "",
                    attachments=attached.get(name, []),
                )
            )
        return sorted(found, key=lambda one: one.ifindex)

    def trace(self, pod: str, destination: str, port: int, protocol: str) -> Traced:
        sender = self._sender(pod_name(pod))
        with self._tracing:
            # Loading the copy takes as long as loading the programs did: it is kept until they are loaded anew.
            constants = self._datapath.constants
            if self._dry_run is None or self._dry_run[0] != constants:
                self.close()
                made = DryRun.opened(self._datapath.config.bpf_dir, constants, self._names)
                self._dry_run = constants, made
            address = destination_of(destination, self._addresses_of, sender)
            return self._dry_run[1].run(sender, address, port, protocol)

    def close(self) -> None:
        """Lets go of what a trace has loaded."""
        if self._dry_run is not None:
            self._dry_run[1].close()
            self._dry_run = None

    def subscribe(self, wanted: Filter, notify: Callable[[], None]) -> Subscription:
        return self._hub.subscribe(compile_filter(wanted, self._names), notify)

    def prefilter(self) -> Prefilter:
        if self._prefilter is None:
            return Prefilter(in_force=False)
        ranges = [DeniedRange(one.cidr, one.number, one.packets, one.byte_count) for one in self._prefilter.list()]
        return Prefilter(in_force=True, ranges=ranges)

    def update_prefilter(
        self, add: Collection[str], delete: Collection[str], *, force: bool = False
    ) -> tuple[int, int]:
        if self._prefilter is None:
            raise InvalidFilter(
                "the prefilter is off", field="datapath.prefilter", remedy="set it to true, and restart the node daemon"
            )
        added = self._prefilter.add(add, force=force) if add else 0
        return added, self._prefilter.delete(delete) if delete else 0

    def _sender(self, wanted: str) -> Sender:
        for one in self._datapath.pods.pods():
            if self._pod_of(one.addresses[0]) == wanted:
                return Sender(wanted, one.index, one.target.mac, one.target.host_mac, one.addresses)
        raise UnknownPod(f"{wanted} does not run on this node", field="pod", remedy="see `plimsoll pods list`")

    def _addresses_of(self, pod: str) -> tuple[str, ...]:
        here = [one for pod_here in self._datapath.pods.pods() for one in pod_here.addresses]
        there = [address for address, name in self._elsewhere.items() if name == pod]
        return (*(one for one in here if self._pod_of(one) == pod), *there)

    def _map(self, name: str) -> Map:
        return self._datapath.programs.maps[name]

    def _troubles(self) -> list[Trouble]:
        found = [Trouble(subject, why) for subject, why in self._datapath.underlay.problems.items()]
        if self._datapath.collector.problem:
            found.append(Trouble("connections", f"expired ones stay: {self._datapath.collector.problem}"))
        for name, table in self._datapath.collector.last.tables.items():
            if table.pressure >= 0.9:
                remedy = f"raise datapath.map_ratio, or datapath.map_entries.{name}"
                evicted = self._datapath.collector.evicted[name]
                told = f"the map is {table.pressure:.0%} full: {evicted} old entries made room for new ones so far"
                found.append(Trouble(name, told, remedy))
        return found

    def _node_names(self) -> Mapping[int, str]:
        return {
            int.from_bytes(key, sys.byteorder): address_text(layout.Node.unpack(value).address)
            for key, value in self._map("nodes").items()
            if any(value)
        }

    def _address(self, text: str, value: bytes, nodes: Mapping[int, str]) -> AddressFacts:
        target = layout.Target.unpack(value)
        return AddressFacts(
            address=text,
            kind=_KINDS.get(target.kind, f"kind-{target.kind}"),
            identity=target.identity,
            pod="" if "/" in text else self._names.pod_at(address_bytes(text)),
            node=nodes.get(target.node, "") if target.node else "",
            flags=_flag_words(target.flags),
            device=self._names.device(target.ifindex) if target.ifindex else "",
        )


_HOOKS: Final[Mapping[str, int]] = {
    "from_pod": layout.HOOK_FROM_POD,
    "to_pod": layout.HOOK_TO_POD,
    "from_device": layout.HOOK_FROM_DEVICE,
    "to_device": layout.HOOK_TO_DEVICE,
    "from_overlay": layout.HOOK_FROM_OVERLAY,
    "to_overlay": layout.HOOK_TO_OVERLAY,
}


def _features(datapath: Datapath, prefilter: bool) -> list[Feature]:
    config = datapath.config
    by = {one.by for one in datapath.programs.attached() if one.program == "from_device"}
    ports = f"ports {config.nat_ports[0]}-{config.nat_ports[1]}"
    return [
        Feature("tcx", "tcx" in by, "" if "tcx" in by else "devices are attached to by clsact"),
        Feature("tunnel", bool(datapath.underlay.overlay_index), f"VXLAN on UDP port {config.tunnel_port}"),
        Feature("masquerade", config.masquerade4 or config.masquerade6, ports),
        Feature("endpoint-routes", config.endpoint_routes),
        Feature("prefilter", prefilter),
        Feature("sockmap", config.sockmap_cgroup is not None, str(config.sockmap_cgroup or "")),
    ]


def _map_facts(name: str, one: Map) -> MapFacts:
    entries = sum(count for _, _, count in one.keys_batches()) if one.type in _COUNTED else None
    return MapFacts(name, _TYPES.get(one.type, f"type-{one.type}"), entries, one.max_entries, _memory_bytes(one))


def _memory_bytes(one: Map) -> int:
    """As the kernel accounts it; see "memlock" in the descriptor's fdinfo."""
    for line in Path(f"/proc/self/fdinfo/{one.fd}").read_text().splitlines():
        if line.startswith("memlock:"):
            return int(line.split()[1])
    return 0


def _flag_words(flags: int) -> list[str]:
    return [word for flag, word in _FLAGS.items() if flags & flag]


def _range_order(text: str) -> tuple[int, int, int]:
    network = ip_network(text)
    return network.version, int(network.network_address), network.prefixlen


def _covers(key: layout.CidrKey, address: bytes) -> bool:
    shift = 128 - key.prefix_bits
    return int.from_bytes(key.address, "big") >> shift == int.from_bytes(address, "big") >> shift


def _policy(pod: str, endpoint: int, entry: bytes, value: bytes) -> PolicyFacts:
    key, verdict = layout.PolicyKey.unpack(entry), layout.Policy.unpack(value)
    free = layout.POLICY_PORT_BITS - max(key.prefix_bits, layout.POLICY_PROTOCOL_BITS)
    any_protocol = key.prefix_bits < layout.POLICY_PROTOCOL_BITS
    return PolicyFacts(
        pod=pod,
        endpoint=endpoint,
        direction="egress" if key.direction == layout.DIRECTION_EGRESS else "ingress",
        identity=key.identity,
        protocol="" if any_protocol else words.protocol_word(key.protocol),
        first_port=0 if any_protocol else key.port,
        last_port=65535 if any_protocol else key.port | ((1 << free) - 1),
        verdict=_VERDICTS.get(verdict.verdict, f"verdict-{verdict.verdict}"),
        rule=verdict.rule,
        packets=verdict.packets,
    )


__all__ = ["KernelView", "NodeNames"]
