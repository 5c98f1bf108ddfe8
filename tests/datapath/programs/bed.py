"""The programs of pods and devices, loaded with maps of their own and run on single packets; nothing is attached.

    pod a (10.8.0.1, fd00:8::a) ── plma ┐
    pod b (10.8.0.2, fd00:8::b) ── plmb ┤  node     ens0 (192.0.2.1, 2001:db8::1; default route by 192.0.2.2, ...::2)
                                        ├────────── ens1 (192.0.3.1; 198.51.100.0/24), without an address to masquerade
                                        │           bare (192.0.4.0/24), a device that is none of the external ones
                                        └────────── plm_vxlan

A run tells the verdict, the packet as it is then, what was counted, and the events. Where a redirect leads is in the
event of a sampled packet: `trace_every` is 1.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from types import TracebackType
from typing import Any, Final

from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from datapath import layout
from datapath.events import words
from datapath.layout import (
    Counter,
    Endpoint,
    Event,
    Flow,
    FlowKey,
    Fragment,
    FragmentKey,
    Nat,
    NatKey,
    Runtime,
    Target,
    address_bytes,
    mac_bytes,
)
from datapath.loader import objects
from datapath.loader.clock import Clock, tick_rate
from datapath.loader.maps import CPUS, LPM_TRIE, NO_PREALLOC, Map
from datapath.loader.programs import SkbContext
from datapath.loader.ringbuf import RingReader
from datapath.policy.model import EndpointPolicy
from datapath.policy.writer import PolicyWriter
from tests.datapath.compiled import bpf_folder, build_programs
from tests.datapath.programs.packets import assert_right
from tests.datapath.spaces import Spaces

HOST_MAC: Final = "0e:50:4c:4d:00:01"
OVERLAY_MAC: Final = "0e:50:4c:4d:00:02"
ENS0_MAC, ROUTER_MAC, OTHER_MAC = "02:00:00:00:01:01", "02:00:00:00:01:02", "02:00:00:00:01:07"
NODE4, NODE6, GATEWAY4, GATEWAY6 = "192.0.2.1", "2001:db8::1", "192.0.2.1", "2001:db8::1"
WORLD4, WORLD6 = "203.0.113.9", "2600::9"
SILENT4, SILENT6 = "198.51.100.9", "2001:db8:5::9"  # next hops that nobody has resolved
SMALL4, SMALL6 = "198.18.0.9", "2001:db8:6::9"  # routes with an MTU of 1300
BLACKHOLE4, BLACKHOLE6 = "198.18.1.9", "2001:db8:7::9"
UNREACHABLE4, UNREACHABLE6 = "198.18.2.9", "2001:db8:8::9"
BARE4 = "192.0.4.9"
SERVICE4, SERVICE6 = "10.96.0.10", "fd00:96::a"
CLUSTER4, CLUSTER6 = "10.50.0.9", "fd00:50::9"
REMOTE4, REMOTE6 = "10.9.0.1", "fd00:9::1"  # pods of other nodes, by routes
TUNNEL4, TUNNEL6 = "10.10.0.1", "fd00:10::1"  # by the tunnel
DIRECT4, DIRECT6 = "10.11.0.1", "fd00:11::1"  # by the other node as next hop
LOST4, LOST6 = "10.12.0.1", "fd00:12::1"  # by the tunnel, but its node is not known
OTHER_NODE4, OTHER_NODE6 = "192.0.2.7", "2001:db8::7"
REMOTE_IDENTITY: Final = 0x12345
PORTS: Final = (40000, 40063)  # for masquerade
MTU: Final = 1500
POLICY_ENTRIES: Final = 16384  # as bpf/include/maps.h has it: inner maps must all be alike

VERDICTS: Final = {0xFFFFFFFF: "pass", 2: "drop", 7: "redirect"}
ALL_ON: Final = (
    layout.CONFIG_IPV4 | layout.CONFIG_IPV6 | layout.CONFIG_MASQUERADE4 | layout.CONFIG_MASQUERADE6
)  # fmt: skip
_KEY: Final = bytes(4)


@dataclass(frozen=True, slots=True)
class Pod:
    name: str
    address4: str
    address6: str
    mac: str
    number: int
    identity: int

    def address(self, family: int) -> str:
        return self.address6 if family == 6 else self.address4


A: Final = Pod("a", "10.8.0.1", "fd00:8::a", "02:00:00:00:00:0a", 1, 1001)
B: Final = Pod("b", "10.8.0.2", "fd00:8::b", "02:00:00:00:00:0b", 2, 0xA1002)


@dataclass(frozen=True)
class Run:
    """What a program did. :ivar counted: packets by (hook, reason)."""

    verdict: str
    frame: bytes
    mark: int
    events: tuple[Event, ...]
    counted: Mapping[tuple[int, int], int]

    @property
    def reason(self) -> int:
        """Why it was dropped; DROP_NONE if it was not, or if it was without being counted."""
        return next((reason for _, reason in self.counted if reason), layout.DROP_NONE)

    @cached_property
    def packet(self) -> Packet:
        return Ether(self.frame)

    @property
    def ip(self) -> Packet:
        return self.packet.payload

    def told(self, kind: int) -> list[Event]:
        return [event for event in self.events if event.type == kind]

    @property
    def action(self) -> int:
        return self._sample.action

    @property
    def out_ifindex(self) -> int:
        return self._sample.out_ifindex

    @property
    def _sample(self) -> Event:
        samples = self.told(layout.EVENT_TRACE)
        assert len(samples) == 1, f"not sampled once: {self}"
        return samples[0]

    def __str__(self) -> str:
        reasons = [words.REASONS[reason].word for _, reason in self.counted]
        return f"{self.verdict} ({', '.join(reasons)}) {self.packet.summary()}"


class ProgramBed:
    """Everything is gone when the block is left.

    :param visits: the thread is in the node only within `inside`; else as long as the bed is there.
    :param flags: CONFIG_*. :param config: other fields of struct config. :ivar folder: where its maps are pinned."""

    def __init__(
        self, flags: int = ALL_ON, names: Iterable[str] = ("pod", "device"), sizes: Mapping[str, int] | None = None,
        *, visits: bool = False, **config: Any,
    ) -> None:  # fmt: skip
        self._visits = visits
        self._flags, self._names, self._config = flags, tuple(names), config
        self._sizes = {"flows": 2048, "nat": 2048, "fragments": 256, **(sizes or {})}
        self._enforced: dict[int, EndpointPolicy] = {}
        self._stack = ExitStack()
        self.generation = 1

    def __enter__(self) -> ProgramBed:
        with self._stack as undo:
            self.spaces = undo.enter_context(Spaces())
            self._plug()
            self.clock = Clock(objects.find("clock", build_programs()))
            undo.callback(self.clock.close)
            self._load(undo)
            self.ring = RingReader(self.maps["events"])
            undo.callback(self.ring.close)
            self.policies = PolicyWriter(self.maps["policies"], self._new_policy)
            if not self._visits:
                undo.enter_context(self.inside())
            self.reset()
            self._stack = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def inside(self) -> AbstractContextManager[None]:
        """The thread is in the node until the end of the block."""
        return self.spaces.inside(self.node)

    # ---- the node ----

    def _plug(self) -> None:
        spaces = self.spaces
        self.node = node = spaces.add("node")
        for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            spaces.sysctl(node, name, "1")
        spaces.ip(
            node,
            *(
                f"link add plm{pod.name} address {HOST_MAC} type veth peer name far{pod.name} address {pod.mac}"
                for pod in (A, B)
            ),
            f"link add ens0 address {ENS0_MAC} type veth peer name far0 address {ROUTER_MAC}",
            "link add ens1 type veth peer name far1", "link add bare type veth peer name farbare",
            f"link add plm_vxlan mtu 1450 address {OVERLAY_MAC} type vxlan external dstport 8472",
            *(
                f"link set {name} up"
                for name in ("plma", "fara", "plmb", "farb", "ens0", "far0", "ens1", "far1", "bare", "farbare",
                             "plm_vxlan")
            ),
            f"addr add {NODE4}/24 dev ens0", f"addr add {NODE6}/64 dev ens0 nodad", "addr add 192.0.3.1/24 dev ens1",
            "addr add 192.0.4.1/24 dev bare",
            *(
                f"neigh add {address} lladdr {mac} dev ens0 nud permanent"
                for address, mac in [("192.0.2.2", ROUTER_MAC), ("2001:db8::2", ROUTER_MAC), (OTHER_NODE4, OTHER_MAC)]
            ),
            "route add default via 192.0.2.2", "route add default via 2001:db8::2",
            "route add 198.51.100.0/24 via 192.0.2.99", "route add 2001:db8:5::/64 via 2001:db8::99",
            "route add 198.18.0.0/24 via 192.0.2.2 mtu lock 1300",
            "route add 2001:db8:6::/64 via 2001:db8::2 mtu lock 1300",
            "route add blackhole 198.18.1.0/24", "route add blackhole 2001:db8:7::/64",
            "route add unreachable 198.18.2.0/24", "route add unreachable 2001:db8:8::/64",
            "route add 198.18.3.0/24 via 192.0.3.2 dev ens1",
        )  # fmt: skip
        self.ifindex = {one["ifname"]: int(one["ifindex"]) for one in spaces.show(node, "link", "show")}

    def _load(self, undo: ExitStack) -> None:
        hz = self.hz = tick_rate()
        config = {
            "hz": hz, "tunnel_ifindex": self.ifindex["plm_vxlan"], "flags": self._flags,
            "tcp_open_j": 8000 * hz, "tcp_opening_j": 60 * hz, "tcp_closing_j": 10 * hz, "other_open_j": 180 * hz,
            "other_opening_j": 30 * hz, "fragment_j": 30 * hz, "recheck_j": 60 * hz, "nat_port_low": PORTS[0],
            "nat_port_high": PORTS[1], "host_mac": mac_bytes(HOST_MAC), "tunnel_mac": mac_bytes(OVERLAY_MAC),
            "gateway4": address_bytes(GATEWAY4), "gateway6": address_bytes(GATEWAY6), **self._config,
        }  # fmt: skip
        self.folder = folder = undo.enter_context(bpf_folder())
        self.config = layout.Config(**config)
        rodata = {"config": self.config.pack()}
        loaded = [
            undo.enter_context(
                objects.load(objects.find(name, build_programs()), pins=folder, rodata=rodata, sizes=self._sizes)
            )
            for name in self._names
        ]
        self.maps: dict[str, Map] = {name: one for each in loaded for name, one in each.maps.items()}
        # Of each object its own: what one has left out of its events is none of the other's.
        self._budgets = [each.maps[name] for each in loaded for name in ("budgets", "samples") if name in each.maps]
        self.programs = {name: one for each in loaded for name, one in each.programs.items()}

    def _new_policy(self) -> Map:
        return Map.create(
            LPM_TRIE, layout.POLICY_KEY_SIZE, layout.POLICY_SIZE, POLICY_ENTRIES, flags=NO_PREALLOC, name="policy"
        )

    # ---- what the maps say ----

    def reset(self) -> None:
        """As after a start: nothing tracked, no policy."""
        for name in ("flows", "nat", "fragments", "addresses", "cidrs", "endpoints", "devices"):
            self.maps[name].clear()
        for one in self._budgets:
            for number in range(one.max_entries):
                one.update(number.to_bytes(4, "little"), bytes(one.value_size))
        self._enforced.clear()
        self.policies.apply({})
        for pod in (A, B):
            self.set_pod(pod)
        for address, target in self._targets():
            self.maps["addresses"].update(address_bytes(address), target.pack())
        for prefix, bits, target in (
            ("10.96.0.0", 12, Target(kind=layout.TARGET_STACK, identity=layout.IDENTITY_WORLD)),
            ("fd00:96::", 112, Target(kind=layout.TARGET_STACK, identity=layout.IDENTITY_WORLD)),
            ("10.50.0.0", 16, Target(kind=layout.TARGET_RANGE, flags=layout.TARGET_CLUSTER, identity=300)),
            ("fd00:50::", 64, Target(kind=layout.TARGET_RANGE, flags=layout.TARGET_CLUSTER, identity=300)),
        ):
            self.set_range(prefix, bits, target)
        for number, address in ((1, OTHER_NODE4), (2, OTHER_NODE6), (3, "192.0.2.98"), (4, "")):
            self.maps["nodes"].update(struct.pack("=I", number), layout.Node(address_bytes(address)).pack())
        both = layout.DEVICE_MASQUERADE4 | layout.DEVICE_MASQUERADE6
        for name, device in (
            ("ens0", layout.Device(address_bytes(NODE4), address_bytes(NODE6), both, MTU, mac_bytes(ENS0_MAC))),
            ("ens1", layout.Device(flags=both, mtu=MTU)),
            ("plm_vxlan", layout.Device(flags=layout.DEVICE_OVERLAY, mtu=1450, mac=mac_bytes(OVERLAY_MAC))),
        ):
            self.maps["devices"].update(struct.pack("=I", self.ifindex[name]), device.pack())
        self.set_runtime()
        while self.ring.read():
            pass

    def _targets(self) -> Iterable[tuple[str, Target]]:
        remote = Target(kind=layout.TARGET_REMOTE_POD, identity=REMOTE_IDENTITY)
        for four, six, target in (
            (NODE4, NODE6, Target(kind=layout.TARGET_HOST, identity=layout.IDENTITY_HOST)),
            (OTHER_NODE4, OTHER_NODE6, Target(kind=layout.TARGET_REMOTE_NODE, identity=layout.IDENTITY_REMOTE_NODE)),
            (REMOTE4, REMOTE6, remote),
            (TUNNEL4, TUNNEL6, replace(remote, flags=layout.TARGET_TUNNEL, node=1)),
            (DIRECT4, DIRECT6, replace(remote, flags=layout.TARGET_DIRECT, node=1)),
            (LOST4, LOST6, replace(remote, flags=layout.TARGET_TUNNEL)),
        ):
            yield four, target
            yield six, target

    def target(self, pod: Pod, flags: int = 0, mtu: int = MTU) -> Target:
        return Target(
            kind=layout.TARGET_POD, flags=flags, mtu=mtu, identity=pod.identity, ifindex=self.ifindex[f"plm{pod.name}"],
            endpoint=pod.number, mac=mac_bytes(pod.mac), host_mac=mac_bytes(HOST_MAC),
        )  # fmt: skip

    def set_pod(self, pod: Pod, flags: int = 0, mtu: int = MTU) -> None:
        target = self.target(pod, flags, mtu)
        for address in (pod.address4, pod.address6):
            self.maps["addresses"].update(address_bytes(address), target.pack())
        endpoint = Endpoint(address_bytes(pod.address4), address_bytes(pod.address6), target)
        self.maps["endpoints"].update(struct.pack("=I", target.ifindex), endpoint.pack())

    def set_address(self, address: str, target: Target) -> None:
        self.maps["addresses"].update(address_bytes(address), target.pack())

    def set_range(self, prefix: str, bits: int, target: Target) -> None:
        more = 0 if ":" in prefix else 96
        self.maps["cidrs"].update(layout.CidrKey(bits + more, address_bytes(prefix)).pack(), target.pack())

    def set_policy(self, pod: Pod, policy: EndpointPolicy) -> None:
        """Rules, and whether they are enforced."""
        self._enforced[pod.number] = policy
        self.policies.apply(self._enforced)
        self.set_pod(pod, policy.enforcement.target_flags)
        self.new_generation()

    def set_runtime(self, **more: int) -> None:
        values = {
            "trace_every": 1, "flow_events": 1, "verdict_events": 1, "drop_events_per_tick": 1000,
            "icmp_errors_per_tick": 1000, **more,
        }  # fmt: skip
        self.maps["runtime"].update(_KEY, Runtime(generation=self.generation, **values).pack())

    def new_generation(self) -> None:
        self.generation += 1
        self.set_runtime()

    # ---- runs ----

    def run(self, program: str, frame: Packet | bytes, *, device: str, mark: int = 0, gso_size: int = 0) -> Run:
        data = bytes(frame)
        context = SkbContext(
            mark=mark, ifindex=self.ifindex[device], gso_size=gso_size, gso_segments=2 if gso_size else 0
        )
        before = self.counters()
        done = self.programs[program].test_run(data, context=context.pack())
        after = self.counters()
        counted = {
            divmod(index, layout.DROP_REASONS): after[index] - before[index]
            for index in range(len(after))
            if after[index] != before[index]
        }
        events = tuple(Event.unpack(record) for record in self.ring.read())
        verdict = VERDICTS.get(done.retval, f"code {done.retval}")
        return Run(verdict, done.packet, SkbContext.unpack(done.context).mark, events, counted)

    def from_pod(self, pod: Pod, packet: Packet, *, source_mac: str = "", **more: Any) -> Run:
        """An IP packet of the pod's."""
        frame = Ether(src=source_mac or pod.mac, dst=HOST_MAC) / packet
        return self.run("from_pod", frame, device=f"plm{pod.name}", **more)

    def to_pod(self, pod: Pod, packet: Packet, *, mark: int = 0) -> Run:
        frame = Ether(src=HOST_MAC, dst=pod.mac) / packet
        return self.run("to_pod", frame, device=f"plm{pod.name}", mark=mark)

    def from_device(self, packet: Packet, *, device: str = "ens0", **more: Any) -> Run:
        return self.run("from_device", Ether(src=ROUTER_MAC, dst=ENS0_MAC) / packet, device=device, **more)

    def to_device(self, packet: Packet, *, device: str = "ens0", mark: int = 0) -> Run:
        return self.run("to_device", Ether(src=ENS0_MAC, dst=ROUTER_MAC) / packet, device=device, mark=mark)

    def overlay(self, program: str, packet: Packet, *, mark: int = 0) -> Run:
        return self.run(program, Ether(src=OVERLAY_MAC, dst=OVERLAY_MAC) / packet, device="plm_vxlan", mark=mark)

    # ---- what is left in the maps ----

    def counters(self) -> list[int]:
        """Packets by hook * DROP_REASONS + reason, all CPUs together."""
        size = Counter.SIZE * CPUS
        values = b"".join(value for _, value in sorted(self._counter_items()))
        return [
            sum(struct.unpack_from("=Q", values, start + cpu * Counter.SIZE)[0] for cpu in range(CPUS))
            for start in range(0, len(values), size)
        ]

    def _counter_items(self) -> Iterable[tuple[int, bytes]]:
        for key, value in self.maps["counters"].items():
            yield int.from_bytes(key, "little"), value

    def flow(self, packet: Packet) -> Flow | None:
        """The entry that an IP packet's flow has."""
        value = self.maps["flows"].lookup(self.flow_key(packet).pack())
        return None if value is None else Flow.unpack(value)

    def flow_key(self, packet: Packet) -> FlowKey:
        source, destination, protocol, ports = ends_of(packet)
        one, other = (source, ports[0]), (destination, ports[1])
        low, high = sorted((one, other), key=lambda end: _order(*end))
        return FlowKey(low[0], high[0], low[1], high[1], protocol)

    def change_flow(self, packet: Packet, **fields: Any) -> None:
        flow = self.flow(packet)
        assert flow is not None
        self.maps["flows"].update(self.flow_key(packet).pack(), replace(flow, **fields).pack())

    def expire(self, packet: Packet) -> None:
        """The flow's time is over."""
        self.change_flow(packet, expires_j=(self.clock.now_j() - 1) & 0xFFFFFFFF)

    def path(self, packet: Packet) -> layout.Path:
        """What is decided for the packet's direction."""
        flow = self.flow(packet)
        assert flow is not None
        source, destination, _, ports = ends_of(packet)
        low = _order(source, ports[0]) <= _order(destination, ports[1])
        return flow.from_low if low else flow.from_high

    def nat(self) -> dict[NatKey, Nat]:
        return {NatKey.unpack(key): Nat.unpack(value) for key, value in self.maps["nat"].items()}

    def fragments(self) -> dict[FragmentKey, Fragment]:
        return {FragmentKey.unpack(key): Fragment.unpack(value) for key, value in self.maps["fragments"].items()}


