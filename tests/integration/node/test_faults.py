"""The daemon is killed in the midst of pods coming and going. The runtime tries again, as runtimes do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ipam.journal import Journal
from tests.datapath.bed import Bed, Eni, Node, children_left

pytestmark = [pytest.mark.root, pytest.mark.tool("ip", "ping", "cc", "make")]

PODS = 24


@pytest.fixture
def stormy_node() -> Iterator[Node]:
    """
    24 pods ── node ── ens0, ens1 ── router
    """
    with Bed() as bed:
        node = bed.node(
            "a",
            Eni(0, "10.0.0.5", [f"10.0.0.{n}" for n in range(10, 30)]),
            Eni(1, "10.0.0.6", [f"10.0.0.{n}" for n in range(30, 50)]),
            cooldown_s=0,
        )
        node.fill_journal()
        node.start()
        yield node
    assert not children_left(bed.tag)


def _persist(node: Node, command: str, container: str, netns: str) -> str:
    """Asks until it is done. Returns the address of an ADD."""
    deadline = time.monotonic() + 60
    while True:
        answer = node.cni(command, container, netns)
        if answer.code == 0:
            return answer.body["ips"][0]["address"].partition("/")[0] if command == "ADD" else ""
        assert answer.body["code"] in (11, 100), answer.body
        assert time.monotonic() < deadline, answer.body
        time.sleep(0.1)  # a runtime's own pause; there is nothing to wait for


def test_killed_while_pods_come_and_go(stormy_node: Node) -> None:
    bed = stormy_node.bed
    pods = [(f"pod{n}", bed.namespace(f"pod{n}")) for n in range(PODS)]
    with ThreadPoolExecutor(PODS) as threads:
        for _ in range(2):
            adding = [threads.submit(_persist, stormy_node, "ADD", *pod) for pod in pods]
            time.sleep(0.03)
            stormy_node.kill()
            stormy_node.start()
            addresses = [future.result() for future in adding]
            assert len(set(addresses)) == PODS, "no address has two pods"
            assert all(threads.map(lambda pod: bed.ping(pod[1], "10.0.0.1"), pods))
            removing = [threads.submit(_persist, stormy_node, "DEL", *pod) for pod in pods]
            time.sleep(0.03)
            stormy_node.kill()
            stormy_node.start()
            for future in removing:
                future.result()
            links = bed.show(stormy_node.namespace, "link", "show", "type", "veth")
            assert not [link["ifname"] for link in links if link["ifname"].startswith("plm")]
    stormy_node.stop()
    with Journal(stormy_node.folder / "node.db") as journal:
        assert not journal.load().leases, "no lease is lost or left over"
