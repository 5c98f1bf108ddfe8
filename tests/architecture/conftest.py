"""What the tests of this folder look at: the files of the project, as version control lists them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOT_OURS = {".git", ".venv", "build", "node_modules", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"}


def _listed() -> list[str]:
    """Paths of all files of the project, relative to its root; from a walk where there is no version control."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode == 0 and listing.stdout:
        return sorted(path for path in listing.stdout.split("\0") if path and (ROOT / path).is_file())
    found = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
    return sorted(str(path) for path in found if not NOT_OURS & set(path.parts) and ".egg-info" not in str(path))


@pytest.fixture(scope="session")
def project_root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def project_files() -> list[str]:
    return _listed()


@pytest.fixture(scope="session")
def project_code(project_files: list[str]) -> list[str]:
    """Files that people wrote in a programming language."""
    written = (path for path in project_files if not re.search(r"_pb2(_grpc)?\.pyi?$", path))
    return [
        path for path in written if path.endswith((".py", ".c", ".h", ".sh", ".lua", ".proto")) or path == ".ci/run"
    ]


@pytest.fixture(scope="session")
def project_pages(project_files: list[str]) -> dict[str, str]:
    """Text of every page of documentation, by path."""
    return {path: (ROOT / path).read_text() for path in project_files if path.endswith(".md")}


@pytest.fixture
def expect_none() -> Callable[..., None]:
    """Fails with a line for each thing found that should not be."""

    def check(found: Iterable[object], advice: str = "") -> None:
        lines = [str(one) for one in found]
        if lines:
            pytest.fail("\n".join([advice or "found:", *lines]), pytrace=False)

    return check
