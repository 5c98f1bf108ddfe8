"""Small parts of the lab that need no root."""

from __future__ import annotations

import asyncio
import tomllib
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from lab.checks import sample_pairs
from lab.cli import app, read_settings
from lab.fabric import Drops
from lab.lab import together
from lab.pods import Plugin, Pod
from lab.programs import toml
from lab.state import LabError
from lab.table import Snapshot, render
from services.api.ipam.v1 import ipam_pb2


def test_settings_survive_their_file() -> None:
    settings = {
        "listen": "100.64.0.2:7201",
        "release_delay_s": 0.5,
        "flag": True,
        "subnet_ids": ["a", "b"],
        "watermarks": {"pre_allocate": 8},
        "nodes": {"node-1": 'unix:/a "b"'},
    }
    assert tomllib.loads(toml(settings)) == settings


async def test_the_first_error_of_many_cancels_the_rest() -> None:
    cancelled: list[int] = []

    async def fails() -> int:
        raise LabError("no room")

    async def waits(number: int) -> int:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(number)
            raise
        return number

    with pytest.raises(LabError, match="no room"):
        await together(waits(1), fails(), waits(2), limit=2)
    assert 1 in cancelled


async def test_results_come_in_order() -> None:
    async def after(pause_s: float) -> float:
        await asyncio.sleep(pause_s)
        return pause_s

    assert await together(after(0.02), after(0.0), after(0.01), limit=2) == [0.02, 0.0, 0.01]


def test_a_sample_of_pairs_leaves_no_pod_out() -> None:
    pods = [Pod(f"pod-{n}", f"node-{n % 3}", "ns", Plugin(Path(), Path())) for n in range(60)]
    assert len(sample_pairs(pods[:5])) == 20
    sampled = sample_pairs(pods, limit=100)
    assert len(sampled) == 100
    assert {one.name for one, _ in sampled} == {other.name for _, other in sampled} == {pod.name for pod in pods}


def test_the_table_tells_what_a_node_lacks() -> None:
    marks = ipam_pb2.Watermarks(pre_allocate=8)
    pools = {
        "node-10": ipam_pb2.Pool(
            connected=True, attached=9, in_use=3, needed=2, node=ipam_pb2.NodeSpec(watermarks=marks)
        ),
        "node-2": ipam_pb2.Pool(connected=False),
    }
    text = shown(Snapshot(pools=pools, calls={"total": 12}, drops=Drops(3, 4)), width=160)
    assert text.index("node-2") < text.index("node-10"), "in the order of their numbers"
    for words in ("needs 2", "not connected", "12 calls", "3 foreign source, 4 to nobody"):
        assert words in text


def test_a_terminal_of_80_columns_and_24_lines_holds_the_table() -> None:
    marks = ipam_pb2.Watermarks(pre_allocate=16, min_allocate=10)
    well = ipam_pb2.Pool(connected=True, attached=100, in_use=80, node=ipam_pb2.NodeSpec(watermarks=marks))
    pools = {f"node-{number}": well for number in range(1, 60)}
    why = "create-interface: no subnet fits: each of them is full, or was found full a moment ago"
    pools["node-60"] = ipam_pb2.Pool(connected=True, last_error=why)
    lines = shown(Snapshot(pools=pools, drops=Drops(0, 0)), width=80, height=24).splitlines()
    assert len(lines) < 24
    assert len([line for line in lines if line.endswith("in its marks")]) == 10, "none of them wrapped or cut"
    assert lines[4].endswith("fails, see below"), "what is wrong comes first"
    assert "and 49 more" in "\n".join(lines)
    assert "16 addresses kept free, at least 10 held" in "\n".join(lines)
    assert "node-60: create-interface" in lines[-2], "the error has lines of its own"


def shown(snapshot: Snapshot, **size: int) -> str:
    with Path("/dev/null").open("w") as nowhere:
        console = Console(width=size["width"], record=True, file=nowhere)
        console.print(render(snapshot, "default", height=size.get("height", 100)))
        return "\n".join(line.rstrip() for line in console.export_text().splitlines())


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["clean", "--name", "../x"], 2, "cannot name a lab"),
        (["clean", "--name", "never-ran"], 0, "nothing of a lab never-ran"),
        (["run", "--nodes", "0"], 2, "nodes"),
    ],
)
def test_the_command_line_explains_itself(words: list[str], code: int, told: str) -> None:
    result = CliRunner().invoke(app, words)
    assert result.exit_code == code
    assert told in result.output


def test_settings_of_services_can_be_given_by_words() -> None:
    words = [
        "ipam-aws.prefix_delegation=true",
        "ipam-aws.watermarks.pre_allocate=3",
        "node.mtu=1400",
        "worker.cluster=x",
    ]
    assert read_settings([*words, "ipam-aws.watermarks.min_allocate=1"]) == {
        "ipam-aws": {"prefix_delegation": True, "watermarks": {"pre_allocate": 3, "min_allocate": 1}},
        "node": {"mtu": 1400},
        "worker": {"cluster": "x"},
    }


@pytest.mark.parametrize("word", ["prefix_delegation=true", "node.mtu", "=1", 'node.name=a"b'])
def test_what_is_no_setting_is_named(word: str) -> None:
    done = CliRunner().invoke(app, ["run", "--set", word])
    assert done.exit_code == 2
    assert "--set" in done.output
