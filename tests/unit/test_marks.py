"""What a machine lacks skips a test with its reason, and fails it in continuous integration."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

MARKED = """
import pytest

@pytest.mark.redis
@pytest.mark.tool("no-such-program")
def test_it():
    pass
"""


@pytest.mark.parametrize("ci", ["", "true"])
def test_a_lack_skips_here_and_fails_in_ci(tmp_path: Path, ci: str) -> None:
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "test_marked.py").write_text(MARKED)
    environment = os.environ | {"PATH": str(tmp_path), "CI": ci, "PYTHONPATH": str(ROOT)}
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "pytest",
        "-c",
        ROOT / "pyproject.toml",
        "--rootdir",
        tmp_path,
        "-p",
        "no:cacheprovider",
    ]
    ran = subprocess.run([*command, tmp_path], env=environment, capture_output=True, text=True, check=False)
    assert "needs redis-server" in ran.stdout
    assert "needs no-such-program" in ran.stdout
    assert (ran.returncode, " 1 skipped" in ran.stdout) == ((1, False) if ci else (0, True)), ran.stdout
