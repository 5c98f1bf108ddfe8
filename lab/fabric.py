"""The VPC as packets: a router that delivers an address only where the fake cloud assigned it.

      node namespace            router namespace                 control, outside
    ┌───────────────┐   veth   ┌──────────────────────────┐   ┌──────────────────┐
    │ ens5 (eni-a)  ├──────────┤ port  /32 routes of eni-a│   │ services         │
    │ ens6 (eni-b)  ├──────────┤ port  /32 routes of eni-b├───┤ 100.64.0.2       │
    └───────────────┘          │ rest of the VPC -> sink  │   │ log of sources   │
                               └──────────────────────────┘   └──────────────────┘

- Delivery: one /32 route per assigned address, one /28 per delegated prefix, to the port of its interface, with the
  interface's MAC as a permanent neighbour (a VPC maps addresses to interfaces, it asks nobody). What nobody owns goes
  into the sink, which counts it.
- Sources: strict reverse-path filtering on every port accepts exactly the addresses with a route to that port.
- ARP: the router answers for the subnet's gateway, which it holds, and for peers (proxy ARP).
- Hot-plug: attaching makes the device appear in the instance's namespace with its MAC, down and bare. Only the primary
  interface gets its address and the default route, as DHCP would have it; the rest is the node daemon's to do.

Level-triggered: `apply` takes the whole state of the cloud and does what differs from the kernel's. After an error the
next `apply` looks at the kernel anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from pyroute2.iproute.linux import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from lab import netns
from lab.topology import CloudState, Difference, Port, difference, read_label

MTU_BYTES: Final = 9001
SINK: Final = "sink"
_RTNH_F_ONLINK: Final = 4
_ROUTER_SYSCTLS: Final = {
    "ipv4/ip_forward": "1",
    # Defaults are inherited by every port made later.
    "ipv4/conf/default/rp_filter": "1",
    "ipv4/conf/default/proxy_arp": "1",
    "ipv4/conf/default/send_redirects": "0",
    "ipv4/conf/all/send_redirects": "0",
    "ipv6/conf/default/disable_ipv6": "1",
    "ipv6/conf/all/disable_ipv6": "1",
}
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Drops:
    """Packets that the VPC refused, counted since the fabric began."""

    spoofed: int
    undelivered: int


@dataclass(frozen=True, slots=True)
class Segment:
    """A namespace next to the router that is no instance: its own subnet, reached by everybody.

    `name` is that of the router's port.
    """

    name: str
    netns: str
    cidr: str
    device: str = "eth0"

    @property
    def router_address(self) -> str:
        return str(ipaddress.ip_network(self.cidr)[1])

    @property
    def address(self) -> str:
        return str(ipaddress.ip_network(self.cidr)[2])

    @property
    def prefix_length(self) -> int:
        return ipaddress.ip_network(self.cidr).prefixlen


class Fabric:
    """Owns the router namespace `router`. Use as an async context manager; namespaces of nodes are the caller's.

    All netlink runs in one thread, as its sockets belong to the thread that opened them.
    """

    def __init__(self, router: str) -> None:
        self._router_name = router
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fabric")
        self._instances: dict[str, str] = {}
        self._actual: dict[str, Port] | None = None
        self._gateways: frozenset[str] = frozenset()
        self._vpc_cidrs: frozenset[str] = frozenset()
        # pyroute2 is untyped.
        self._ip: Any = None
        self._states: dict[str, CloudState] = {}
        self._applied: dict[str, int] = {}
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> Fabric:
        try:
            await self._run(self._open)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._run(self._close)
        self._thread.shutdown()

    async def attach_segment(self, segment: Segment) -> None:
        """Connects a namespace that is no instance and configures its device."""
        await self._run(lambda: self._attach_segment(segment))

    async def add_instance(self, instance_id: str, namespace: str) -> None:
        """From now on the interfaces of the instance are plugged into the namespace."""
        self._instances[instance_id] = namespace
        await self._converge()

    async def remove_instance(self, instance_id: str) -> None:
        self._instances.pop(instance_id, None)
        await self._converge()

    async def apply(self, state: CloudState, cloud: str = "") -> Difference:
        """Makes the network what `state` says, beside what other clouds say, and returns what had to change.

        Raises NetlinkError or OSError.

        :param cloud: whose state it is; their networks must not overlap.
        """
        self._states[cloud] = state
        done = await self._converge()
        async with self._changed:
            self._applied[cloud] = max(self._applied.get(cloud, 0), state.revision)
            self._changed.notify_all()
        return done

    async def wait_applied(self, revision: int, cloud: str = "") -> None:
        """Returns once the cloud's state of `revision`, or a later one, is in force."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._applied.get(cloud, 0) >= revision)

    async def _converge(self) -> Difference:
        wanted = {
            key: port
            for state in self._states.values()
            for key, port in state.ports.items()
            if port.instance_id in self._instances
        }
        return await self._run(lambda: self._reconcile(wanted, dict(self._instances)))

    async def drops(self) -> Drops:
        return await self._run(self._read_drops)

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    # What follows runs in the fabric's thread.

    def _open(self) -> None:
        netns.create(self._router_name)
        with netns.entered(self._router_name):
            netns.set_sysctls(_ROUTER_SYSCTLS)
            self._ip = _open_netlink()
        self._ip.link("add", ifname=SINK, kind="veth", peer={"ifname": f"{SINK}-end"}, mtu=MTU_BYTES)
        # Without ARP every packet goes out at once; the far end drops it, as it is addressed to nobody there.
        self._sink = _index(self._ip, SINK)
        self._ip.link("set", index=self._sink, arp=False, state="up")
        self._ip.link("set", index=_index(self._ip, f"{SINK}-end"), state="up")
        self._spoofed_before = self._read_spoofed()

    def _close(self) -> None:
        if self._ip is not None:
            self._ip.close()
        netns.delete(self._router_name)

    def _attach_segment(self, segment: Segment) -> None:
        with _opened(netns.path_of(segment.netns)) as target:
            self._ip.link(
                "add",
                ifname=segment.name,
                kind="veth",
                mtu=MTU_BYTES,
                peer={"ifname": segment.device, "net_ns_fd": target, "mtu": MTU_BYTES},
            )
        index = _index(self._ip, segment.name)
        self._ip.addr("add", index=index, address=segment.router_address, prefixlen=segment.prefix_length)
        self._ip.link("set", index=index, state="up")
        with _netlink_in(segment.netns) as ip:
            inner = _index(ip, segment.device)
            ip.addr("add", index=inner, address=segment.address, prefixlen=segment.prefix_length)
            ip.link("set", index=inner, state="up")
            ip.route("replace", dst="default", gateway=segment.router_address)

    def _reconcile(self, wanted: Mapping[str, Port], namespaces: Mapping[str, str]) -> Difference:
        actual = self._look() if self._actual is None else self._actual
        self._actual = None  # until all is done
        todo = difference(actual, wanted)
        for port in todo.unplug:
            self._unplug(port)
        for gateway in todo.gateways - self._gateways:
            self._ip.addr("replace", index=1, address=gateway, prefixlen=32)
        for cidr in todo.vpc_cidrs - self._vpc_cidrs:
            self._ip.route("replace", dst=cidr, oif=self._sink, scope="link")
        self._gateways |= todo.gateways
        self._vpc_cidrs |= todo.vpc_cidrs
        for port in todo.plug:
            self._plug(port, namespaces[port.instance_id])
        indexes = {key: _index(self._ip, wanted[key].router_device) for key in set(todo.route.values())}
        for address, key in todo.route.items():
            self._route(address, wanted[key], indexes[key])
        for address in todo.unroute:
            with _ignored(errno.ESRCH):  # gone with its device
                self._ip.route("del", dst=_destination(address))
        self._actual = dict(wanted)
        return todo

    def _look(self) -> dict[str, Port]:
        """Ports as the kernel has them: what was plugged stands in the alias, what is delivered in the routes."""
        aliases: dict[int, str] = {
            link["index"]: alias for link in self._ip.get_links() if (alias := link.get("IFLA_IFALIAS"))
        }
        routed: dict[int, set[str]] = {index: set() for index in aliases}
        for route in self._ip.get_routes(family=socket.AF_INET):
            index, address = route.get("RTA_OIF"), route.get("RTA_DST")
            if index in routed and address is not None:
                routed[index].add(address if route["dst_len"] == 32 else f"{address}/{route['dst_len']}")
        ports = (read_label(aliases[index], frozenset(addresses)) for index, addresses in routed.items())
        return {port.id: port for port in ports}

    def _unplug(self, port: Port) -> None:
        with _ignored(errno.ENODEV):
            self._ip.link("del", ifname=port.router_device)

    def _plug(self, port: Port, namespace: str) -> None:
        with _opened(netns.path_of(namespace)) as target:
            self._ip.link(
                "add",
                ifname=port.router_device,
                kind="veth",
                mtu=MTU_BYTES,
                peer={"ifname": port.device, "net_ns_fd": target, "address": port.mac, "mtu": MTU_BYTES},
            )
        index = _index(self._ip, port.router_device)
        self._ip.link("set", index=index, state="up", ifalias=port.label)
        with netns.entered(self._router_name):  # answers at once, not within 0.8 s
            netns.set_sysctls({f"ipv4/neigh/{port.router_device}/proxy_delay": "0"})
        # The next hop of all its routes, never asked for by ARP.
        self._route(port.primary_address, port, index)
        self._ip.neigh(
            "replace",
            ifindex=index,
            dst=port.primary_address,
            lladdr=port.mac,
            state="permanent",
            family=socket.AF_INET,
        )
        if port.device_index == 0:
            _configure_primary(port, namespace)

    def _route(self, address: str, port: Port, index: int) -> None:
        where = _destination(address)
        if address == port.primary_address:
            self._ip.route("replace", dst=where, oif=index, scope="link")
        else:
            self._ip.route("replace", dst=where, oif=index, gateway=port.primary_address, flags=_RTNH_F_ONLINK)

    def _read_drops(self) -> Drops:
        link = self._ip.get_links(self._sink)[0]
        undelivered = link.get("IFLA_STATS64")["tx_packets"]
        return Drops(spoofed=self._read_spoofed() - self._spoofed_before, undelivered=undelivered)

    def _read_spoofed(self) -> int:
        with netns.entered(self._router_name):
            lines = Path("/proc/thread-self/net/netstat").read_text().splitlines()
        names, values = (line.split() for line in lines if line.startswith("TcpExt:"))
        return int(dict(zip(names, values, strict=True))["IPReversePathFilter"])


