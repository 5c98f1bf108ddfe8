"""Pods of two nodes with ranges of their own, brought together by a registry: by the tunnel, and by the segment."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.datapath.asking import ask, until
from tests.datapath.bed import ROOT, Bed, Node, children_left

pytestmark = [pytest.mark.root, pytest.mark.tool("ip", "ping", "cc", "make", "clang-19")]
# What the tunnel adds, by the family that it goes by.
OVERHEAD_BYTES = {4: 50, 6: 70}
LARGE = ("-M", "do", "-s")


@dataclass(slots=True)
class Registry:
    """The real one, with a store of its own, behind a Unix socket."""

    bed: Bed
    process: subprocess.Popen[bytes] | None = None

    @property
    def target(self) -> str:
        return f"unix:{self.bed.folder}/registry.sock"

    def start(self) -> None:
        flags = ["--store", f"sqlite:///{self.bed.folder}/registry.db", "--socket", f"{self.bed.folder}/registry.sock"]
        with (self.bed.folder / "registry.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "services.registry", *flags], cwd=ROOT, stdout=log, stderr=log
            )

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@dataclass(slots=True)
class Pair:
    """
    one, more ── a (192.168.50.1, fd50::1) ── segment ── b (192.168.50.2, fd50::2) ── two
    """

    bed: Bed
    registry: Registry
    a: Node
    b: Node
    families: tuple[int, ...]


@pytest.fixture(params=["tunnel", "direct", "tunnel by IPv6 alone"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    routing, _, alone = request.param.partition(" ")
    families = (6,) if alone else (4, 6)
    with Bed() as bed:
        registry = Registry(bed)
        registry.start()
        try:
            nodes = []
            for number, name in enumerate("ab", start=1):
                node = bed.node(
                    name, pod_cidrs=[{4: f"10.{number}.0.0/24", 6: f"fd00:{number}::/64"}[one] for one in families],
                    registry=registry.target, **{"datapath.routing": routing},
                )  # fmt: skip
                nodes.append(node)
            a, b = nodes
            bed.ip(a.namespace, f"link add outside type veth peer name outside netns {b.namespace}")
            for number, node in enumerate(nodes, start=1):
                addresses = {4: f"192.168.50.{number}/24 dev outside", 6: f"fd50::{number}/64 dev outside nodad"}
                bed.ip(node.namespace, "link set outside up", *(f"addr add {addresses[one]}" for one in families))
                node.start()
            yield Pair(bed, registry, a, b, families)
        finally:
            registry.kill()
    assert not children_left(bed.tag)


def added(node: Node, name: str) -> tuple[str, list[str]]:
    namespace = node.bed.namespace(name)
    answer = node.cni("ADD", name, namespace, args=f"K8S_POD_NAMESPACE=default;K8S_POD_NAME={name}")
    assert answer.code == 0, answer.body
    return namespace, [one["address"].partition("/")[0] for one in answer.body["ips"]]


def test_pods_of_two_nodes(pair: Pair) -> None:
    bed, a, b = pair.bed, pair.a, pair.b
    (one, at_one), (two, at_two) = added(a, "one"), added(b, "two")
    assert len(at_one) == len(at_two) == len(pair.families)
    until(lambda: bed.ping(one, at_two[0]), 20)
    for address in at_two:
        assert bed.ping(one, address)
        assert bed.ping(a.namespace, address), "a node reaches another's pod"
    for address in at_one:
        assert bed.ping(two, address)
    tunnel = a.settings["datapath.routing"] == "tunnel"
    [device] = bed.show(one, "link", "show", "eth0")
    assert device["mtu"] == 1500 - (OVERHEAD_BYTES[pair.families[0]] if tunnel else 0)
    for address in at_two:
        payload = device["mtu"] - (48 if ":" in address else 28)
        assert bed.ping(one, address, options=(*LARGE, str(payload))), "as large as the pod may send"

    # The far end knows who speaks, by the number that the registry gave.
    [pod] = ask(a, "datapath", "endpoints")
    assert pod["identity"] >= 256
    flows = [one for one in ask(b, "datapath", "ct", "list") if one["source"]["address"] in at_one]
    assert flows
    assert {flow["source"]["identity"] for flow in flows} == {pod["identity"]}
    assert {flow["source"]["pod"] for flow in flows} == {"default/one"}
    assert not ask(a, "datapath", "status")["problems"]
    told = {entry["address"]: entry for entry in ask(b, "datapath", "addresses")}
    assert {told[address]["kind"] for address in at_one} == {"remote-pod"}
    trace = ask(a, "datapath", "trace", "default/one", "default/two:80")
    assert trace["verdict"] == "forwarded"

    # Known pods go on without the registry; new ones are found once it is back.
    pair.registry.kill()
    assert bed.ping(one, at_two[0])
    more, at_more = added(a, "more")
    assert bed.ping(one, at_more[0])
    pair.registry.start()
    until(lambda: bed.ping(two, at_more[-1]), 20)
    assert a.cni("DEL", "more", more).code == 0
    until(lambda: at_more[0] not in {entry["address"] for entry in ask(b, "datapath", "addresses")})
