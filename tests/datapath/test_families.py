"""Pods with IPv4, IPv6 or both, on one node and to the world, with real packets and plain kernel routing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from datapath.endpoints.wiring import KernelEndpoints
from datapath.errors import InvalidEndpoint, NotWired
from datapath.model import HOST_MAC, POD_GATEWAY6, Endpoint, host_device, pod_mac
from tests.datapath.spaces import Spaces

pytestmark = [pytest.mark.root, pytest.mark.tool("ip", "ping")]

POD4, POD6 = "10.1.0.{}", "fd00:1::{}"


@pytest.fixture
def spaces() -> Iterator[Spaces]:
    with Spaces() as one:
        yield one


@pytest.fixture
def node(spaces: Spaces) -> str:
    """
    pods ── node ── ens5 (10.0.0.5, fd00::5) ── world (10.0.0.1, fd00::1; routes to all pods by the node)
    """
    node, world = spaces.add("node"), spaces.add("world")
    spaces.cable(node, "ens5", world, "lan0")
    spaces.ip(
        node, "addr add 10.0.0.5/24 dev ens5", "addr add fd00::5/64 dev ens5 nodad",
        "route add default via 10.0.0.1", "route add default via fd00::1",
    )  # fmt: skip
    spaces.ip(
        world, "addr add 10.0.0.1/24 dev lan0", "addr add fd00::1/64 dev lan0 nodad",
        "route add 10.1.0.0/24 via 10.0.0.5", "route add fd00:1::/64 via fd00::5",
    )  # fmt: skip
    with spaces.inside(node):
        KernelEndpoints().prepare()
    return node


def endpoint(spaces: Spaces, number: int, families: str = "46", **more: object) -> Endpoint:
    space = spaces.add(f"pod{number}")
    address = POD4.format(number) if "4" in families else ""
    address6 = POD6.format(number) if "6" in families else ""
    return Endpoint(
        host_device=host_device(f"c{number}", "eth0"), netns=spaces.path(space), device="eth0", address=address,
        mac=pod_mac(address or address6), label=f"c{number}/eth0", address6=address6, **more,  # type: ignore[arg-type]
    )  # fmt: skip


def wire(spaces: Spaces, node: str, *endpoints: Endpoint) -> None:
    with spaces.inside(node):
        for one in endpoints:
            KernelEndpoints().wire(one)


def space_of(one: Endpoint) -> str:
    return one.netns.rpartition("/")[2]


@pytest.mark.parametrize(("families", "reached"), [("46", "46"), ("6", "6"), ("4", "4")])
def test_each_family_reaches_pod_node_and_world(spaces: Spaces, node: str, families: str, reached: str) -> None:
    first, second = endpoint(spaces, 10, families), endpoint(spaces, 11, families)
    wire(spaces, node, first, second)
    targets = {"4": (POD4.format(11), "10.0.0.5", "10.0.0.1"), "6": (POD6.format(11), "fd00::5", "fd00::1")}
    for family, addresses in targets.items():
        for target in addresses:
            assert spaces.ping(space_of(first), target) == (family in reached), target
    for address in first.addresses:
        assert spaces.ping(node, address), "the node reaches its pod"
        assert spaces.ping(f"{spaces.tag}-world", address), "and so does the world"


def test_the_kernel_holds_what_a_pod_needs_and_nothing_more(spaces: Spaces, node: str) -> None:
    one = endpoint(spaces, 10, "6", mtu=1400)
    wire(spaces, node, one)
    pod = space_of(one)
    [address] = [
        entry for entry in spaces.show(pod, "-6", "addr", "show", "eth0")[0]["addr_info"] if entry["scope"] == "global"
    ]
    assert (address["local"], address["prefixlen"]) == (POD6.format(10), 128)
    assert address["nodad"], "usable at once"
    [neighbour] = [entry for entry in spaces.show(pod, "-6", "neigh") if "PERMANENT" in entry["state"]]
    assert (neighbour["dst"], neighbour["lladdr"]) == (POD_GATEWAY6, HOST_MAC)
    assert not spaces.show(pod, "-4", "route"), "no IPv4"
    assert spaces.setting(pod, "ipv6/conf/eth0/accept_ra") == "0"
    [route] = [entry for entry in spaces.show(node, "-6", "route") if entry["dst"] == POD6.format(10)]
    assert (route["protocol"], route["dev"]) == ("80", one.host_device)
    assert spaces.setting(node, f"ipv6/conf/{one.host_device}/accept_ra") == "0"


def test_runtimes_that_switch_ipv6_off_in_new_pods(spaces: Spaces, node: str) -> None:
    one = endpoint(spaces, 10)
    for scope in ("all", "default"):
        spaces.sysctl(space_of(one), f"ipv6/conf/{scope}/disable_ipv6", "1")
    wire(spaces, node, one)
    assert spaces.ping(space_of(one), "fd00::1")


def test_a_node_without_ipv6_pods_is_left_as_it_was(spaces: Spaces, node: str) -> None:
    wire(spaces, node, endpoint(spaces, 10, "4"))
    assert spaces.setting(node, "ipv6/conf/all/forwarding") == "0"
    assert spaces.setting(node, f"ipv6/conf/{host_device('c10', 'eth0')}/accept_ra") == "0", "no pod is its router"


def test_a_host_that_listens_to_routers_goes_on_listening(spaces: Spaces, node: str) -> None:
    assert spaces.setting(node, "ipv6/conf/ens5/accept_ra") == "1"
    wire(spaces, node, endpoint(spaces, 10, "6"))
    assert spaces.setting(node, "ipv6/conf/all/forwarding") == "1"
    assert spaces.setting(node, "ipv6/conf/ens5/accept_ra") == "2"
    spaces.cable(node, "ens6", f"{spaces.tag}-world", "lan1")
    assert spaces.setting(node, "ipv6/conf/ens6/accept_ra") == "2", "also one that comes later"
    wire(spaces, node, endpoint(spaces, 11, "6"))
    assert spaces.setting(node, f"ipv6/conf/{host_device('c11', 'eth0')}/accept_ra") == "0", "but never to a pod"


def test_whole_frames_of_both_families(spaces: Spaces, node: str) -> None:
    first, second = endpoint(spaces, 10, mtu=1400), endpoint(spaces, 11, mtu=1400)
    wire(spaces, node, first, second)
    for address, header in ((second.address, 28), (second.address6, 48)):
        assert spaces.ping(space_of(first), address, "-M", "do", "-s", str(1400 - header))
        assert not spaces.ping(space_of(first), address, "-M", "do", "-s", str(1401 - header))


def test_found_and_check_know_both_families(spaces: Spaces, node: str) -> None:
    dual, lone = endpoint(spaces, 10), endpoint(spaces, 11, "6")
    wire(spaces, node, dual, lone)
    with spaces.inside(node):
        told = {one.host_device: (one.address, one.address6, one.label) for one in KernelEndpoints().found()}
        assert told == {one.host_device: (one.address, one.address6, one.label) for one in (dual, lone)}
        KernelEndpoints().check(dual)
        KernelEndpoints().check(lone)
    spaces.ip(space_of(dual), f"addr del {dual.address6}/128 dev eth0")
    with spaces.inside(node), pytest.raises(NotWired, match="lacks the address fd00:1::10"):
        KernelEndpoints().check(dual)
    spaces.ip(space_of(lone), "route del default", family=6)
    with spaces.inside(node), pytest.raises(NotWired, match="no default route of ours for IPv6"):
        KernelEndpoints().check(lone)


def test_restore_puts_back_only_what_is_missing(spaces: Spaces, node: str) -> None:
    one = endpoint(spaces, 10)
    wire(spaces, node, one)
    spaces.ip(node, f"route del {one.address6}", family=6)
    spaces.sysctl(node, f"ipv6/conf/{one.host_device}/accept_ra", "1")
    with spaces.inside(node):
        kernel = KernelEndpoints()
        assert list(kernel.restore([one])) == [f"the route to {one.address6} was missing and is back"]
        assert spaces.setting(node, f"ipv6/conf/{one.host_device}/accept_ra") == "0"
        assert not kernel.restore([one])
        kernel.check(one)
    assert spaces.ping(f"{spaces.tag}-world", one.address6)


def test_a_repeated_wire_touches_nothing_and_a_changed_one_starts_over(spaces: Spaces, node: str) -> None:
    one = endpoint(spaces, 10)
    wire(spaces, node, one)
    before = spaces.index(node, one.host_device)
    wire(spaces, node, one)
    assert spaces.index(node, one.host_device) == before
    spaces.ip(space_of(one), f"addr del {one.address6}/128 dev eth0")
    wire(spaces, node, one)
    assert spaces.index(node, one.host_device) != before
    assert spaces.ping(space_of(one), "fd00::1")


def test_unwire_leaves_nothing(spaces: Spaces, node: str) -> None:
    one = endpoint(spaces, 10)
    before = [spaces.show(node, "-6", what) for what in ("route", "neigh")]
    wire(spaces, node, one)
    with spaces.inside(node):
        KernelEndpoints().unwire(one.host_device, one.address)
    assert [spaces.show(node, "-6", what) for what in ("route", "neigh")] == before


@pytest.mark.parametrize(
    ("address", "address6", "mtu", "says"),
    [
        ("", "", 0, "needs an address"),
        ("fd00::1", "", 0, "not IPv4"),
        ("", "10.0.0.1", 0, "not IPv6"),
        ("", "fd00::zz", 0, "is no address"),
        ("", "fd00:0::1", 0, "to be written fd00::1"),
        ("10.0.0.1", "fd00::1", 1279, "too small for IPv6"),
    ],
)
def test_what_cannot_be(address: str, address6: str, mtu: int, says: str) -> None:
    one = Endpoint("plm0", "/run/netns/none", "eth0", address, "0e:58:00:00:00:01", mtu, "", address6)
    with pytest.raises(InvalidEndpoint, match=says):
        KernelEndpoints().wire(one)