def _destination(address: str) -> str:
    """An address, or a prefix that is delegated as a whole, as a route's destination."""
    return address if "/" in address else f"{address}/32"


def _configure_primary(port: Port, namespace: str) -> None:
    """What the instance's DHCP client does at boot."""
    with _netlink_in(namespace) as ip:
        index = _index(ip, port.device)
        ip.addr("replace", index=index, address=port.primary_address, prefixlen=port.prefix_length)
        ip.link("set", index=index, state="up")
        ip.route("replace", dst="default", oif=index, gateway=port.gateway, prefsrc=port.primary_address)


def _open_netlink() -> Any:
    """A netlink socket in the namespace that the thread is in."""
    return IPRoute()  # type: ignore[no-untyped-call]


def _index(ip: Any, device: str) -> int:
    found = ip.link_lookup(ifname=device)
    if not found:
        raise OSError(errno.ENODEV, f"no device {device}")
    return int(found[0])


@contextlib.contextmanager
def _netlink_in(namespace: str) -> Iterator[Any]:
    with netns.entered(namespace):
        ip = _open_netlink()
    with contextlib.closing(ip):
        yield ip


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _ignored(*codes: int) -> Iterator[None]:
    try:
        yield
    except NetlinkError as err:
        if err.code not in codes:
            raise
