"""Two nodes with pods, a router, and an outside, with the programs attached as the daemon attaches them.

    pod a ─┐                                  ┌─ br0: 192.0.2.254, 2001:db8::fe
    pod b ─┴─ node one (192.0.2.1, ...::1) ───┤  router ── 203.0.113.1 ── outside (203.0.113.9, 2600::9)
    pod c ─── node two (192.0.2.2, ...::2) ───┘

Both nodes are on one segment, so that pods of the other node may be reached by the router (native), by the other node
as next hop (direct) or by VXLAN over IPv4 or IPv6. The router knows a route to each node's pods; the outside does not.
"""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Final

from datapath import layout
from datapath.events import words
from datapath.layout import Target, address_bytes, mac_bytes
from datapath.loader import links, objects
from datapath.loader.clock import tick_rate
from datapath.loader.maps import CPUS, Map
from datapath.model import HOST_MAC, OVERLAY_MAC
from tests.datapath.compiled import bpf_folder, build_programs
from tests.datapath.spaces import Spaces

OUTSIDE4, OUTSIDE6 = "203.0.113.9", "2600::9"
SERVICE4, SERVICE6 = "10.96.0.10", "fd00:96::a"
MTU: Final = 1500
VXLAN_PORT: Final = 8472
_ETHTOOL, _SET_TX_CHECKSUM = 0x8946, 0x17
Socket = socket.socket  # `Lab.socket` hides the module in its class


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


A: Final = Pod("a", "10.8.1.1", "fd00:8:1::a", "02:00:00:00:00:0a", 1, 0x1001)
B: Final = Pod("b", "10.8.1.2", "fd00:8:1::b", "02:00:00:00:00:0b", 2, 0x1002)
C: Final = Pod("c", "10.8.2.1", "fd00:8:2::c", "02:00:00:00:00:0c", 1, 0xA1003)


@dataclass(slots=True)
class Node:
    name: str
    address4: str
    address6: str
    pods: tuple[Pod, ...]
    maps: dict[str, Map] = field(default_factory=dict)

    def address(self, family: int) -> str:
        return self.address6 if family == 6 else self.address4


