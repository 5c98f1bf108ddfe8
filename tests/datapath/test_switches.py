"""What an operator switches on or off, by a real daemon: endpoint routes, masquerading and its file, IPv6."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.datapath.asking import ask, until
from tests.datapath.bed import Bed, Node, children_left

pytestmark = [pytest.mark.root, pytest.mark.tool("ip", "ping", "cc", "make", "clang-19")]
NODE4, NODE6 = "192.168.50.1", "fd50::1"
WORLD4, WORLD6 = "192.168.50.254", "fd50::fe"


@dataclass(frozen=True, slots=True)
class Site:
    """
    one, two ── node ── outside ── world, which knows no way to pods unless a test tells it
    """

    bed: Bed
    node: Node
    world: str
    one: tuple[str, list[str]]
    two: tuple[str, list[str]]

    def reaches(self, *targets: str) -> list[bool]:
        return [self.bed.ping(self.one[0], target) for target in targets]


@contextmanager
def site(**settings: object) -> Iterator[Site]:
    with Bed() as bed:
        node = bed.node("a", pod_cidrs=["10.1.0.0/24", "fd00:1::/64"], **settings)
        world = bed.namespace("world")
        bed.ip(
            node.namespace,
            f"link add outside type veth peer name wire netns {world}",
            "link set outside up",
            f"addr add {NODE4}/24 dev outside",
            f"addr add {NODE6}/64 dev outside nodad",
            f"route add default via {WORLD4}",
            f"route add ::/0 via {WORLD6}",
        )
        bed.ip(world, "link set wire up", f"addr add {WORLD4}/24 dev wire", f"addr add {WORLD6}/64 dev wire nodad")
        node.start()
        pods = [_added(node, name) for name in ("one", "two")]
        yield Site(bed, node, world, *pods)
    assert not children_left(bed.tag)


def _added(node: Node, name: str) -> tuple[str, list[str]]:
    namespace = node.bed.namespace(name)
    answer = node.cni("ADD", name, namespace)
    assert answer.code == 0, answer.body
    return namespace, [one["address"].partition("/")[0] for one in answer.body["ips"]]


@pytest.mark.parametrize("endpoint_routes", [False, True])
def test_masquerading_and_its_file(endpoint_routes: bool, tmp_path: Path) -> None:
    """The world answers only what bears the node's address."""
    file = tmp_path / "ip-masq-agent"
    file.write_text("resyncInterval: 1s\nnonMasqueradeCIDRs: [10.0.0.0/8]\n")
    with site(
        **{"datapath.masquerade": True, "datapath.masquerade6": True, "datapath.masquerade_file": str(file),
           "datapath.endpoint_routes": endpoint_routes},
    ) as at:  # fmt: skip
        assert at.reaches(*at.two[1], NODE4, NODE6, WORLD4, WORLD6) == [True] * 6
        assert [at.bed.ping(at.node.namespace, address) for address in at.one[1]] == [True] * 2
        assert not at.bed.ping(at.world, at.one[1][0])
        file.write_text("resyncInterval: 1s\nnonMasqueradeCIDRs: [10.0.0.0/8, 192.168.50.0/24]\n")
        until(lambda: not at.reaches(WORLD4)[0], 10)
        assert at.reaches(WORLD6) == [True]
        at.bed.ip(at.world, f"route add 10.1.0.0/24 via {NODE4}")
        assert at.reaches(WORLD4) == [True]
        file.write_text("nonMasqueradeCIDRs: nothing of the kind\n")
        until(lambda: ask(at.node, "datapath", "status")["problems"], 10)
        assert at.reaches(WORLD4) == [True], "the former ranges hold"


def test_without_ipv6_nothing_of_it_passes() -> None:
    with site(**{"datapath.ipv6": False}) as at:
        at.bed.ip(at.world, f"route add 10.1.0.0/24 via {NODE4}")
        assert at.reaches(at.two[1][0], NODE4, WORLD4) == [True] * 3
        assert at.reaches(at.two[1][1], NODE6, WORLD6) == [False] * 3
        reasons = {one["reason"] for one in ask(at.node, "datapath", "drops")["drops"]}
        assert "family-off" in reasons
