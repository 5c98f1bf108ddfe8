"""After a daemon with everything on, and `plimsoll node cleanup`, the kernel is as it was."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from datapath.loader.maps import Map
from datapath.loader.programs import Program
from tests.datapath.asking import ask, until
from tests.datapath.bed import ROOT, Bed

pytestmark = [pytest.mark.root, pytest.mark.tool("ip", "cc", "make", "clang-19", "bpftool")]


def held(folder: Path) -> list[tuple[str, int]]:
    """Programs and maps that are pinned, as bpftool names them: kind and id."""
    found = []
    for path in (folder / "programs").iterdir():
        with Program.pinned(path) as program:
            found.append(("prog", program.id))
    for path in (folder / "maps").iterdir():
        with Map.pinned(path) as one:
            found.append(("map", one.id))
    return found


def exists(kind: str, number: int) -> bool:
    return (
        subprocess.run(["bpftool", kind, "show", "id", str(number)], capture_output=True, check=False).returncode == 0
    )


def test_nothing_of_ours_is_left() -> None:
    with Bed() as bed:
        node = bed.node(
            "a", pod_cidrs=["10.1.0.0/24", "fd00:1::/64"],
            **{"datapath.routing": "tunnel", "datapath.masquerade": True, "datapath.prefilter": True},
        )  # fmt: skip
        bed.ip(
            node.namespace,
            "link add outside type veth peer name wire",
            "link set wire up",
            "link set outside up",
            "addr add 192.168.50.1/24 dev outside",
            "route add default via 192.168.50.254",
        )
        node.start()
        for name in ("one", "two"):
            namespace = bed.namespace(name)
            assert node.cni("ADD", name, namespace).code == 0
        assert ask(node, "datapath", "status")["endpoints"] == 2
        node.stop()
        folder = Path(str(node.settings["datapath.bpf_dir"]))
        ours = held(folder)
        assert {kind for kind, _ in ours} == {"prog", "map"}
        assert all(exists(*one) for one in ours)
        done = subprocess.run(
            ["ip", "netns", "exec", node.namespace, sys.executable, "-c", "from services.cli.main import main; main()",
             "node", "cleanup", "--bpf-dir", str(folder), "--socket", str(node.socket), "--json"],
            capture_output=True, text=True, check=False, cwd=ROOT,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        removed = json.loads(done.stdout)
        assert {"from_device-outside", "xdp-outside"} <= set(removed["links"])
        assert "plm_vxlan" in removed["devices"]
        until(lambda: not any(exists(*one) for one in ours))
        assert not folder.exists()
        after = bed.show(node.namespace, "link")
        assert {one["ifname"] for one in after} == {"lo", "outside", "wire"}
        assert not any("xdp" in one and one["xdp"].get("prog") for one in after)
        for family in ("-4", "-6"):
            for what in (["rule"], ["route", "show", "table", "all"], ["neigh"]):
                entries = bed.show(node.namespace, family, *what)
                assert not [one for one in entries if str(one.get("protocol")) == "80"], what
