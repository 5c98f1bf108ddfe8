"""Pods of several nodes: direct routes, the overlay device, cloud interfaces with IPv6, and taking it all out again."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from datapath.cleanup import clean
from datapath.devices.kernel import KernelDevices
from datapath.devices.observe import kernel_routes
from datapath.devices.vxlan import Done, KernelOverlay
from datapath.endpoints.wiring import KernelEndpoints
from datapath.errors import KernelRefused, NotWired
from datapath.model import OVERLAY_MAC, CloudLink, Endpoint, NodePods, host_device, pod_mac
from datapath.neighbours.kernel import KernelNeighbours
from datapath.neighbours.plan import next_hops
from datapath.netlink import NetlinkSocket
from datapath.routes.kernel import KernelRouting
from datapath.routes.nodes import KernelNodeRoutes
from tests.datapath.spaces import Spaces

pytestmark = [pytest.mark.root, pytest.mark.tool("ip", "ping")]

NODES = {name: NodePods(name, (f"10.0.0.{n}", f"fd00::{n}"), (f"10.{n}.0.0/24", f"fd00:{n}::/64"))
         for name, n in (("a", 1), ("b", 2), ("c", 3))}  # fmt: skip
FAR = NodePods("far", ("192.0.2.7",), ("10.7.0.0/24",))


@pytest.fixture
def spaces() -> Iterator[Spaces]:
    with Spaces() as one:
        yield one


@pytest.fixture
def nodes(spaces: Spaces) -> dict[str, str]:
    """
    pod 10.1.0.10, fd00:1::10 ── a ── ens5 ─┐
    pod 10.2.0.10, fd00:2::10 ── b ── ens5 ─┼─ segment (10.0.0.0/24, fd00::/64; a switch)
                                 c ── ens5 ─┘
    """
    segment = spaces.add("segment", "link add br0 type bridge", "link set br0 up", "addr add 10.0.0.254/24 dev br0")
    made = {}
    for name, pods in NODES.items():
        made[name] = space = spaces.add(name)
        spaces.cable(space, "ens5", segment, f"port-{name}")
        spaces.ip(segment, f"link set port-{name} master br0")
        spaces.ip(
            space, f"addr add {pods.addresses[0]}/24 dev ens5", f"addr add {pods.addresses[1]}/64 dev ens5 nodad",
            "route add default via 10.0.0.254",
        )  # fmt: skip
    return made


def pod(spaces: Spaces, nodes: dict[str, str], name: str) -> str:
    """A pod on a node; returns its space."""
    space, number = spaces.add(f"pod-{name}"), NODES[name].addresses[0][-1]
    address = f"10.{number}.0.10"
    with spaces.inside(nodes[name]):
        kernel = KernelEndpoints()
        kernel.prepare()
        kernel.wire(
            Endpoint(
                host_device(f"pod-{name}", "eth0"),
                spaces.path(space),
                "eth0",
                address,
                pod_mac(address),
                label=f"pod-{name}/eth0",
                address6=f"fd00:{number}::10",
            )
        )
    return space


def others(name: str) -> list[NodePods]:
    return [one for one in NODES.values() if one.name != name]


def test_direct_routes_carry_pods_packets_between_nodes(spaces: Spaces, nodes: dict[str, str]) -> None:
    one, two = pod(spaces, nodes, "a"), pod(spaces, nodes, "b")
    assert not spaces.ping(one, "10.2.0.10")
    for name, space in nodes.items():
        with spaces.inside(space):
            report = KernelNodeRoutes().direct([*others(name), FAR])
        assert (report.routes, report.added, report.removed) == (4, 4, 0)
        assert "reached by the gateway 10.0.0.254" in report.problems["far"]
    for source, targets in ((one, ("10.2.0.10", "fd00:2::10")), (two, ("10.1.0.10", "fd00:1::10"))):
        for target in targets:
            assert spaces.ping(source, target)
    assert spaces.ping(nodes["c"], "10.1.0.10"), "a node reaches another node's pod"
    with spaces.inside(nodes["a"]):
        assert [one.address for one in KernelEndpoints().found()] == ["10.1.0.10"], "routes to nodes are no pods"


def test_node_routes_follow_the_nodes(spaces: Spaces, nodes: dict[str, str]) -> None:
    foreign = "10.2.0.0/25 via 10.0.0.3 dev ens5"
    spaces.ip(nodes["a"], f"route add {foreign}")
    with spaces.inside(nodes["a"]):
        kernel = KernelNodeRoutes()
        kernel.direct(others("a"))
        assert kernel.direct(others("a")).added == 0, "what is right is not touched"
        moved = NodePods("b", ("10.0.0.3",), ("10.2.0.0/24",))
        report = kernel.direct([moved])
        assert (report.added, report.removed) == (1, 3), "a changed next hop is replaced in place"
        [route] = [one for one in spaces.show(nodes["a"], "route") if one["dst"] == "10.2.0.0/24"]
        assert (route["gateway"], route["protocol"]) == ("10.0.0.3", "80")
        KernelRouting().reconcile([])
        assert kernel.direct([moved]).added == 0, "cloud interfaces are another matter"
        assert kernel.clear().removed == 1
    left = [one for one in spaces.show(nodes["a"], "route") if one["dst"].startswith("10.2.")]
    assert [one["dst"] for one in left] == ["10.2.0.0/25"], "an administrator's stays"


def test_a_thousand_nodes_at_once(spaces: Spaces, nodes: dict[str, str]) -> None:
    many = [
        NodePods(f"n{n}", ("10.0.0.2",), (f"10.{64 + n // 256}.{n % 256}.0/24", f"fd00:64:{n:x}::/64"))
        for n in range(1000)
    ]
    with spaces.inside(nodes["a"]):
        KernelOverlay().ensure(underlay_mtu=1500)
        report = KernelNodeRoutes().tunnel(many)
        assert (report.added, report.removed) == (2000, 0)
        report = KernelNodeRoutes().direct(many)
        assert (report.added, report.removed, len(report.problems)) == (1000, 1000, 1000)


def test_tunnel_routes_lead_into_the_overlay_with_its_mac(spaces: Spaces, nodes: dict[str, str]) -> None:
    with spaces.inside(nodes["a"]):
        with pytest.raises(NotWired, match="plm_vxlan does not exist"):
            KernelNodeRoutes().tunnel(others("a"))
        overlay = KernelOverlay().ensure(underlay_mtu=1500)
        assert KernelNodeRoutes().tunnel(others("a"), {4: "10.0.0.1"}).added == 4
    [route] = [one for one in spaces.show(nodes["a"], "route") if one["dst"] == "10.2.0.0/24"]
    assert (route["dev"], route["scope"], route["prefsrc"]) == ("plm_vxlan", "link", "10.0.0.1")
    with spaces.inside(nodes["a"]):
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
    with wire:
        wire.bind(("plm_vxlan", 0x0003))
        for target, kind in (("10.2.0.10", "0800"), ("fd00:2::10", "86dd")):
            spaces.ping(nodes["a"], target)
            head = wire.recv(2048, socket.MSG_DONTWAIT)[:14].hex()
            assert head == OVERLAY_MAC.replace(":", "") * 2 + kind, "no ARP or NDP comes before the packet itself"
    assert overlay.mtu == 1450
    assert spaces.mac(nodes["a"], "plm_vxlan") == OVERLAY_MAC


def test_the_overlay_is_kept_changed_or_replaced(spaces: Spaces, nodes: dict[str, str]) -> None:
    with spaces.inside(nodes["a"]):
        kernel = KernelOverlay()
        made = kernel.ensure(underlay_mtu=9001)
        assert (made.mtu, made.done) == (8951, Done.CREATED)
        again = kernel.ensure(underlay_mtu=9001)
        assert (again.index, again.done) == (made.index, Done.KEPT)
        assert kernel.ensure(underlay_mtu=9001, underlay_family=6).mtu == 8931
        spaces.ip(nodes["a"], "link set plm_vxlan down", "link set plm_vxlan arp on")
        mended = kernel.ensure(underlay_mtu=9001)
        assert (mended.index, mended.done) == (made.index, Done.CHANGED)
        moved = kernel.ensure(underlay_mtu=9001, port=4789)
        assert moved.done == Done.REPLACED
        [shown] = spaces.show(nodes["a"], "link", "show", "plm_vxlan")
        facts = shown["linkinfo"]["info_data"]
        assert (facts["port"], facts["external"], facts["learning"], facts["udp_zero_csum6_rx"]) == (
            4789, True, False, True,
        )  # fmt: skip
        assert {"UP", "NOARP"} <= set(shown["flags"])
        assert not spaces.show(nodes["a"], "addr", "show", "plm_vxlan")[0]["addr_info"], "it needs no address"
        assert "plm_vxlan" not in {one.name for one in KernelDevices().detect().devices}
        with pytest.raises(NotWired, match="too few"):
            kernel.ensure(underlay_mtu=600)
        assert kernel.remove()
        assert not kernel.remove()


def test_another_overlay_has_the_port(spaces: Spaces, nodes: dict[str, str]) -> None:
    spaces.ip(
        nodes["a"], "link add flannel.1 type vxlan id 1 dstport 8472 local 10.0.0.1 dev ens5", "link set flannel.1 up"
    )
    with spaces.inside(nodes["a"]), pytest.raises(KernelRefused, match="UDP port 8472") as refusal:
        KernelOverlay().ensure(underlay_mtu=1500)
    assert "set another port" in refusal.value.remedy
    assert not [one for one in spaces.show(nodes["a"], "link") if one["ifname"] == "plm_vxlan"], "nothing half made"


@pytest.fixture
def cloud(spaces: Spaces) -> str:
    """
    pod 10.0.0.20, fd00::20 ── node ── ens5 (10.0.0.5, fd00::5) ── vpc port0 (10.0.0.1, fe80::1)
                                    └─ ens6                     ── vpc port1 (10.0.0.1, fe80::1)

    The VPC delivers the pod's addresses to port1 only, and takes its packets from there only (strict filtering for
    IPv4; a rule that drops what comes by port0 for IPv6).
    """
    node, vpc = spaces.add("node"), spaces.add("vpc")
    spaces.sysctl(vpc, "ipv4/conf/all/rp_filter", "1")
    spaces.sysctl(vpc, "ipv4/conf/default/rp_filter", "1")
    for number in (0, 1):
        spaces.cable(node, f"ens{5 + number}", vpc, f"port{number}")
        spaces.ip(
            vpc, f"addr add 10.0.0.1/32 dev port{number}", f"addr add fe80::1/64 dev port{number} nodad",
        )  # fmt: skip
    spaces.ip(vpc, "rule add priority 0 from fd00::20 iif port0 blackhole", family=6)
    spaces.ip(vpc, "addr add fd00:ffff::1/128 dev lo")
    spaces.ip(
        vpc, *(f"route add {one} dev port0" for one in ("10.0.0.5/32", "fd00::5/128")),
        *(f"route add {one} dev port1" for one in ("10.0.0.6/32", "fd00::6/128", "10.0.0.20/32", "fd00::20/128")),
    )  # fmt: skip
    spaces.ip(
        node, "addr add 10.0.0.5/24 dev ens5", "addr add fd00::5/64 dev ens5 nodad",
        "route add default via 10.0.0.1", "route add default via fe80::1 dev ens5",
    )  # fmt: skip
    return node


def test_ipv6_of_a_cloud_interface_leaves_by_it(spaces: Spaces, cloud: str) -> None:
    space = spaces.add("pod")
    one = Endpoint(
        host_device("c", "eth0"), spaces.path(space), "eth0", "10.0.0.20", pod_mac("10.0.0.20"), address6="fd00::20"
    )
    link = CloudLink(
        "eni-b", spaces.mac(cloud, "ens6"), 1, "10.0.0.1", "10.0.0.6", frozenset({"10.0.0.20", "fd00::20", "fd00::21"}),
        "fe80::1", "fd00::6",
    )  # fmt: skip
    with spaces.inside(cloud):
        endpoints, routing = KernelEndpoints(), KernelRouting()
        endpoints.prepare()
        endpoints.wire(one)
        report = routing.reconcile([link])
        assert not report.problems
        again = routing.reconcile([link])
        assert (again.added, again.removed) == (0, 0), "what the kernel says is what was asked for"
        assert list(routing.node_addresses()) == ["10.0.0.5", "fd00::5"]
    for target in ("10.0.0.1", "fd00:ffff::1"):
        assert spaces.ping(space, target), target
    assert spaces.ping(f"{spaces.tag}-vpc", "fd00::20")
    assert spaces.ping(cloud, "fd00::20")
    assert not spaces.ping(space, "fd00::21"), "an address that no pod has is unreachable"
    with spaces.inside(cloud):
        gone = routing.reconcile([])
    assert (gone.added, gone.removed) == (0, report.added - 1), "all but the rule that is always there"


def _everything(spaces: Spaces, space: str) -> list[str]:
    """What `ip` shows of a namespace, in comparable form."""
    found = []
    for family in ("-4", "-6"):
        for what in (("addr",), ("rule",), ("route", "show", "table", "all"), ("neigh",), ("neigh", "show", "proxy")):
            for one in spaces.show(space, family, *what):
                if what == ("neigh",) and "PERMANENT" not in one["state"] and "protocol" not in one:
                    continue  # the kernel learns of whoever speaks to it
                for noise in ("stats64", "used", "updated", "confirmed", "state", "lladdr", "refcnt", "probes"):
                    one.pop(noise, None)
                found.append(json.dumps([family, *what, one], sort_keys=True))
    return sorted(found)


def test_cleanup_leaves_what_was_there_before_and_nothing_else(spaces: Spaces, cloud: str) -> None:
    spaces.ip(
        cloud, "link set ens6 up", "rule add priority 4000 from 192.0.2.1 lookup 77", "route add 192.0.2.0/24 dev ens5",
        "neigh add proxy 10.0.0.99 dev ens5", "neigh add 10.0.0.98 lladdr 02:00:00:00:00:98 dev ens5 nud permanent",
    )  # fmt: skip
    for setting in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        spaces.sysctl(cloud, setting, "1")  # which stays, and brings addresses of its own
    before = _everything(spaces, cloud)
    space, link = spaces.add("pod"), CloudLink(
        "eni-b", spaces.mac(cloud, "ens6"), 1, "10.0.0.1", "10.0.0.6", frozenset({"10.0.0.20", "fd00::20", "fd00::21"}),
        "fe80::1", "fd00::6",
    )  # fmt: skip
    with spaces.inside(cloud):
        for number in (20, 30, 31):
            KernelEndpoints().wire(
                Endpoint(
                    host_device(f"c{number}", "eth0"),
                    spaces.path(spaces.add(f"pod{number}")),
                    "eth0",
                    f"10.0.0.{number}",
                    pod_mac(f"10.0.0.{number}"),
                    address6=f"fd00::{number}",
                )
            )
        KernelRouting().reconcile([link])
        KernelOverlay().ensure(underlay_mtu=1500)
        KernelNodeRoutes().tunnel(others("a"))
        devices = KernelDevices().detect().devices
        with NetlinkSocket() as connection:
            KernelNeighbours().reconcile(next_hops(devices, kernel_routes(connection)))
        told = clean(dry_run=True)
        assert _everything(spaces, cloud) != before
        report = clean()
        assert report == told, "a dry run tells what will go"
        assert not clean(), "a second time there is nothing"
    assert _everything(spaces, cloud) == before
    assert not [one["ifname"] for one in spaces.show(cloud, "link") if one["ifname"].startswith("plm")]
    assert not spaces.show(space, "link", "show", "type", "veth")
    assert len(report.devices) == 4
    assert "5010: from fd00::20 lookup 20001 (IPv6)" in report.rules
    assert "unreachable 10.0.0.20/32 table 254" in report.routes
    assert "10.2.0.0/24 dev plm_vxlan table 254" in report.routes
    assert "proxy fd00::20 dev ens6" in report.neighbours
    assert "fe80::1 dev ens5" in report.neighbours
    assert list(report.addresses) == ["10.0.0.6 dev ens6", "fd00::6 dev ens6"]
