"""Children of a lab: readiness, early death, and their end with the lab."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from lab.processes import ChildDied, Children, Program
from lab.state import LabError, LabState, start_time

LAB_WITH_A_CHILD = """
import asyncio, sys
from pathlib import Path
from lab.processes import Children, Program
from lab.state import LabState

async def at_once():
    return True

async def main():
    with LabState("one", Path(sys.argv[1])) as state:
        async with Children(state) as children:
            child = await children.start(Program("sleeper", ["sleep", "1000"], at_once))
            print(child.pid, flush=True)
            await asyncio.sleep(1000)

asyncio.run(main())
"""


async def at_once() -> bool:
    return True


async def never() -> bool:
    return False


@pytest_asyncio.fixture
async def lab_children(tmp_path: Path) -> AsyncIterator[Children]:
    with LabState("one", tmp_path) as state:
        async with Children(state) as children:
            yield children


async def test_a_child_is_awaited_until_it_is_ready(lab_children: Children, tmp_path: Path) -> None:
    mark = tmp_path / "mark"

    async def ready() -> bool:
        return mark.exists()

    await lab_children.start(Program("toucher", ["sh", "-c", f"sleep 0.1; touch {mark}; exec sleep 1000"], ready))
    assert mark.exists()


async def test_an_early_death_tells_its_last_words(lab_children: Children) -> None:
    program = Program("talker", ["sh", "-c", "echo no such subnet; exit 3"], never)
    with pytest.raises(ChildDied, match=r"exit code 3.*\n.*no such subnet") as death:
        await lab_children.start(program)
    assert "talker.log" in death.value.remedy


async def test_refused_settings_are_told_apart(lab_children: Children) -> None:
    with pytest.raises(ChildDied) as death:
        await lab_children.start(Program("fussy", ["sh", "-c", "exit 2"], never))
    assert "settings it refuses" in death.value.remedy


async def test_a_child_that_never_gets_ready_is_an_error(lab_children: Children) -> None:
    with pytest.raises(LabError, match="not ready after"):
        await lab_children.start(Program("idler", ["sleep", "1000"], never), timeout_s=0.2)


async def test_a_death_that_nobody_asked_for_is_reported(lab_children: Children) -> None:
    child = await lab_children.start(Program("sleeper", ["sleep", "1000"], at_once))
    other = await lab_children.start(Program("other", ["sleep", "1000"], at_once))
    await other.kill()
    os.kill(child.pid, signal.SIGKILL)
    async with asyncio.timeout(5):
        assert await lab_children.death() is child
    assert "SIGKILL" in child.obituary().message


async def test_a_killed_child_can_be_started_again(lab_children: Children) -> None:
    first = await lab_children.start(Program("sleeper", ["sleep", "1000"], at_once))
    await first.kill()
    second = await lab_children.restart("sleeper")
    assert second.running
    assert second.pid != first.pid


def test_children_die_with_a_lab_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LAB_WITH_A_CHILD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as lab:
        assert lab.stdout is not None
        pid = int(lab.stdout.readline())
        began = start_time(pid)
        lab.kill()
    subprocess.run(["timeout", "5", "tail", "--pid", str(pid), "-f", "/dev/null"], check=True)
    assert start_time(pid) != began


async def test_a_child_that_does_not_stop_is_killed_and_told_of(
    lab_children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.processes.STOP_TIMEOUT_S", 0.2)
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"

    async def listening() -> bool:
        return "deaf" in lab_children["deaf"].last_lines()

    child = await lab_children.start(Program("deaf", [sys.executable, "-c", deaf], listening))
    await child.stop()
    assert not child.running
    assert lab_children.forced == ["deaf"]
    assert any("most recent call first" in line for line in child.last_lines()), "its stack is in its log"
