"""Devices, next hops and news of the node's network on a real kernel."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from datapath.devices.kernel import KernelDevices
from datapath.endpoints.wiring import KernelEndpoints
from datapath.model import Endpoint, ExternalDevice, NextHop, host_device
from datapath.neighbours.kernel import KernelNeighbours, neighbours
from datapath.netlink import NetlinkSocket
from datapath.network_events import Changes, NetworkEvents
from tests.datapath.spaces import Spaces, thread, until

pytestmark = [pytest.mark.root, pytest.mark.tool("ip", "ping")]


@pytest.fixture
def spaces() -> Iterator[Spaces]:
    with Spaces() as one:
        yield one


@pytest.fixture
def node(spaces: Spaces) -> str:
    """
    node ── ens5 (10.0.0.5, fd00::5; default route) ── router lan0 (10.0.0.1, fd00::1)
         └─ ens6 (plugged in, without routes)       ── router lan1
    """
    node, router = spaces.add("node"), spaces.add("router")
    spaces.cable(node, "ens5", router, "lan0", mtu=9001)
    spaces.cable(node, "ens6", router, "lan1")
    spaces.ip(
        node, "addr add 10.0.0.5/24 dev ens5", "addr add fd00::5/64 dev ens5 nodad",
        "route add default via 10.0.0.1", "route add default via fd00::1",
    )  # fmt: skip
    spaces.ip(router, "addr add 10.0.0.1/24 dev lan0", "addr add fd00::1/64 dev lan0 nodad")
    return node


def detected(spaces: Spaces, node: str, *patterns: str) -> dict[str, ExternalDevice]:
    with spaces.inside(node):
        return {one.name: one for one in KernelDevices(patterns).detect().devices}


def test_a_cable_with_a_default_route_leads_out(spaces: Spaces, node: str) -> None:
    found = detected(spaces, node)
    assert found == {
        "ens5": ExternalDevice(
            "ens5", spaces.index(node, "ens5"), spaces.mac(node, "ens5"), 9001, "veth", True,
            ("10.0.0.5",), ("fd00::5",), "10.0.0.5", "fd00::5",
        )
    }  # fmt: skip
    assert list(detected(spaces, node, "ens[6-9]")) == ["ens6"]


def test_routes_of_any_table_count(spaces: Spaces, node: str) -> None:
    spaces.ip(node, "addr add 10.0.1.5/32 dev ens6", "route add default via 10.0.1.1 dev ens6 table 20001 onlink")
    found = detected(spaces, node)
    assert found["ens6"].masquerade4 == "10.0.1.5"


def test_the_address_is_the_one_that_the_kernel_uses(spaces: Spaces, node: str) -> None:
    spaces.ip(node, "addr add 10.9.0.1/32 dev ens5", "addr add 10.0.0.7/24 dev ens5")
    for command in (
        "route replace default via 10.0.0.1",
        "route replace default via 10.0.0.1 src 10.0.0.7",
        "route replace default via 10.0.0.1 src 10.9.0.1",
    ):
        spaces.ip(node, command)
        [asked] = spaces.show(node, "route", "get", "198.51.100.1")
        assert detected(spaces, node)["ens5"].masquerade4 == asked["prefsrc"]
    [asked] = spaces.show(node, "-6", "route", "get", "2600::1")
    assert detected(spaces, node)["ens5"].masquerade6 == asked["prefsrc"]


def test_devices_are_followed_as_they_come_and_go(spaces: Spaces, node: str) -> None:
    seen: list[list[str]] = []

    def look(_: Changes) -> None:
        with spaces.inside(node):
            seen.append([one.name for one in KernelDevices().detect().devices])

    with spaces.inside(node):
        events = NetworkEvents()
    with events, thread(lambda stop: events.follow(look, stop)):
        spaces.ip(node, "addr add 10.0.1.5/24 dev ens6")
        assert until(lambda: seen[-1:] == [["ens5", "ens6"]]) < 1
        spaces.ip(node, "link set ens5 down")
        assert until(lambda: seen[-1:] == [["ens6"]]) < 1
        spaces.ip(node, "link del ens6")
        assert until(lambda: seen[-1:] == [[]]) < 1
        assert len(seen) < 8, "a burst is one piece of news"


def kept(spaces: Spaces, node: str) -> dict[str, tuple[str, bool]]:
    with spaces.inside(node), NetlinkSocket() as connection:
        return {one.address: (one.resolved, one.managed) for one in neighbours(connection) if one.protocol == 80}


def hops(spaces: Spaces, node: str) -> list[NextHop]:
    index = spaces.index(node, "ens5")
    return [NextHop("10.0.0.1", index), NextHop("fd00::1", index)]


def test_next_hops_are_resolved_without_a_packet_of_anybody(spaces: Spaces, node: str) -> None:
    kernel, gateway = KernelNeighbours(), spaces.mac(f"{spaces.tag}-router", "lan0")
    with spaces.inside(node):
        report = kernel.reconcile(hops(spaces, node))
    assert (report.managed, report.added, report.removed) == (True, 2, 0)
    until(lambda: kept(spaces, node) == {"10.0.0.1": (gateway, True), "fd00::1": (gateway, True)})
    with spaces.inside(node):
        again = kernel.reconcile(hops(spaces, node))
        assert (again.added, again.removed, again.unresolved) == (0, 0, frozenset())
        assert kernel.reconcile(hops(spaces, node)[:1]).removed == 1
    assert list(kept(spaces, node)) == ["10.0.0.1"]


def test_neighbours_of_others_are_left_alone(spaces: Spaces, node: str) -> None:
    spaces.ip(
        node, "neigh add 10.0.0.1 lladdr 02:00:00:00:00:99 dev ens5 nud permanent",
        "neigh add 10.0.0.9 lladdr 02:00:00:00:00:98 dev ens5 nud permanent",
    )  # fmt: skip
    with spaces.inside(node):
        KernelNeighbours().reconcile(hops(spaces, node))
        KernelNeighbours().reconcile([])
        KernelNeighbours().refresh(hops(spaces, node)[:1])
    states = {one["dst"]: (one["lladdr"], one["state"]) for one in spaces.show(node, "-4", "neigh")}
    assert states == {
        "10.0.0.1": ("02:00:00:00:00:99", ["PERMANENT"]), "10.0.0.9": ("02:00:00:00:00:98", ["PERMANENT"]),
    }  # fmt: skip


def test_one_that_the_kernel_has_learnt_is_taken_over_as_it_is(spaces: Spaces, node: str) -> None:
    assert spaces.ping(node, "10.0.0.1")
    with spaces.inside(node):
        report = KernelNeighbours().reconcile(hops(spaces, node)[:1])
    assert not report.unresolved, "with its MAC"


def test_without_managed_neighbours_they_are_probed(spaces: Spaces, node: str) -> None:
    """What an old kernel needs: this one is not told to manage, only to refresh."""
    wanted, gateway = hops(spaces, node), spaces.mac(f"{spaces.tag}-router", "lan0")
    with spaces.inside(node):
        KernelNeighbours().refresh(wanted)
    until(lambda: kept(spaces, node) == {"10.0.0.1": (gateway, False), "fd00::1": (gateway, False)})
    fresh = "02:00:00:00:77:77"
    spaces.ip(f"{spaces.tag}-router", f"link set lan0 address {fresh}")

    def refreshed() -> bool:
        with spaces.inside(node):
            KernelNeighbours().refresh(wanted)
        time.sleep(0.5)
        return {mac for mac, _ in kept(spaces, node).values()} == {fresh}

    until(refreshed, 15)


def test_a_gateway_that_is_another_machine_now_is_news_within_a_second(spaces: Spaces, node: str) -> None:
    router = f"{spaces.tag}-router"
    with spaces.inside(node):
        KernelNeighbours().reconcile(hops(spaces, node))
    until(lambda: all(mac for mac, _ in kept(spaces, node).values()))
    spaces.sysctl(router, "ipv4/conf/lan0/arp_notify", "1")
    told: list[NextHop] = []
    with spaces.inside(node):
        events = NetworkEvents()
    with events, thread(lambda stop: events.follow(lambda changes: told.extend(changes.next_hops), stop)):
        spaces.ip(router, "link set lan0 address 02:00:00:00:77:77")
        assert until(lambda: NextHop("10.0.0.1", spaces.index(node, "ens5")) in told) < 1
    assert kept(spaces, node)["10.0.0.1"] == ("02:00:00:00:77:77", True)


def test_a_pod_wakes_nobody(spaces: Spaces, node: str) -> None:
    with spaces.inside(node):
        kernel = KernelEndpoints()
        kernel.prepare()
        first = Endpoint(
            host_device("c0", "eth0"), spaces.path(spaces.add("pod0")), "eth0", "10.1.0.9", "0e:58:0a:01:00:09",
            address6="fd00:1::9",
        )  # fmt: skip
        kernel.wire(first)
        with NetworkEvents() as events:
            events.wait(0.3)
            one = Endpoint(
                host_device("c1", "eth0"), spaces.path(spaces.add("pod1")), "eth0", "10.1.0.10", "0e:58:0a:01:00:0a",
                label="c1/eth0", address6="fd00:1::10",
            )  # fmt: skip
            kernel.wire(one)
            assert spaces.ping(node, "10.1.0.10")
            assert spaces.ping(node, "fd00:1::10")
            kernel.unwire(one.host_device, one.address)
            kernel.unwire(first.host_device, first.address)
            assert not events.wait(0.5)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("route add 192.0.2.0/24 via 10.0.0.9", Changes(routes=True)),
        ("route add 2001:db8::/32 via fd00::9", Changes(routes=True)),
        ("route add unreachable 192.0.2.0/24 table 7", Changes(routes=True)),
        ("rule add from 192.0.2.1 lookup 7", Changes(routes=True)),
        ("rule add from 2001:db8::1 lookup 7", Changes(routes=True)),
        ("link set ens6 mtu 1400", Changes(devices=True)),
        ("link set ens6 promisc on", Changes()),
        ("neigh add 10.0.0.77 lladdr 02:00:00:00:00:77 dev ens5", Changes()),
        ("link set ens6 alias nobody", Changes(devices=True)),
    ],
)
def test_what_is_news(spaces: Spaces, node: str, command: str, expected: Changes) -> None:
    with spaces.inside(node), NetworkEvents() as events:
        events.wait(0.2)
        spaces.ip(node, command, family=6 if ":db8:" in command else 0)
        assert events.wait(0.5) == expected


def test_lost_news_means_that_everything_may_have_changed(spaces: Spaces, node: str) -> None:
    with spaces.inside(node), NetworkEvents() as events:
        events.wait(0.2)
        commands = [
            f"route {verb} 192.0.{n // 256}.{n % 256}/32 dev ens5" for verb in ("add", "del") for n in range(50_000)
        ]
        spaces.ip(node, *commands)
        changes = Changes()
        while more := events.wait(0.2):
            changes |= more
    assert changes.lost
    assert changes.devices
    assert changes.routes


def test_followers_stop_when_they_are_told_to(spaces: Spaces, node: str) -> None:
    with spaces.inside(node):
        events = NetworkEvents()
    stop = threading.Event()
    worker = threading.Thread(target=events.follow, args=(lambda _: None, stop))
    worker.start()
    stop.set()
    worker.join(2)
    assert not worker.is_alive()
    events.close()
