"""Routes to other nodes' pods and the next hops that matter, as pure functions."""

from __future__ import annotations

from datapath.devices.observe import KernelRoute
from datapath.model import MAIN_TABLE, NODE_ROUTE_METRIC, ExternalDevice, NextHop, NodePods, Route
from datapath.neighbours.plan import NUD_FAILED, NUD_PROBE, NUD_REACHABLE, NUD_STALE, LinkLayer, Neighbour, next_hops
from datapath.routes.nodes import direct, tunnelled

TABLE = [
    KernelRoute("0.0.0.0", 0, MAIN_TABLE, 2, "10.0.0.1"),
    KernelRoute("10.0.0.0", 24, MAIN_TABLE, 2),
    KernelRoute("10.0.0.128", 25, MAIN_TABLE, 2, "10.0.0.2"),
    KernelRoute("fd00::", 64, MAIN_TABLE, 2, metric=256),
    KernelRoute("::", 0, MAIN_TABLE, 2, "fe80::1", metric=1024),
]
NEAR = NodePods("near", ("10.0.0.6", "fd00::6"), ("10.2.0.0/24", "fd00:2::/64"))
ETH0 = ExternalDevice("eth0", 2, "02:00:00:00:00:02", 1500, addresses4=("10.0.0.5",))
WG0 = ExternalDevice("wg0", 3, "", 1420, has_ethernet=False)


def test_a_node_on_the_segment_is_the_next_hop_of_its_pods() -> None:
    plan = direct([NEAR], TABLE)
    assert plan.routes == {
        Route("10.2.0.0", 24, MAIN_TABLE, 2, "10.0.0.6", NODE_ROUTE_METRIC),
        Route("fd00:2::", 64, MAIN_TABLE, 2, "fd00::6", NODE_ROUTE_METRIC),
    }
    assert not plan.problems


def test_one_behind_a_gateway_is_told_of_and_the_others_go_on() -> None:
    far = NodePods("far", ("10.0.9.6",), ("10.9.0.0/24",))
    aside = NodePods("aside", ("10.0.0.200",), ("10.8.0.0/24",))
    plan = direct([far, NEAR, aside], TABLE)
    assert len(plan.routes) == 2
    assert "reached by the gateway 10.0.0.1" in plan.problems["far"]
    assert "reached by the gateway 10.0.0.2" in plan.problems["aside"], "the most specific route decides"
    assert "use the tunnel" in plan.problems["far"]


def test_a_family_that_the_node_lacks() -> None:
    plan = direct([NodePods("half", ("10.0.0.7",), ("10.7.0.0/24", "fd00:7::/64"))], TABLE)
    assert [one.destination for one in plan.routes] == ["10.7.0.0"]
    assert "it has no IPv6 address" in plan.problems["half"]
    assert "no route to its address" in direct([NEAR], []).problems["near"]


def test_all_are_reached_by_the_tunnel() -> None:
    plan = tunnelled([NEAR, NodePods("far", (), ("10.9.0.0/24",))], 15, {4: "10.1.0.1"})
    assert plan.routes == {
        Route("10.2.0.0", 24, MAIN_TABLE, 15, "", NODE_ROUTE_METRIC, "10.1.0.1"),
        Route("10.9.0.0", 24, MAIN_TABLE, 15, "", NODE_ROUTE_METRIC, "10.1.0.1"),
        Route("fd00:2::", 64, MAIN_TABLE, 15, "", NODE_ROUTE_METRIC),
    }


def test_gateways_and_nodes_of_the_segment_are_next_hops() -> None:
    routes = [
        *TABLE,
        KernelRoute("0.0.0.0", 0, MAIN_TABLE, 3, "10.9.0.1"),
        KernelRoute("10.5.0.0", 16, 77, 9, "10.5.0.1"),
    ]
    found = next_hops([ETH0, WG0], routes, ["10.0.0.6", "fd00::6", "172.16.0.9", "10.0.0.5"])
    assert found == {
        NextHop("10.0.0.1", 2), NextHop("10.0.0.2", 2), NextHop("fe80::1", 2),
        NextHop("10.0.0.6", 2), NextHop("fd00::6", 2),
    }, "not those without Ethernet, of other devices, behind a gateway, or this node itself"  # fmt: skip


def test_what_is_news_about_a_neighbour() -> None:
    def hop(mac: str, state: int, **more: bool) -> Neighbour:
        return Neighbour("10.0.0.1", 2, mac, state, **more)

    known = LinkLayer()
    assert not known.hear(hop("", 0x01)), "it is being resolved"
    assert not known.hear(hop("aa", NUD_REACHABLE)), "for the first time"
    assert not known.hear(hop("aa", NUD_STALE))
    assert not known.hear(hop("aa", NUD_PROBE))
    assert known.hear(hop("bb", NUD_REACHABLE)), "another one answers"
    assert known.hear(hop("bb", NUD_FAILED)), "nobody answers"
    assert not known.hear(hop("bb", NUD_FAILED))
    assert not known.hear(hop("cc", NUD_REACHABLE))
    assert known.hear(hop("cc", NUD_REACHABLE, gone=True))
    known.hear(hop("dd", NUD_REACHABLE))
    assert known.learn([hop("ee", NUD_STALE)]) == {NextHop("10.0.0.1", 2)}, "also when the news was lost"
    assert known.learn([]) == {NextHop("10.0.0.1", 2)}
    assert not known.learn([hop("ee", NUD_STALE)])
