"""Rules that every file keeps, beyond what the linters check."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

ExpectNone = Callable[..., None]

LONGEST = 500

# Written so that this file does not hold what it looks for.
FORBIDDEN = {
    "a package index or proxy": r"(?i)index[-_]url|pypi[.]org|python[h]osted|gopro[x]y|artifac[t]ory|/simple/?['\"\s]",
    "a path of some machine": r"/wor[k]/|/home/\w+/|/Users/\w+/|/tmp/contract[s]",
    "unfinished work": r"\b(TO[D]O|FIX[M]E|XX[X]|HAC[K])\b",
    "a private key": r"BEGIN (EC |RSA )?PRIVAT[E] KEY-----\n[A-Za-z0-9]",
    "an access key": r"\bAKIA[0-9A-Z]{16}\b",
}
SHORT_NAMES = {"utils", "helpers", "misc", "common"}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_holds(expect_none: ExpectNone, what: str, project_root: Path, project_files: list[str]) -> None:
    pattern = re.compile(FORBIDDEN[what])
    found = []
    for path in project_files:
        try:
            text = (project_root / path).read_text()
        except UnicodeDecodeError:
            continue
        found += [f"{path}:{text[: hit.start()].count(chr(10)) + 1}: {hit[0]!r}" for hit in pattern.finditer(text)]
    expect_none(found)


def test_no_code_is_longer_than_one_can_keep_in_mind(
    expect_none: ExpectNone, project_root: Path, project_code: list[str]
) -> None:
    lengths = {path: (project_root / path).read_text().count("\n") for path in project_code}
    expect_none([f"{path}: {length} lines" for path, length in lengths.items() if length > LONGEST])


def test_only_the_command_prints(expect_none: ExpectNone, project_root: Path, project_code: list[str]) -> None:
    found = []
    for path in project_code:
        if not path.endswith(".py") or path.startswith(("services/cli/", "tests/")):
            continue
        calls = (one for one in ast.walk(ast.parse((project_root / path).read_text())) if isinstance(one, ast.Call))
        named = (call for call in calls if isinstance(call.func, ast.Name) and call.func.id in ("print", "pprint"))
        found += [f"{path}:{call.lineno}" for call in named]
    expect_none(found)


def test_every_module_says_what_it_is(expect_none: ExpectNone, project_root: Path, project_code: list[str]) -> None:
    silent = []
    for path in project_code:
        if not path.endswith(".py") or path.endswith("__main__.py"):
            continue
        module = ast.parse((project_root / path).read_text())
        if module.body and ast.get_docstring(module) is None:
            silent.append(path)
    expect_none(silent)


def packages(files: list[str]) -> dict[str, set[str]]:
    """What lies in each package that people wrote: names of modules, and of packages within."""
    found: dict[str, set[str]] = {}
    for path in map(PurePosixPath, files):
        if path.suffix != ".py" or path.parts[0] == "tests" or "versions" in path.parts or "_pb2" in path.name:
            continue
        inside = found.setdefault(str(path.parent), set())
        if path.name == "__init__.py":
            found.setdefault(str(path.parent.parent), set()).add(path.parent.name)
        elif not path.name.startswith("_"):
            inside.add(path.stem)
    return {package: inside - {"v1", "versions"} for package, inside in found.items() if package != "."}


def test_every_package_begins_with_its_map(
    expect_none: ExpectNone, project_root: Path, project_files: list[str]
) -> None:
    lacking = []
    for package, inside in packages(project_files).items():
        init = project_root / package / "__init__.py"
        text = (ast.get_docstring(ast.parse(init.read_text())) or "") if init.exists() else ""
        absent = sorted(name for name in inside if not re.search(rf"(?<![\w-]){name}\b", text))
        if absent:
            lacking.append(f"{package}: {', '.join(absent)}")
    expect_none(lacking, "name these in the docstring of the package's __init__.py")


def test_names_say_what_is_inside(expect_none: ExpectNone, project_files: list[str]) -> None:
    expect_none([path for path in project_files if PurePosixPath(path).stem in SHORT_NAMES])


def test_tests_are_no_package(expect_none: ExpectNone, project_files: list[str]) -> None:
    inits = [path for path in project_files if path.startswith("tests/") and path.endswith("__init__.py")]
    expect_none([path for path in inits if not path.startswith("tests/bench/")])
