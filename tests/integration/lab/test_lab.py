"""The lab's command from start to end: real processes, packets and pods."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import state
from lab.options import CNI_PLUGIN
from lab.state import DEFAULT_ROOT

pytestmark = [
    pytest.mark.root,
    pytest.mark.redis,
    pytest.mark.tool("nsenter", "setpriv"),
    pytest.mark.slow,
    pytest.mark.timeout(300),
]


@pytest.fixture
def lab_name() -> Iterator[str]:
    """A name that no other lab has; what is left of it is removed."""
    assert CNI_PLUGIN.exists(), "make cni builds the plugin"
    name = f"t{secrets.token_hex(3)}"
    yield name
    state.clean(name)


def lab(*words: str) -> list[str]:
    return [sys.executable, "-m", "lab", *words]


def traces(name: str) -> list[str]:
    """What is left of the lab on the machine."""
    namespaces = [path.name for path in Path("/run/netns").glob(f"pl-{name}-*")]
    folders = [str(DEFAULT_ROOT / name)] if (DEFAULT_ROOT / name).exists() else []
    processes = []
    for environ in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = environ.read_bytes()
        except OSError:
            continue
        if f"/{name}/".encode() in command:
            processes.append(command.decode().replace("\0", " "))
    return [*namespaces, *folders, *processes]


def running_lab(name: str, *words: str) -> subprocess.Popen[str]:
    """A lab that stays up; returns once it wrote its context, that is, when all nodes are up."""
    process = subprocess.Popen(
        lab("--name", name, "--nodes", "1", "--pods", "2", *words),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "2 pods" in line:
            return process
    raise AssertionError(f"the lab ended with {process.wait()}")


def test_once_runs_checks_and_leaves_nothing(lab_name: str) -> None:
    """With a second pool on each node, from which pod-2 and pod-3 get their addresses."""
    pools = ", ".join(
        f'{{name = "{pod}", match_labels = {{"io.kubernetes.pod.name" = "{pod}"}}, watermarks = {{pre_allocate = 1}}}}'
        for pod in ("pod-2", "pod-3")
    )
    words = lab("--name", lab_name, "--nodes", "2", "--pods", "5", "--once", "--json", "--release-delay-s", "1")
    words += ["--instance-type", "m5.2xlarge", "--set", f"node.pools=[{pools}]"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(done.stdout)
    assert summary["ok"]
    assert len(summary["checks"]) > 10
    assert summary["nodes"].keys() == {"node-1", "node-2"}
    assert traces(lab_name) == []


def test_three_clouds_stand_side_by_side_under_one_registry(lab_name: str) -> None:
    """A node of each: an instance of EC2, a virtual machine of Azure, an ECS instance."""
    words = lab("--name", lab_name, "--cloud", "all", "--nodes", "3", "--pods", "6", "--once", "--json")
    done = subprocess.run([*words, "--release-delay-s", "1"], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(done.stdout)
    assert summary["ok"]
    assert len(summary["nodes"]) == 3
    assert traces(lab_name) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--cloud", "all", "--nodes", "2"], "too few for 3 clouds"),
        (["--cloud", "all", "--instance-type", "m5.large"], "types of its own"),
        (["--cloud", "gcp"], "gcp"),
    ],
)
def test_a_lab_of_clouds_that_cannot_be_is_refused(words: list[str], told: str) -> None:
    done = subprocess.run(lab("--once", *words), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert told in " ".join(done.stderr.replace("│", " ").split())


def test_ctrl_c_ends_it_and_the_command_finds_it_meanwhile(lab_name: str) -> None:
    with running_lab(lab_name) as process:
        try:
            again = subprocess.run(lab("--name", lab_name), capture_output=True, text=True, check=False)
            assert again.returncode == 1
            assert f"running already, as process {process.pid}" in again.stdout + again.stderr
            context = str(DEFAULT_ROOT / lab_name / "context.toml")
            plimsoll = [str(Path(sys.executable).parent / "plimsoll"), "--context", context]
            nodes = subprocess.run([*plimsoll, "nodes", "list"], capture_output=True, text=True, check=False)
            assert nodes.returncode == 0, nodes.stdout + nodes.stderr
            assert "node-1" in nodes.stdout
        finally:
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert traces(lab_name) == []


def test_a_killed_lab_is_cleaned_up_by_the_next(lab_name: str) -> None:
    with running_lab(lab_name) as process:
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    assert traces(lab_name), "namespaces and the folder stay"
    assert state.labs()[lab_name] is None
    with running_lab(lab_name) as process:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert traces(lab_name) == []


def test_a_service_that_cannot_start_shows_why(lab_name: str) -> None:
    words = lab("--name", lab_name, "--nodes", "1", "--pods", "1", "--once", "--instance-type", "m9.gigantic")
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "m9.gigantic" in done.stdout + done.stderr
    assert traces(lab_name) == []


def test_a_child_that_dies_ends_the_lab_with_its_last_words(lab_name: str) -> None:
    with running_lab(lab_name) as process:
        journal = (DEFAULT_ROOT / lab_name / "journal").read_text().splitlines()
        records = [json.loads(line) for line in journal]
        (registry,) = (record["pid"] for record in records if record.get("process") == "registry")
        os.kill(registry, signal.SIGKILL)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 1
    assert "registry ended by SIGKILL" in output
    assert "node registered" in output, "from its log"
    assert traces(lab_name) == []


def test_a_pod_that_gets_no_address_is_explained(lab_name: str) -> None:
    tight = ("--nodes", "1", "--pods", "3", "--max-allocate", "2", "--pod-timeout-s", "3")
    words = lab("--name", lab_name, "--once", *tight)
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "no free address" in done.stdout
    assert "node-1, watermark:" in done.stdout
    assert traces(lab_name) == []
