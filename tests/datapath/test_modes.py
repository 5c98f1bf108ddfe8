"""A daemon that cannot load its programs leaves those of before at work; one that is to do without takes them away."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from datapath.loader import pins
from datapath.loader.maps import HASH, Map
from datapath.namespaces import opened, visiting
from tests.datapath.bed import ROOT, Bed, Eni, Node, children_left
from tests.datapath.compiled import BUILT, compiled

pytestmark = [pytest.mark.root, pytest.mark.tool("ip", "ping", "cc", "make", "clang-19")]
EXIT_CRASH = 1


@pytest.fixture
def bed() -> Iterator[Bed]:
    with Bed() as one:
        yield one
    assert not children_left(one.tag)


@pytest.fixture
def node(bed: Bed) -> Node:
    """
    pods ── node ── ens0 ── router
    """
    one = bed.node("a", Eni(0, "10.0.0.5", ["10.0.0.10", "10.0.0.11"]))
    one.fill_journal()
    one.start()
    return one


def folder(node: Node) -> Path:
    return Path(str(node.settings["datapath.bpf_dir"]))


def left(node: Node) -> pins.Inventory:
    with opened(f"/run/netns/{node.namespace}") as descriptor, visiting(descriptor):
        return pins.inventory(folder(node))


def failed_start(node: Node, tree: Path = ROOT) -> str:
    """The log of a daemon that must not come up, by the code of `tree`."""
    before = node.log.stat().st_size
    with node.log.open("ab") as log:
        done = subprocess.run(
            ["ip", "netns", "exec", node.namespace, sys.executable, "-m", "services.node", "--config",
             str(node.folder / "node.toml")],
            cwd=tree, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": str(tree)}, timeout=60, check=False,
        )  # fmt: skip
    said = node.log.read_text()[before:]
    assert done.returncode == EXIT_CRASH, said
    assert "Traceback" not in said
    return said


def test_a_start_that_fails_leaves_what_runs(bed: Bed, node: Node) -> None:
    (one, _), (_, second) = node.add("pod0"), node.add("pod1")
    node.stop()
    before = left(node)
    said = failed_start(node, _tree_with(bed.folder / "broken", compiled("refused")))
    assert "the kernel's verifier refuses program from_pod" in said
    assert "*beyond" in said, "the line of source"
    assert "eport this with the kernel's version" in said
    assert left(node) == before
    assert bed.ping(one, second), "the former programs carry pods"
    assert bed.ping(one, "10.0.0.1")

    with Map.create(HASH, 4, 4, 16, name="fragments") as other:
        (folder(node) / "maps" / "fragments").unlink()
        other.pin(folder(node) / "maps" / "fragments")
    said = failed_start(node)
    assert "fragments" in said
    assert "plimsoll node cleanup" in said
    assert left(node) == before
    assert bed.ping(one, second)
    assert bed.ping(one, "10.0.0.1")


def _tree_with(tree: Path, pod: Path) -> Path:
    """The tree as it is, with another object for pods' programs."""
    tree.mkdir()
    shutil.copytree(ROOT / "datapath", tree / "datapath", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("services", "ipam"):
        (tree / name).symlink_to(ROOT / name)
    built = tree / "build" / "bpf"
    built.mkdir(parents=True)
    shutil.copy2(pod, built / "pod.bpf.o")
    shutil.copy2(BUILT / "device.bpf.o", built / "device.bpf.o")
    return tree


def test_plain_routing_after_the_programs_and_back(bed: Bed, node: Node) -> None:
    (one, first), (two, second) = node.add("pod0"), node.add("pod1")

    def all_is_well() -> None:
        assert bed.ping(one, second)
        assert bed.ping(two, "10.0.0.1")
        assert bed.ping(node.namespace, first)

    all_is_well()
    node.stop()
    assert left(node)
    node.settings["datapath.mode"] = "kernel"
    node.start()
    all_is_well()
    assert not left(node)
    assert "plain routing carries pods now" in node.log.read_text()
    assert node.cni("CHECK", "pod0", one, config=_checked(node, one)).code == 0
    node.stop()
    node.settings["datapath.mode"] = "ebpf"
    node.start()
    all_is_well()
    assert len(left(node).filters) == 4, "both pods' devices have theirs again"


def _checked(node: Node, namespace: str) -> bytes:
    answer = node.cni("ADD", "pod0", namespace)
    return node.config(prevResult=answer.body)
