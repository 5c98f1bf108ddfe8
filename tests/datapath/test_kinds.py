"""Kinds of devices that not every kernel can make. A kernel without one skips its test and says which it lacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from datapath.devices.kernel import KernelDevices
from datapath.model import ExternalDevice, NextHop
from datapath.neighbours.kernel import KernelNeighbours, neighbours
from datapath.netlink import NetlinkSocket
from tests.datapath.spaces import Spaces, until

pytestmark = [pytest.mark.root, pytest.mark.tool("ip", "ping")]


@pytest.fixture
def spaces() -> Iterator[Spaces]:
    with Spaces() as one:
        yield one


@pytest.fixture
def needs(spaces: Spaces) -> Callable[..., None]:
    def check(*kinds: str) -> None:
        lacking = [kind for kind in kinds if not spaces.knows(kind)]
        if lacking:
            pytest.skip(f"this kernel makes no devices of the kind {', '.join(lacking)}")

    return check


@pytest.fixture
def node(spaces: Spaces) -> str:
    """
    node ── ens5 ── router lan0
         └─ ens6 ── router lan1
    """
    node, router = spaces.add("node"), spaces.add("router")
    spaces.cable(node, "ens5", router, "lan0")
    spaces.cable(node, "ens6", router, "lan1")
    return node


def detected(spaces: Spaces, node: str) -> dict[str, ExternalDevice]:
    with spaces.inside(node):
        return {one.name: one for one in KernelDevices().detect().devices}


def resolved(spaces: Spaces, node: str, address: str, device: str) -> str:
    """The MAC that the kernel finds for a next hop by itself."""
    hop = NextHop(address, spaces.index(node, device))
    found: dict[NextHop, str] = {}

    def look() -> bool:
        with NetlinkSocket() as connection:
            found.update({one.next_hop: one.resolved for one in neighbours(connection)})
        return bool(found.get(hop))

    with spaces.inside(node):
        KernelNeighbours().reconcile([hop])
        until(look)
    return found[hop]


def test_a_bond_and_not_its_members(spaces: Spaces, node: str, needs: Callable[..., None]) -> None:
    """
    node bond0 (ens5, ens6; 10.0.0.5) ── router bond0 (10.0.0.1)
    """
    needs("bond")
    router = f"{spaces.tag}-router"
    for space, members, address in ((node, ("ens5", "ens6"), 5), (router, ("lan0", "lan1"), 1)):
        spaces.ip(
            space, "link add bond0 type bond mode active-backup",
            *(f"link set {one} down" for one in members), *(f"link set {one} master bond0" for one in members),
            "link set bond0 up", f"addr add 10.0.0.{address}/24 dev bond0",
        )  # fmt: skip
    spaces.ip(node, "route add default via 10.0.0.1")
    found = detected(spaces, node)
    assert list(found) == ["bond0"]
    assert (found["bond0"].kind, found["bond0"].masquerade4) == ("bond", "10.0.0.5")
    assert resolved(spaces, node, "10.0.0.1", "bond0") == spaces.mac(router, "bond0")


def test_a_vlan_and_its_parent_only_with_routes_of_its_own(
    spaces: Spaces, node: str, needs: Callable[..., None]
) -> None:
    """
    node ens5.7 (10.0.7.5) on ens5 ── router lan0.7 (10.0.7.1) on lan0
    """
    needs("vlan")
    router = f"{spaces.tag}-router"
    for space, parent, address in ((node, "ens5", 5), (router, "lan0", 1)):
        spaces.ip(
            space, f"link add link {parent} name {parent}.7 type vlan id 7", f"link set {parent}.7 up",
            f"addr add 10.0.7.{address}/24 dev {parent}.7",
        )  # fmt: skip
    spaces.ip(node, "route add default via 10.0.7.1")
    assert list(detected(spaces, node)) == ["ens5.7"]
    assert resolved(spaces, node, "10.0.7.1", "ens5.7") == spaces.mac(router, "lan0.7")
    spaces.ip(node, "addr add 10.0.0.5/24 dev ens5")
    assert sorted(detected(spaces, node)) == ["ens5", "ens5.7"]


def test_what_is_in_a_vrf_and_not_the_vrf(spaces: Spaces, node: str, needs: Callable[..., None]) -> None:
    needs("vrf")
    spaces.ip(
        node, "link add red type vrf table 10", "link set red up", "link set ens5 master red",
        "addr add 10.0.0.5/24 dev ens5", "route add default via 10.0.0.1 table 10",
    )  # fmt: skip
    found = detected(spaces, node)
    assert list(found) == ["ens5"]
    assert found["ens5"].masquerade4 == "10.0.0.5"


def test_wireguard_has_no_ethernet(spaces: Spaces, node: str, needs: Callable[..., None]) -> None:
    needs("wireguard")
    spaces.ip(node, "link add wg0 type wireguard", "addr add 10.9.0.2/24 dev wg0", "link set wg0 up")
    found = detected(spaces, node)["wg0"]
    assert (found.has_ethernet, found.mac, found.masquerade4) == (False, "", "10.9.0.2")


def test_a_dummy_stays_inside(spaces: Spaces, node: str, needs: Callable[..., None]) -> None:
    needs("dummy")
    spaces.ip(node, "link add d0 type dummy", "addr add 10.9.0.2/24 dev d0", "link set d0 up")
    assert not detected(spaces, node)


def test_a_bridge_of_containers_stays_inside(spaces: Spaces, node: str, needs: Callable[..., None]) -> None:
    needs("bridge")
    spaces.ip(
        node, "link add docker0 type bridge", "addr add 172.17.0.1/16 dev docker0", "link set docker0 up",
        "link set ens6 master docker0", "addr add 10.0.0.5/24 dev ens5",
    )  # fmt: skip
    assert list(detected(spaces, node)) == ["ens5"]
