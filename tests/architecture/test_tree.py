"""ARCHITECTURE.md draws the tree; the tree is as it draws it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

ExpectNone = Callable[..., None]

# One line stands for all that is below: tests mirror the packages, protos and pages stand side by side.
ONE_LINE = ("tests/", "services/api/", "docs/", ".ci")


@pytest.fixture(scope="module")
def drawn(project_root: Path) -> set[str]:
    """Paths of the tree in ARCHITECTURE.md, folders without their final slash.

    The tree is the first fenced block of the page; a line holds one or more names, parted by " · ", then two spaces and
    what they are; indentation says what they lie in.
    """
    text = (project_root / "ARCHITECTURE.md").read_text()
    block = re.search(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert block, "ARCHITECTURE.md has no fenced block"
    paths: set[str] = set()
    above: list[tuple[int, str]] = []
    for line in block[1].splitlines():
        if not line.strip():
            continue
        indent = len(line) - len(line.lstrip())
        names = re.split(r" · ", re.split(r" {2,}", line.strip(), maxsplit=1)[0])
        while above and above[-1][0] >= indent:
            above.pop()
        parent = above[-1][1] if above else ""
        paths.update(str(PurePosixPath(parent, name)) for name in names)
        if len(names) == 1 and names[0].endswith("/"):
            above.append((indent, str(PurePosixPath(parent, names[0]))))
    return paths


def test_all_that_is_drawn_exists(expect_none: ExpectNone, drawn: set[str], project_files: list[str]) -> None:
    folders = {str(parent) for path in project_files for parent in PurePosixPath(path).parents}
    expect_none(sorted(drawn - set(project_files) - folders))


def test_every_folder_is_drawn(expect_none: ExpectNone, drawn: set[str], project_files: list[str]) -> None:
    folders = {str(PurePosixPath(path).parent) for path in project_files} - {"."}
    shown = {
        folder
        for folder in folders
        if not any(f"{folder}/".startswith(one) and folder + "/" != one for one in ONE_LINE)
    }
    expect_none(sorted(shown - drawn), "draw these folders in ARCHITECTURE.md")


def test_every_file_at_the_top_is_drawn(expect_none: ExpectNone, drawn: set[str], project_files: list[str]) -> None:
    expect_none(sorted({path for path in project_files if "/" not in path} - drawn))
