"""`plimsoll node cleanup` in a namespace of its own: everything of ours is gone, everything of others is left."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from datapath import layout
from datapath.loader import legacy, objects
from datapath.model import PROTOCOL, SOURCE_RULE_PRIORITY, TABLE_BASE
from services.cli.main import app
from tests.datapath.compiled import bpf_folder
from tests.datapath.spaces import Spaces

pytestmark = pytest.mark.root


@pytest.fixture
def folder(programs: Path) -> Iterator[Path]:
    with bpf_folder() as folder:
        yield folder


def test_nothing_of_ours_is_left(programs: Path, folder: Path, tmp_path: Path) -> None:
    arguments = ["node", "cleanup", "--bpf-dir", str(folder), "--socket", str(tmp_path / "node.sock"), "--json"]
    with Spaces() as spaces:
        node = spaces.add("node")
        spaces.ip(
            node,
            "link add plm0123456789a type veth peer name far0",
            "link add theirs0 type veth peer name theirs1",
            "link set theirs0 up",
            "link set theirs1 up",
            "addr add 192.0.2.1/24 dev theirs0",
            f"rule add priority {SOURCE_RULE_PRIORITY} from 10.0.0.9 lookup {TABLE_BASE + 1} protocol {PROTOCOL}",
            "rule add priority 6000 from 10.0.0.10 lookup 123",
            f"route add 198.51.100.0/24 dev theirs0 table {TABLE_BASE + 1} protocol {PROTOCOL}",
            "route add 203.0.113.0/24 dev theirs0",
        )
        config = layout.Config(hz=250, flags=layout.CONFIG_IPV4)
        with objects.load(objects.find("pod", programs), pins=folder, rodata={"config": config.pack()}) as loaded:
            index = spaces.index(node, "plm0123456789a")
            with spaces.inside(node):
                legacy.attach(loaded.programs["from_pod"], index, ingress=True)
        with spaces.inside(node):
            before = CliRunner().invoke(app, [*arguments, "--dry-run"])
            first = CliRunner().invoke(app, arguments)
            again = CliRunner().invoke(app, arguments)
        found, removed = json.loads(before.stdout), json.loads(first.stdout)
        assert found == {**removed, "dry_run": True}
        assert {"flows", "nat", "events"} <= set(removed["maps"])
        assert removed["devices"] == ["plm0123456789a"]
        assert len(removed["rules"]) == len(removed["routes"]) == 1
        assert removed["filters"] == ["plm0123456789a ingress"]
        assert not any(value for key, value in json.loads(again.stdout).items() if key != "dry_run")
        assert not (folder / "maps").exists()
        assert [one["ifname"] for one in spaces.show(node, "link") if one["ifname"].startswith("theirs")]
        assert [one["priority"] for one in spaces.show(node, "rule") if one["priority"] == 6000]
        assert [one for one in spaces.show(node, "route") if one["dst"] == "203.0.113.0/24"]