class Lab:
    """Everything is gone when the block is left.

    :param mode: "native", "direct", "tunnel", "tunnel6" (VXLAN over IPv6).
    :param endpoint_routes: pods of a node are reached by the node's routes.
    :param families: which addresses pods have.
    :param mtu: of everything but the link to the outside.
    :param outside_mtu: of that.
    :param legacy: attach by clsact, as kernels before 6.6 do."""

    def __init__(
        self, mode: str = "native", *, endpoint_routes: bool = False, families: tuple[int, ...] = (4, 6),
        mtu: int = MTU, outside_mtu: int = MTU, legacy: bool = False,
    ) -> None:  # fmt: skip
        self.mode, self.families, self.mtu, self.outside_mtu = mode, families, mtu, outside_mtu
        self._endpoint_routes, self._legacy = endpoint_routes, legacy
        self.nodes = (
            Node("one", "192.0.2.1", "2001:db8::1", (A, B)),
            Node("two", "192.0.2.2", "2001:db8::2", (C,)),
        )
        self._stack = ExitStack()

    def __enter__(self) -> Lab:
        with self._stack as undo:
            self.spaces = undo.enter_context(Spaces())
            self._plug()
            for node in self.nodes:
                for pod in node.pods:
                    self._wire(node, pod)
                self._load(node, undo)
            self._stack = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def one(self) -> Node:
        return self.nodes[0]

    @property
    def two(self) -> Node:
        return self.nodes[1]

    def space(self, name: str) -> str:
        return f"{self.spaces.tag}-{name}"

    @property
    def pod_mtu(self) -> int:
        return self.mtu - {"tunnel": 50, "tunnel6": 70}.get(self.mode, 0)

    # ---- wires ----

    def _plug(self) -> None:
        spaces = self.spaces
        router, outside = spaces.add("router", "link add br0 type bridge"), spaces.add("outside")
        for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            spaces.sysctl(router, name, "1")
        spaces.ip(
            router, f"link set br0 mtu {self.mtu} up", "addr add 192.0.2.254/24 dev br0",
            "addr add 2001:db8::fe/64 dev br0 nodad",
        )  # fmt: skip
        spaces.cable(router, "out0", outside, "eth0", mtu=self.outside_mtu)
        spaces.ip(router, "addr add 203.0.113.1/24 dev out0", "addr add 2600::1/64 dev out0 nodad")
        spaces.ip(
            outside, f"addr add {OUTSIDE4}/24 dev eth0", f"addr add {OUTSIDE6}/64 dev eth0 nodad",
            "route add 192.0.2.0/24 via 203.0.113.1", "route add 2001:db8::/64 via 2600::1",
        )  # fmt: skip
        for number, node in enumerate(self.nodes, 1):
            space = spaces.add(node.name)
            for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
                spaces.sysctl(space, name, "1")
            spaces.cable(router, f"port{number}", space, "ens0", mtu=self.mtu)
            spaces.ip(router, f"link set port{number} master br0")
            spaces.ip(
                space, f"addr add {node.address4}/24 dev ens0", f"addr add {node.address6}/64 dev ens0 nodad",
                "route add default via 192.0.2.254", "route add default via 2001:db8::fe",
            )  # fmt: skip
            if self.mode == "native":
                spaces.ip(
                    router, f"route add 10.8.{number}.0/24 via {node.address4}",
                    f"route add fd00:8:{number}::/64 via {node.address6}",
                )  # fmt: skip
            if self.mode.startswith("tunnel"):
                spaces.ip(
                    space,
                    f"link add plm_vxlan mtu {self.pod_mtu} address {OVERLAY_MAC} type vxlan external dstport "
                    f"{VXLAN_PORT} nolearning udp6zerocsumtx udp6zerocsumrx",
                    "link set plm_vxlan arp off up",
                )  # fmt: skip
        for node, other in (self.nodes, self.nodes[::-1]):
            number = self.nodes.index(other) + 1
            ranges = (f"10.8.{number}.0/24", f"fd00:8:{number}::/64")
            for one, family, hop in zip(ranges, (4, 6), (other.address4, other.address6), strict=True):
                if self.mode.startswith("tunnel"):
                    source = f" src {node.address(family)}"
                    spaces.ip(self.space(node.name), f"route add {one} dev plm_vxlan{source}")
                elif self.mode == "direct":
                    spaces.ip(self.space(node.name), f"route add {one} via {hop}")

    def _wire(self, node: Node, pod: Pod) -> None:
        space, inside = self.space(node.name), self.spaces.add(pod.name)
        self.spaces.ip(
            space,
            f"link add plm{pod.name} mtu {self.pod_mtu} address {HOST_MAC} type veth peer name eth0 netns {inside} "
            f"mtu {self.pod_mtu} address {pod.mac}",
            f"link set plm{pod.name} up",
        )  # fmt: skip
        self.spaces.ip(inside, "link set eth0 up")
        for family, gateway in ((4, "169.254.1.1"), (6, "fe80::1")):
            if family not in self.families:
                continue
            address = pod.address(family)
            bits = 128 if family == 6 else 32
            self.spaces.ip(
                space, f"neigh add {address} lladdr {pod.mac} dev plm{pod.name} nud permanent",
                f"route add {address}/{bits} dev plm{pod.name}",
            )  # fmt: skip
            self.spaces.ip(
                inside, f"addr add {address}/{bits} dev eth0{' nodad' if family == 6 else ''}",
                f"route add default via {gateway} dev eth0 onlink",
            )  # fmt: skip

    # ---- programs ----

    def _load(self, node: Node, undo: ExitStack) -> None:
        space = self.space(node.name)
        hz = tick_rate()
        tunnel = self.spaces.index(space, "plm_vxlan") if self.mode.startswith("tunnel") else 0
        flags = layout.CONFIG_MASQUERADE4 | layout.CONFIG_MASQUERADE6
        flags |= (4 in self.families) * layout.CONFIG_IPV4 | (6 in self.families) * layout.CONFIG_IPV6
        flags |= self._endpoint_routes * layout.CONFIG_ENDPOINT_ROUTES
        config = layout.Config(
            hz=hz, tunnel_ifindex=tunnel, flags=flags, tcp_open_j=8000 * hz, tcp_opening_j=60 * hz,
            tcp_closing_j=10 * hz, other_open_j=180 * hz, other_opening_j=30 * hz, fragment_j=30 * hz, recheck_j=hz,
            nat_port_low=32768, nat_port_high=60999, host_mac=mac_bytes(HOST_MAC), tunnel_mac=mac_bytes(OVERLAY_MAC),
            gateway4=address_bytes(node.address4), gateway6=address_bytes(node.address6),
        )  # fmt: skip
        folder = undo.enter_context(bpf_folder())
        loaded = [
            undo.enter_context(
                objects.load(
                    objects.find(name, build_programs()), pins=folder, rodata={"config": config.pack()},
                    sizes={"flows": 16384, "nat": 16384},
                )
            )
            for name in ("pod", "device")
        ]  # fmt: skip
        self.maps = node.maps = {name: one for each in loaded for name, one in each.maps.items()}
        programs = {name: one for each in loaded for name, one in each.programs.items()}
        self._fill(node, tunnel)
        hooks = [(f"plm{pod.name}", "pod") for pod in node.pods] + [("ens0", "device")]
        hooks += [("plm_vxlan", "overlay")] if tunnel else []
        with self.spaces.inside(space):
            for device, kind in hooks:
                index = socket.if_nametoindex(device)
                for program, ingress in ((f"from_{kind}", True), (f"to_{kind}", False)):
                    attachment = links.attach_tcx(programs[program], index, ingress, force_legacy=self._legacy)
                    if not self._legacy:  # a filter goes with its device
                        undo.callback(attachment.detach)

    def _fill(self, node: Node, tunnel: int) -> None:
        maps, space = node.maps, self.space(node.name)
        maps["runtime"].update(
            bytes(4),
            layout.Runtime(generation=1, drop_events_per_tick=100, icmp_errors_per_tick=100, flow_events=0).pack(),
        )
        for pod in node.pods:
            index = self.spaces.index(space, f"plm{pod.name}")
            target = Target(
                kind=layout.TARGET_POD, mtu=self.pod_mtu, identity=pod.identity, ifindex=index, endpoint=pod.number,
                mac=mac_bytes(pod.mac), host_mac=mac_bytes(HOST_MAC),
            )  # fmt: skip
            endpoint = layout.Endpoint(address_bytes(pod.address4), address_bytes(pod.address6), target)
            maps["endpoints"].update(struct.pack("=I", index), endpoint.pack())
            self._set(node, pod, target)
        way = {"direct": layout.TARGET_DIRECT, "native": 0}.get(self.mode, layout.TARGET_TUNNEL)
        for other in self.nodes:
            here = other is node
            kind, identity = (
                (layout.TARGET_HOST, layout.IDENTITY_HOST)
                if here
                else (layout.TARGET_REMOTE_NODE, layout.IDENTITY_REMOTE_NODE)
            )
            self._set(node, other, Target(kind=kind, identity=identity))
            if here:
                continue
            end = other.address6 if self.mode == "tunnel6" else other.address4
            maps["nodes"].update(struct.pack("=I", 1), layout.Node(address_bytes(end)).pack())
            maps["nodes"].update(struct.pack("=I", 2), layout.Node(address_bytes(other.address6)).pack())
            for pod in other.pods:
                target = Target(kind=layout.TARGET_REMOTE_POD, flags=way, identity=pod.identity, node=1)
                self._set(node, pod, target)
                if self.mode == "direct":
                    maps["addresses"].update(address_bytes(pod.address6), replace(target, node=2).pack())
        stack = Target(kind=layout.TARGET_STACK, identity=layout.IDENTITY_WORLD)
        for prefix, bits in ((address_bytes("10.96.0.0"), 96 + 12), (address_bytes("fd00:96::"), 112)):
            maps["cidrs"].update(layout.CidrKey(bits, prefix).pack(), stack.pack())
        both = layout.DEVICE_MASQUERADE4 | layout.DEVICE_MASQUERADE6
        device = layout.Device(
            address_bytes(node.address4), address_bytes(node.address6), both, self.mtu,
            mac_bytes(self.spaces.mac(space, "ens0")),
        )  # fmt: skip
        maps["devices"].update(struct.pack("=I", self.spaces.index(space, "ens0")), device.pack())
        if tunnel:
            overlay = layout.Device(flags=layout.DEVICE_OVERLAY, mtu=self.pod_mtu, mac=mac_bytes(OVERLAY_MAC))
            maps["devices"].update(struct.pack("=I", tunnel), overlay.pack())

    def _set(self, node: Node, whose: Pod | Node, target: Target) -> None:
        for address in (whose.address4, whose.address6):
            node.maps["addresses"].update(address_bytes(address), target.pack())

    # ---- what tests do ----

    def drops(self) -> dict[str, int]:
        """Why packets were dropped on both nodes, by words; link-local chatter is left out."""
        found: dict[str, int] = {}
        for node in self.nodes:
            for key, value in node.maps["counters"].items():
                hook, reason = divmod(int.from_bytes(key, "little"), layout.DROP_REASONS)
                count = sum(struct.unpack_from("=Q", value, cpu * 16)[0] for cpu in range(CPUS))
                if count and reason not in (layout.DROP_NONE, layout.DROP_CONTROL):
                    word = f"{node.name} {layout.HOOK_WORDS[hook]}: {words.REASONS[reason].word}"
                    found[word] = found.get(word, 0) + count
        return found

    def ping(self, source: str, target: str, *options: str) -> bool:
        return self.spaces.ping(self.space(source), target, *options)

    def software_checksums(self, space: str, device: str) -> None:
        """The device's kernel has to compute them itself, so that wrong ones are seen by the receiver."""
        value = ctypes.create_string_buffer(struct.pack("=II", _SET_TX_CHECKSUM, 0))
        with self.spaces.inside(self.space(space)), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            fcntl.ioctl(one, _ETHTOOL, struct.pack("16sP16x", device.encode(), ctypes.addressof(value)))

    def socket(self, space: str, family: int, kind: int, protocol: int = 0) -> Socket:
        """One that lives in the namespace."""
        with self.spaces.inside(self.space(space)):
            one = socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET, kind, protocol)
        one.settimeout(10)
        return one

    @contextmanager
    def serving(self, space: str, address: str, work: Callable[[Socket], None]) -> Iterator[int]:
        """A TCP server for one connection after another; `work` gets each. Yields its port."""
        with self.socket(space, 6 if ":" in address else 4, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address, 0))
            listener.listen()

            def serve() -> None:
                while True:
                    try:
                        connection, _ = listener.accept()
                    except OSError:
                        return
                    with connection:
                        connection.settimeout(10)
                        work(connection)

            thread = threading.Thread(target=serve, daemon=True)
            thread.start()
            try:
                yield listener.getsockname()[1]
            finally:
                listener.shutdown(socket.SHUT_RDWR)
                thread.join(5)


ROOT: Final = Path(__file__).resolve().parents[3]
