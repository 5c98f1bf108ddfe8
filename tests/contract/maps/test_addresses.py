"""The address book on maps of memory and of the kernel."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest

from datapath import layout
from datapath.errors import BpfRefused, InvalidSetting
from datapath.fake_maps import FakeMap
from datapath.identities.addresses import NODES, AddressBook
from datapath.identities.cidrs import CidrTable, range_key, range_text
from datapath.identities.model import UNMANAGED, Change, ClusterEndpoint, ClusterNode, ClusterState
from datapath.layout import Target, address_bytes, address_text
from datapath.maps import InnerMap, slices
from datapath.masquerade.agent_file import AgentFile
from datapath.masquerade.ranges import MASQUERADE, Ranges, wanted
from tests.contract.maps.conftest import MakeMap

ME = "node-1"
TUNNEL, DIRECT, CLUSTER = layout.TARGET_TUNNEL, layout.TARGET_DIRECT, layout.TARGET_CLUSTER


@dataclass
class Cluster:
    """What the registry tells, told as it tells it."""

    nodes: dict[str, ClusterNode] = field(default_factory=dict)
    endpoints: dict[tuple[str, str], ClusterEndpoint] = field(default_factory=dict)

    def whole(self) -> ClusterState:
        nodes: Mapping[str, Change[ClusterNode]] = {name: Change(None, one) for name, one in self.nodes.items()}
        endpoints: dict[tuple[str, str], Change[ClusterEndpoint]]
        endpoints = {key: Change(None, one) for key, one in self.endpoints.items()}
        return ClusterState(self.nodes, self.endpoints, nodes, endpoints, whole=True)

    def node(self, *nodes: ClusterNode, gone: str = "") -> ClusterState:
        changes = {one.name: Change(self.nodes.get(one.name), one) for one in nodes}
        self.nodes |= {one.name: one for one in nodes}
        if gone:
            changes[gone] = Change(self.nodes.pop(gone), None)
        return ClusterState(self.nodes, self.endpoints, changes, {})

    def pod(self, *pods: ClusterEndpoint, gone: tuple[str, str] | None = None) -> ClusterState:
        changes: dict[tuple[str, str], Change[ClusterEndpoint]] = {}
        for one in pods:
            changes[one.key] = Change(self.endpoints.get(one.key), one)
            self.endpoints[one.key] = one
        if gone:
            changes[gone] = Change(self.endpoints.pop(gone), None)
        return ClusterState(self.nodes, self.endpoints, {}, changes)


@dataclass
class World:
    addresses: InnerMap
    cidrs: InnerMap
    nodes: InnerMap
    cluster: Cluster = field(default_factory=Cluster)

    def book(self, routing: str = "tunnel") -> AddressBook:
        self.table = CidrTable(self.cidrs, (MASQUERADE, NODES))
        return AddressBook(self.addresses, self.table, self.nodes, ME, routing)

    def at(self, address: str) -> Target | None:
        value = self.addresses.lookup(address_bytes(address))
        return Target.unpack(value) if value else None

    def range_at(self, address: str) -> Target | None:
        value = self.cidrs.lookup((128).to_bytes(4, sys.byteorder) + address_bytes(address))
        return Target.unpack(value) if value else None

    def node_at(self, number: int) -> str:
        value = self.nodes.lookup(number.to_bytes(4, sys.byteorder))
        assert value is not None
        return address_text(layout.Node.unpack(value).address)

    def every(self) -> dict[str, Target]:
        return {
            address_text(key): Target.unpack(value)
            for keys, values, count in self.addresses.keys_batches()
            for key, value in zip(slices(keys, 16, count), slices(values, Target.SIZE, count), strict=True)
        }


@pytest.fixture
def world(make_map: MakeMap) -> World:
    made = World(make_map("addresses", 4096), make_map("cidrs", 256), make_map("nodes", 64))
    made.cluster.nodes = {
        ME: ClusterNode(ME, ("192.168.0.1",), ("10.1.0.0/24",)),
        "node-2": ClusterNode("node-2", ("192.168.0.2", "fd99::2"), ("10.2.0.0/24", "fd00:2::/64")),
        "node-3": ClusterNode("node-3", ("192.168.0.3",), ("10.3.0.0/24",), tunnel_address="172.16.0.3"),
    }
    for node, pod, address, identity in (
        (ME, "a", "10.1.0.5", 300),
        ("node-2", "b", "10.2.0.5", 301),
        ("node-2", "c", "10.2.0.6", UNMANAGED),
        ("node-3", "d", "10.3.0.5", 301),
    ):
        one = ClusterEndpoint(node, pod, (address,), identity)
        made.cluster.endpoints[one.key] = one
    return made


POD = Target(layout.TARGET_POD, mtu=1500, identity=300, ifindex=7, endpoint=7, mac=b"\2" * 6, host_mac=b"\4" * 6)


def test_everything_at_the_start(world: World) -> None:
    book = world.book()
    assert book.set_own(["192.168.0.1", "127.0.0.1", "::1"])
    assert book.set_pod(["10.1.0.5", "fd00:1::5"], POD)
    assert book.take(world.cluster.whole())
    remote = world.at("10.2.0.5")
    assert remote is not None
    assert (remote.kind, remote.identity, remote.flags) == (layout.TARGET_REMOTE_POD, 301, TUNNEL)
    assert world.node_at(remote.node) == "192.168.0.2"
    other = world.at("10.3.0.5")
    assert other is not None
    assert world.node_at(other.node) == "172.16.0.3", "its tunnel's end, not its first address"
    assert world.at("10.1.0.5") == POD, "our own pods as they are wired"
    assert world.at("fd00:1::5") == POD
    assert world.at("192.168.0.1") == Target(layout.TARGET_HOST, identity=layout.IDENTITY_HOST)
    assert world.at("fd99::2") == Target(layout.TARGET_REMOTE_NODE, identity=layout.IDENTITY_REMOTE_NODE)
    assert len(book) == len(world.every()) == 11
    assert not book.take(world.cluster.whole()), "nothing is new"
    assert not book.problems


def test_ranges_of_nodes(world: World) -> None:
    book = world.book()
    book.take(world.cluster.whole())
    theirs = world.range_at("10.2.0.77")
    assert theirs is not None
    assert (theirs.kind, theirs.flags, theirs.identity) == (layout.TARGET_RANGE, CLUSTER | TUNNEL, UNMANAGED)
    assert world.node_at(theirs.node) == "192.168.0.2"
    assert world.range_at("fd00:2::77") == theirs
    assert world.range_at("10.1.0.77") == Target(layout.TARGET_RANGE, CLUSTER, identity=UNMANAGED), "our own"
    assert world.range_at("10.4.0.1") is None
    assert book.take(world.cluster.node(gone="node-2"))
    assert world.range_at("10.2.0.77") is None


@pytest.mark.parametrize(
    ("routing", "says", "flags", "next_hop"),
    [
        ("tunnel", "", TUNNEL, "192.168.0.2"),
        ("tunnel", "tunnel", TUNNEL, "192.168.0.2"),
        ("direct", "", DIRECT, "192.168.0.2"),
        ("native", "", 0, ""),
        ("native", "tunnel", 0, ""),
        ("tunnel", "direct", DIRECT, "192.168.0.2"),
        ("tunnel", "native", 0, ""),
        ("direct", "tunnel", DIRECT, "192.168.0.2"),
    ],
)
def test_how_pods_of_other_nodes_are_reached(world: World, routing: str, says: str, flags: int, next_hop: str) -> None:
    world.cluster.nodes["node-2"] = replace(world.cluster.nodes["node-2"], routing_mode=says)
    world.book(routing).take(world.cluster.whole())
    target = world.at("10.2.0.5")
    assert target is not None
    assert target.flags == flags
    assert (world.node_at(target.node) if target.node else "") == next_hop


def test_direct_routes_have_a_next_hop_of_the_pods_family(world: World) -> None:
    world.cluster.endpoints["node-2", "b"] = ClusterEndpoint("node-2", "b", ("10.2.0.5", "fd00:2::5"), 301)
    world.book("direct").take(world.cluster.whole())
    four, six = world.at("10.2.0.5"), world.at("fd00:2::5")
    assert four is not None
    assert six is not None
    assert (world.node_at(four.node), world.node_at(six.node)) == ("192.168.0.2", "fd99::2")


def test_one_change_is_one_update(make_map: MakeMap) -> None:
    addresses = FakeMap(16, Target.SIZE)
    world = World(addresses, make_map("cidrs"), make_map("nodes", 64))
    world.cluster.nodes["node-2"] = ClusterNode("node-2", ("192.168.0.2",))
    for number in range(10_000):
        pod = ClusterEndpoint("node-2", str(number), (f"10.2.{number >> 8}.{number & 255}",), 300)
        world.cluster.endpoints[pod.key] = pod
    book = world.book()
    book.take(world.cluster.whole())
    assert len(addresses.entries) == 10_001
    addresses.calls.clear()
    assert book.take(world.cluster.pod(ClusterEndpoint("node-2", "77", ("10.2.0.77",), 301)))
    assert addresses.calls == {"update_batch": 1}
    assert Target.unpack(addresses.entries[address_bytes("10.2.0.77")]).identity == 301
    addresses.calls.clear()
    assert not book.take(world.cluster.pod(gone=("node-2", "78")))
    assert addresses.calls == {"delete_batch": 1}
    addresses.calls.clear()
    assert not book.take(ClusterState(world.cluster.nodes, world.cluster.endpoints))
    assert not addresses.calls


def test_pods_come_change_and_go(world: World) -> None:
    book = world.book()
    book.take(world.cluster.whole())
    assert book.take(world.cluster.pod(ClusterEndpoint("node-2", "e", ("10.2.0.9",), 302))), (
        "may be taken for the world"
    )
    assert book.take(world.cluster.pod(ClusterEndpoint("node-2", "c", ("10.2.0.6",), 303))), "another identity"
    found = world.at("10.2.0.6")
    assert found is not None
    assert found.identity == 303
    same = replace(world.cluster.endpoints["node-2", "c"], labels={"app": "web"})
    assert not book.take(world.cluster.pod(same)), "labels alone change no entry"
    assert book.take(world.cluster.pod(ClusterEndpoint("node-2", "e", ("10.2.0.10",), 302))), "another address"
    assert world.at("10.2.0.9") is None
    assert not book.take(world.cluster.pod(gone=("node-2", "e"))), "what is gone misleads nobody"
    assert world.at("10.2.0.10") is None


def test_an_address_moves_from_pod_to_pod_whatever_the_order(world: World) -> None:
    book = world.book()
    book.take(world.cluster.whole())
    old = world.cluster.endpoints.pop(("node-2", "b"))
    new = ClusterEndpoint("node-3", "z", old.addresses, 305)
    world.cluster.endpoints[new.key] = new
    changes = {new.key: Change(None, new), old.key: Change(old, None)}
    assert book.take(ClusterState(world.cluster.nodes, world.cluster.endpoints, {}, changes))
    found = world.at("10.2.0.5")
    assert found is not None
    assert (found.identity, world.node_at(found.node)) == (305, "172.16.0.3")


def test_what_is_nearer_is_right(world: World) -> None:
    book = world.book()
    book.take(world.cluster.whole())
    assert book.set_pod(["10.2.0.5"], POD)
    assert world.at("10.2.0.5") == POD, "we wired it ourselves"
    assert not book.take(world.cluster.pod(ClusterEndpoint("node-2", "b", ("10.2.0.5",), 399)))
    assert not book.forget_pod(["10.2.0.5"], ifindex=8), "that of another pod"
    assert book.forget_pod(["10.2.0.5"], ifindex=7)
    found = world.at("10.2.0.5")
    assert found is not None
    assert found.identity == 399, "the registry's word is back"
    assert book.set_own(["192.168.0.2"])
    assert book.set_own([])
    found = world.at("192.168.0.2")
    assert found is not None
    assert found.kind == layout.TARGET_REMOTE_NODE


def test_a_node_comes_after_its_pods_and_changes_its_address(world: World) -> None:
    book = world.book()
    early = world.cluster.nodes.pop("node-2")
    book.take(world.cluster.whole())
    waiting = world.at("10.2.0.5")
    assert waiting is not None
    assert (waiting.flags, waiting.node) == (TUNNEL, 0), "dropped with a reason, not sent astray"
    assert book.take(world.cluster.node(early))
    found = world.at("10.2.0.5")
    assert found is not None
    assert world.node_at(found.node) == "192.168.0.2"
    assert book.take(world.cluster.node(replace(early, addresses=("192.168.0.22",))))
    moved = world.at("10.2.0.5")
    assert moved is not None
    assert world.node_at(moved.node) == "192.168.0.22"
    assert world.node_at(found.node) == "", "nothing refers to it any more"
    assert world.at("192.168.0.2") is None
    assert not book.take(world.cluster.node(replace(early, addresses=("192.168.0.22",), pod_cidrs=early.pod_cidrs)))


def test_a_restart_finds_everything_as_it_was(world: World) -> None:
    book = world.book()
    book.set_own(["192.168.0.1"])
    book.set_pod(["10.1.0.5"], POD)
    book.take(world.cluster.whole())
    before, number = world.every(), book.number_of("192.168.0.2")
    again = world.book()
    assert world.every() == before
    assert not again.set_own(["192.168.0.1"])
    assert not again.set_pod(["10.1.0.5"], POD)
    assert world.range_at("10.2.0.77") is not None
    world.table.set(MASQUERADE, wanted(["10.0.0.0/8"]))
    assert world.range_at("10.2.0.77") == world.range_at("10.2.0.78") != world.range_at("10.9.0.1")
    # Meanwhile one pod went and another came, and the node table's order is another.
    del world.cluster.endpoints["node-2", "c"]
    new = ClusterEndpoint("node-3", "n", ("10.3.0.9",), 310)
    world.cluster.endpoints[new.key] = new
    world.cluster.nodes = dict(reversed(world.cluster.nodes.items()))
    assert world.at("10.2.0.6") is not None, "it holds until the registry has spoken"
    assert again.take(world.cluster.whole())
    assert world.at("10.2.0.6") is None
    assert world.at("10.3.0.9") is not None
    assert again.number_of("192.168.0.2") == number
    assert {key: value for key, value in world.every().items() if key in before and key != "10.2.0.6"} == {
        key: value for key, value in before.items() if key != "10.2.0.6"
    }


def test_a_pod_that_ended_while_nobody_looked(world: World) -> None:
    world.book().set_pod(["10.1.0.5"], POD)
    again = world.book()
    assert again.forget_pod(["10.1.0.5"], ifindex=7)
    assert world.every() == {}


def test_a_full_map_is_told_and_healed(make_map: MakeMap) -> None:
    world = World(make_map("addresses", 8), make_map("cidrs"), make_map("nodes", 64))
    world.cluster.nodes["node-2"] = ClusterNode("node-2", ("192.168.0.2",))
    pods = [ClusterEndpoint("node-2", str(n), (f"10.2.0.{n}",), 300) for n in range(12)]
    world.cluster.endpoints = {one.key: one for one in pods}
    book = world.book()
    with pytest.raises(BpfRefused):
        book.take(world.cluster.whole())
    for one in pods[6:]:
        del world.cluster.endpoints[one.key]
    assert book.take(world.cluster.whole()) or len(world.every()) == 7
    assert set(world.every()) == {"192.168.0.2", *(f"10.2.0.{n}" for n in range(6))}
    assert len(book) == 7


def test_numbers_run_out_and_are_used_again(make_map: MakeMap) -> None:
    world = World(make_map("addresses"), make_map("cidrs"), make_map("nodes", 4))
    book = world.book()
    nodes = {f"n{n}": ClusterNode(f"n{n}", (f"192.168.0.{n}",)) for n in range(2, 6)}
    world.cluster.nodes = dict(nodes)
    book.take(world.cluster.whole())
    assert "nodes" in book.problems
    numbers = [book.number_of(f"192.168.0.{n}") for n in range(2, 6)]
    assert sorted(numbers) == [0, 1, 2, 3]
    book.take(world.cluster.node(gone=f"n{numbers.index(2) + 2}"))
    book.take(world.cluster.node(nodes[f"n{numbers.index(0) + 2}"]))
    assert book.number_of(f"192.168.0.{numbers.index(0) + 2}") == 2
    assert not book.problems


def test_words_that_are_no_address_are_passed_over(world: World) -> None:
    bad = ClusterEndpoint("node-2", "x", ("ten", "10.2.0.40"), 300)
    world.cluster.endpoints[bad.key] = bad
    world.cluster.nodes["node-3"] = replace(world.cluster.nodes["node-3"], pod_cidrs=("10.3.0.0/24", "10.3/xx"))
    book = world.book()
    book.take(world.cluster.whole())
    assert world.at("10.2.0.40") is not None
    assert world.range_at("10.3.0.1") is not None
    assert "10.3/xx" in book.problems["node-3"]


def test_masquerade_and_nodes_share_ranges(world: World) -> None:
    book = world.book("native")
    ranges = Ranges(world.table, ["10.2.0.0/24", "172.16.0.0/12"], ["10.96.0.0/12"])
    assert ranges.apply(AgentFile(("192.168.0.0/16", "fd00::/8")))
    assert not ranges.apply(AgentFile(("192.168.0.0/16", "fd00::/8"))), "nothing is new"
    world_range = Target(layout.TARGET_RANGE, CLUSTER, identity=layout.IDENTITY_WORLD)
    for address in ("172.16.0.1", "192.168.9.9", "fd00::9", "169.254.1.1", "fe80::1", "10.2.0.9"):
        assert world.range_at(address) == world_range, address
    assert world.range_at("10.0.0.1") is None
    stack = world.range_at("10.96.0.10")
    assert stack is not None
    assert stack.kind == layout.TARGET_STACK
    book.take(world.cluster.whole())
    shared = world.range_at("10.2.0.9")
    assert shared is not None
    assert (shared.identity, shared.flags) == (UNMANAGED, CLUSTER), "the node's word holds where both speak"
    assert ranges.apply(AgentFile((), masquerade_link_local=True, masquerade_link_local_ipv6=True))
    assert world.range_at("192.168.9.9") is None
    assert world.range_at("169.254.1.1") is None
    book.take(world.cluster.node(gone="node-2"))
    assert world.range_at("10.2.0.9") == world_range
    assert ranges.apply(None) is False


def test_ranges_of_a_former_life_wait_until_all_have_spoken(world: World) -> None:
    book = world.book()
    book.take(world.cluster.whole())
    Ranges(world.table, ["172.16.0.0/12"]).apply()
    again = world.book()
    Ranges(world.table, []).apply()
    assert world.range_at("10.2.0.9") is not None, "the registry has not spoken yet"
    again.take(world.cluster.whole())
    assert world.range_at("10.2.0.9") is not None
    assert world.range_at("172.16.0.1") is None


@pytest.mark.parametrize("text", ["10.0.0.0/8", "0.0.0.0/0", "fd00::/8", "::/0", "10.1.2.3/32", "fd00::1/128"])
def test_ranges_as_keys(text: str) -> None:
    assert range_text(range_key(text)) == text


def test_settings_that_are_no_ranges(world: World) -> None:
    world.book()
    with pytest.raises(InvalidSetting, match="no range"):
        Ranges(world.table, ["10.0.0.1/8"])
