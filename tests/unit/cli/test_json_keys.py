"""The keys that docs/cli.md promises to programs are in what the commands print."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.api.ipam.v1 import ipam_pb2
from tests.unit.cli.conftest import Plimsoll, Site

PAGE = Path(__file__).parents[3] / "docs" / "cli.md"
ARGUMENTS = {
    "nodes show": ("node-1",),
    "ipam pool show": ("node-1",),
    "ipam explain": ("shop/web-1",),
    "ipam simulate": ("work.toml",),
    "config check": ("registry", "--config", "bad.toml"),
    "pki show": ("--folder", "pki"),
    "datapath trace": ("shop/web", "shop/db:5432"),
}
WORKLOAD = """
cloud = "aws"
hours = 1
group = [{ name = "g", type = "m5.large", pods = [{ standing = 1 }] }]
subnet = [{ id = "s", cidr = "10.0.0.0/24" }]
"""


def promised() -> list[tuple[str, set[str]]]:
    """Commands of the page's table of shapes, each with the keys named in its row."""
    section = PAGE.read_text().partition("## JSON")[2]
    rows = re.findall(r"^\| `([a-z -]+)` \| (.*) \|$", section, re.MULTILINE)
    return [(command, set(re.findall(r"[`.]([a-z][a-z_0-9]*)(?:\[\])?`", shape))) for command, shape in rows]


def keys(data: Any) -> Iterator[str]:
    if isinstance(data, dict):
        yield from data
        for value in data.values():
            yield from keys(value)
    elif isinstance(data, list):
        for item in data:
            yield from keys(item)


@pytest.mark.parametrize(("command", "wanted"), promised(), ids=lambda value: value if isinstance(value, str) else "")
def test_the_keys_are_there(
    plimsoll: Plimsoll, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, wanted: set[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.toml").write_text("lost_after_s = -1")
    (tmp_path / "work.toml").write_text(WORKLOAD)
    plimsoll("pki", "init", "--folder", "pki")
    step = ipam_pb2.Step(number=1, operation="assign-addresses")
    site.ipam.intents = [ipam_pb2.Intent(id="i-1", node="node-1", steps=[step])]
    site.ipam.letters = {"d-1": ipam_pb2.DeadLetter(id="d-1", why="denied")}
    site.ipam.status.operations.add(operation="create-interface", calls=1)
    site.ipam.status.dead_letters = 1
    site.ipam.status.subnets.add(id="subnet-1", cidr="10.0.1.0/24", zone="a", free=200)
    site.node.findings["shop/web-1"] = []
    site.datapath.view.ranges = {"203.0.113.0/24"}
    answer = plimsoll(*command.split(), *ARGUMENTS.get(command, ()), "--json")
    assert wanted <= set(keys(answer.json)), "docs/cli.md names keys that are not there"
