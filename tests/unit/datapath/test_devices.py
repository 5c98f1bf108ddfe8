"""Which devices lead out of the node: table rows of links, routes and addresses."""

from __future__ import annotations

import socket
import struct

import pytest

from datapath.devices.observe import KernelAddress, KernelRoute, routes_of
from datapath.devices.select import select
from datapath.model import LOCAL_TABLE, MAIN_TABLE, Link
from datapath.observe import RTMSG

LO = Link(1, "lo", "00:00:00:00:00:00", True, 65536, hardware=772)
ETH0 = Link(2, "eth0", "02:00:00:00:00:02", True, 9001)
ETH1 = Link(3, "eth1", "02:00:00:00:00:03", True, 9001)
DEFAULT = KernelRoute("0.0.0.0", 0, MAIN_TABLE, 2, "10.0.0.1")
NEAR = KernelRoute("10.0.0.0", 24, MAIN_TABLE, 2)


def link(index: int, name: str, kind: str, **more: object) -> Link:
    return Link(index, name, f"02:00:00:00:00:{index:02x}", True, 1500, kind, **more)  # type: ignore[arg-type]


def route(index: int, destination: str = "0.0.0.0/0", gateway: str = "10.0.0.1", **more: object) -> KernelRoute:
    network, _, length = destination.partition("/")
    return KernelRoute(network, int(length), more.pop("table", MAIN_TABLE), index, gateway, **more)  # type: ignore[arg-type]


def near(index: int, destination: str, **more: object) -> KernelRoute:
    return route(index, destination, "", **more)


def names(*arguments: object) -> list[str]:
    return [one.name for one in select(*arguments).devices]  # type: ignore[arg-type]


BOND, SLAVE = link(5, "bond0", "bond"), link(6, "eth2", "", master=5)
BRIDGE, PORT = link(7, "br0", "bridge"), link(8, "eth3", "", master=7)
VLAN = link(9, "eth0.7", "vlan")
VRF, IN_VRF = link(10, "vrf1", "vrf"), link(11, "eth4", "", master=10)
WIREGUARD = Link(12, "wg0", "", True, 1420, "wireguard", hardware=65534)
VETH = link(13, "veth1234", "veth")
POD = link(14, "plm0123456789a", "veth")
OVERLAY = link(15, "plm_vxlan", "vxlan")
DUMMY, VXLAN, TUN = link(16, "dummy0", "dummy"), link(17, "flannel.1", "vxlan"), link(18, "tap0", "tun")


@pytest.mark.parametrize(
    ("story", "links", "routes", "expected"),
    [
        ("hardware with a default route", [LO, ETH0, ETH1], [DEFAULT], ["eth0"]),
        ("one with a network of its own only", [LO, ETH0], [NEAR], ["eth0"]),
        ("a default route in another table only", [ETH0, ETH1], [NEAR, route(3, table=20001)], ["eth0", "eth1"]),
        ("IPv6 only", [ETH0], [route(2, "::/0", "fe80::1")], ["eth0"]),
        ("several next hops", [ETH0, ETH1], [route(2), route(3)], ["eth0", "eth1"]),
        ("the local table does not count", [ETH0], [near(2, "10.0.0.5/32", table=LOCAL_TABLE)], []),
        ("nor do routes of the link", [ETH0], [near(2, "fe80::/64"), near(2, "169.254.0.0/16")], []),
        ("nor multicast", [ETH0], [near(2, "ff00::/8"), near(2, "224.0.0.0/4")], []),
        ("a bond, not its members", [BOND, SLAVE], [route(5), near(6, "10.0.0.0/24")], ["bond0"]),
        ("neither bridge nor port", [BRIDGE, PORT], [route(7), near(8, "10.0.0.0/24")], []),
        ("a VLAN, not a parent without routes", [ETH0, VLAN], [route(9)], ["eth0.7"]),
        ("a VLAN and a parent that has its own", [ETH0, VLAN], [NEAR, route(9)], ["eth0", "eth0.7"]),
        ("what is in a VRF, not the VRF", [VRF, IN_VRF], [route(11, table=10), near(10, "10.0.0.0/24")], ["eth4"]),
        ("WireGuard", [WIREGUARD], [near(12, "10.9.0.0/24")], ["wg0"]),
        ("a cable of a lab", [VETH], [near(13, "10.0.0.0/24")], ["veth1234"]),
        ("a cable with a gateway", [VETH], [near(13, "10.0.0.1/32"), route(13)], ["veth1234"]),
        ("a pair of somebody's container", [VETH], [near(13, "10.244.0.7/32"), near(13, "fd00::7/128")], []),
        ("a virtual machine's tap with its address", [TUN], [near(18, "10.244.0.9/32")], []),
        ("a tap of a VPN", [TUN], [near(18, "10.244.0.0/16")], ["tap0"]),
        ("nothing of ours", [POD, OVERLAY], [near(14, "10.1.0.0/24"), near(15, "10.2.0.0/24")], []),
        ("nothing that stays inside", [DUMMY, VXLAN], [near(16, "10.3.0.0/24"), route(17)], []),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_leads_out(story: str, links: list[Link], routes: list[KernelRoute], expected: list[str]) -> None:
    assert names(links, routes, []) == expected, story


def test_one_that_is_down_does_not() -> None:
    down = Link(2, "eth0", ETH0.mac, False, 9001)
    selection = select([down, LO, POD], [DEFAULT], [])
    assert not selection.devices
    assert selection.passed_over == {"eth0": "it is down"}, "and it is told why; pods' own are not told of"


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["eth0"], ["eth0"]),
        (["eth*"], ["eth0", "eth1", "eth0.7"]),
        (["eth?"], ["eth0", "eth1"]),
        (["br*", "wg0"], ["br0", "wg0"]),
        (["*"], ["eth0", "eth1", "br0", "eth0.7", "wg0"]),
        (["none"], []),
    ],
)
def test_an_operators_word_counts(patterns: list[str], expected: list[str]) -> None:
    links = [LO, ETH0, ETH1, BRIDGE, VLAN, WIREGUARD, POD, OVERLAY]
    assert names(links, [], [], patterns) == expected, "routes or not, but never what is ours"


