"""One folder per lab: who may use it, and what is removed when its lab was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lab import state
from lab.state import AlreadyRunning, LabError, LabState

LAB_THAT_HANGS = """
import subprocess, sys, time
from pathlib import Path
from lab.state import LabState
with LabState("one", Path(sys.argv[1])) as lab:
    child = subprocess.Popen(["sleep", "1000"])
    lab.process("sleeper", child.pid)
    (lab.folder / "db").mkdir()
    (lab.folder / "db" / "file").write_text("rest")
    print(child.pid, flush=True)
    time.sleep(1000)
"""


def killed_lab(root: Path) -> int:
    """Runs a lab with one child, kills the lab by SIGKILL, and returns the orphan's pid."""
    with subprocess.Popen([sys.executable, "-c", LAB_THAT_HANGS, str(root)], stdout=subprocess.PIPE, text=True) as lab:
        assert lab.stdout is not None
        orphan = int(lab.stdout.readline())
        lab.kill()
        lab.wait()
    assert state.start_time(orphan) is not None
    return orphan


def running(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat[stat.rindex(")") + 2] != "Z"


def test_a_lab_removes_its_folder_at_its_end(tmp_path: Path) -> None:
    with LabState("one", tmp_path) as lab:
        assert state.labs(tmp_path)["one"].pid == os.getpid()  # type: ignore[union-attr]
        assert lab.folder == tmp_path / "one"
    assert not lab.folder.exists()


def test_a_second_run_of_a_running_lab_is_refused(tmp_path: Path) -> None:
    with LabState("one", tmp_path), pytest.raises(AlreadyRunning, match=f"process {os.getpid()}") as refused:
        LabState("one", tmp_path).__enter__()
    assert "--name" in refused.value.remedy


def test_labs_of_other_names_live_side_by_side(tmp_path: Path) -> None:
    with LabState("one", tmp_path), LabState("two", tmp_path) as two:
        assert state.labs(tmp_path).keys() == {"one", "two"}
        assert not state.clean("three", tmp_path)
    assert not two.folder.exists()


def test_the_next_lab_cleans_up_after_a_killed_one(tmp_path: Path) -> None:
    orphan = killed_lab(tmp_path)
    assert state.labs(tmp_path) == {"one": None}
    with LabState("one", tmp_path) as lab:
        assert not running(orphan)
        assert not (lab.folder / "db").exists()


def test_another_lab_leaves_a_killed_one_alone(tmp_path: Path) -> None:
    orphan = killed_lab(tmp_path)
    try:
        with LabState("two", tmp_path):
            pass
        assert running(orphan)
        assert (tmp_path / "one" / "db" / "file").exists()
    finally:
        assert state.clean("one", tmp_path)
    assert not running(orphan)


def test_a_pid_that_means_another_process_by_now_is_spared(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "1000"]) as bystander:
        try:
            folder = tmp_path / "one"
            folder.mkdir()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
            record = {"process": "x", "pid": bystander.pid, "started": 1, "boot": boot}
            (folder / "journal").write_text(json.dumps(record) + '\n{"half a li')
            with LabState("one", tmp_path):
                assert bystander.poll() is None
        finally:
            bystander.send_signal(signal.SIGTERM)


@pytest.mark.parametrize("name", ["", "../etc", "Upper", "-x", "a" * 25, "a/b"])
def test_a_name_that_cannot_be_a_folder_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(LabError, match="cannot name a lab"):
        LabState(name, tmp_path)


def test_a_lab_may_leave_its_logs_and_nothing_else(tmp_path: Path) -> None:
    with LabState("one", tmp_path, keep=("logs",)) as lab:
        for part in ("logs", "tls"):
            (lab.folder / part).mkdir()
            (lab.folder / part / "file").write_text("x")
    assert {path.name for path in lab.folder.iterdir()} == {"lock", "logs"}
    assert state.labs(tmp_path) == {"one": None}
    assert state.clean("one", tmp_path)
    assert not lab.folder.exists()