def ends_of(packet: Packet) -> tuple[bytes, bytes, int, tuple[int, int]]:
    """Source, destination, protocol and ports (or ICMP's id) of a whole IP packet, as flows have them."""
    source, destination = address_bytes(packet.src), address_bytes(packet.dst)
    layer = packet
    while isinstance(layer, IP | IPv6) or "Header" in (name := layer.name or "") or name.startswith("IPv6 Extension"):
        protocol = layer.proto if isinstance(layer, IP) else layer.nh
        layer = layer.payload
    fields = layer.fields
    if "sport" in fields:
        return source, destination, protocol, (int(fields["sport"]), int(fields["dport"]))
    number, kind = int(fields.get("id", 0)), int(getattr(layer, "type", 0))
    if kind in (8, 13, 15, 17, 128):
        return source, destination, protocol, (number, 0)
    if kind in (0, 14, 16, 18, 129) and "id" in fields:
        return source, destination, protocol, (0, number)
    return source, destination, protocol, (0, 0)


def _order(address: bytes, port: int) -> tuple[int, int, int]:
    """Ends are compared as the machine reads them."""
    first, second = struct.unpack("=QQ", address)
    return first, second, struct.unpack("=H", struct.pack("!H", port))[0]


# ---- what tests say about a run ----


def dropped(run: Run, reason: int, hook: int = layout.HOOK_FROM_POD, *, answered: bool = False) -> Run:
    """Fails unless the packet was dropped for this reason, counted once, and told of (but for link-local chatter).

    :param answered: the sender was sent an ICMP error, so that the run's packet goes back to it."""
    assert run.verdict == ("redirect" if answered else "drop"), str(run)
    assert run.counted == {(hook, reason): 1}, str(run)
    told = run.told(layout.EVENT_DROP)
    assert [event.reason for event in told] == ([] if reason == layout.DROP_CONTROL else [reason])
    for event in told:
        assert (event.hook, event.line > 0, event.suppressed) == (hook, True, 0)
    return run


def forwarded(
    run: Run, action: int, bed: ProgramBed, device: str, hook: int = layout.HOOK_FROM_POD, *, unsummed: bool = False
) -> Run:
    """Fails unless the packet is sent on this way, counted once, with all checksums right and one hop less."""
    assert run.verdict == "redirect", str(run)
    assert run.counted == {(hook, layout.DROP_NONE): 1}, str(run)
    assert (words.ACTIONS[run.action], run.out_ifindex) == (words.ACTIONS[action], bed.ifindex[device])
    assert_right(run.ip, unsummed=unsummed)
    return run


def passed(run: Run, hook: int = layout.HOOK_FROM_POD, mark: int | None = None) -> Run:
    """Fails unless the stack gets the packet as it is, counted once."""
    assert run.verdict == "pass", str(run)
    assert run.counted == {(hook, layout.DROP_NONE): 1}, str(run)
    if mark is not None:
        assert run.mark == mark, f"{run.mark:#x} is not {mark:#x}"
    return run


def untouched(run: Run, frame: bytes | None = None) -> Run:
    """Fails unless it is none of the program's business: not even counted."""
    assert (run.verdict, dict(run.counted)) == ("pass", {}), str(run)
    if frame is not None:
        assert run.frame == frame
    return run