def test_facts_of_a_device() -> None:
    addresses = [
        KernelAddress("10.0.0.6", 24, 2, secondary=True),
        KernelAddress("10.0.0.5", 24, 2),
        KernelAddress("10.9.9.9", 24, 3),
        KernelAddress("2001:db8::d", 64, 2, deprecated=True),
        KernelAddress("fd00::5", 64, 2),
        KernelAddress("2600::7", 64, 2, secondary=True),
        KernelAddress("2600::5", 64, 2),
    ]
    [device] = select([ETH0], [DEFAULT, route(2, "::/0", "fe80::1")], addresses).devices
    assert (device.name, device.index, device.mac, device.mtu) == ("eth0", 2, "02:00:00:00:00:02", 9001)
    assert device.addresses4 == ("10.0.0.5", "10.0.0.6")
    assert device.addresses6 == ("2600::5", "2600::7", "fd00::5", "2001:db8::d")
    assert (device.masquerade4, device.masquerade6) == ("10.0.0.5", "2600::5")


def test_wireguard_has_no_ethernet() -> None:
    [device] = select([WIREGUARD], [near(12, "10.9.0.0/24")], [KernelAddress("10.9.0.2", 32, 12)]).devices
    assert (device.has_ethernet, device.mac, device.masquerade4) == (False, "", "10.9.0.2")


TWO = [KernelAddress("192.0.2.9", 24, 2), KernelAddress("10.0.0.5", 24, 2)]


@pytest.mark.parametrize(
    ("routes", "expected"),
    [
        ([route(2, source="10.0.0.77")], "10.0.0.77"),
        ([route(2)], "10.0.0.5"),
        ([route(2, gateway="198.51.100.1")], "192.0.2.9"),
        ([route(2, gateway="fe80::1")], "192.0.2.9"),
        ([route(2, metric=200, source="10.0.0.2"), route(2, metric=100, source="10.0.0.1")], "10.0.0.1"),
        ([route(2, table=7, source="10.0.0.2"), route(2, metric=9, source="10.0.0.1")], "10.0.0.1"),
        ([near(2, "10.0.0.0/24", source="10.0.0.9")], "192.0.2.9"),
        ([route(2, "::/0", "fe80::1", source="fd00::1")], "192.0.2.9"),
    ],
    ids=["says so", "gateway's network", "foreign gateway", "IPv6 gateway", "metric", "main first", "no default", "6"],
)
def test_the_address_to_speak_from(routes: list[KernelRoute], expected: str) -> None:
    [device] = select([ETH0], routes, TWO).devices
    assert device.masquerade4 == expected


def test_routes_with_several_next_hops_are_read() -> None:
    def attribute(kind: int, data: bytes) -> bytes:
        return struct.pack("=HH", 4 + len(data), kind) + data

    gateways = [
        attribute(5, socket.inet_aton("10.0.0.1")),
        attribute(18, b"\x0a\0" + b"\xfe\x80" + bytes(13) + b"\x01"),
    ]
    lengths = [8 + len(one) for one in gateways]
    padded = [one + bytes(-len(one) % 4) for one in gateways]
    several = b"".join(
        struct.pack("=HBBi", length, 0, 0, index) + data
        for index, (length, data) in enumerate(zip(lengths, padded, strict=True), start=2)
    )
    found = list(routes_of(RTMSG.pack(2, 0, 0, 0, 254, 3, 0, 1, 0), {9: several, 6: struct.pack("=I", 50)}))
    assert [(one.link_index, one.gateway, one.metric) for one in found] == [(2, "10.0.0.1", 50), (3, "fe80::1", 50)]
    assert not list(routes_of(RTMSG.pack(2, 0, 0, 0, 254, 3, 0, 7, 0), {})), "unreachable ones lead nowhere"
