"""The root command: what it lists, what it loads, how it ends."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer

from services.cli.main import Root, app
from tests.unit.cli.conftest import Plimsoll, Site

HEAVY = ("rich", "grpc", "google", "cryptography", "celery", "asyncio", "boto3", "pyroute2", "sqlalchemy", "lab")


def loaded_by(*args: str) -> set[str]:
    """Top-level modules that a run of the command imports, and the project's own in full."""
    script = (
        "import sys\n"
        "from services.cli.main import main\n"
        f"sys.argv = {['plimsoll', *args]!r}\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('loaded:', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("loaded:")[2].split())


@pytest.mark.parametrize("args", [("--help",), ("statsu",), ("completion", "bash")])
def test_help_loads_nothing_heavy(args: tuple[str, ...]) -> None:
    loaded = loaded_by(*args)
    assert not {name for name in loaded if name.split(".")[0] in HEAVY}


def test_help_loads_no_command_group_and_coerces_nothing() -> None:
    loaded = loaded_by("--help")
    assert not {name for name in loaded if name.startswith("services.cli.commands.")}
    assert "pydantic" not in loaded, "typer needs it once a command line has values"


def test_help_of_a_group_loads_that_group_alone() -> None:
    loaded = loaded_by("ipam", "--help")
    assert "services.cli.commands.ipam" in loaded
    assert not {name for name in loaded if name.split(".")[0] in HEAVY}


def test_help_lists_the_groups_and_the_extension(plimsoll: Plimsoll) -> None:
    answer = plimsoll("--help")
    assert answer.code == 0
    for name in (*Root.table, "lab"):
        assert f"\n  {name} " in answer.out


@pytest.mark.parametrize("name", sorted(Root.table))
def test_the_table_says_what_the_group_says(name: str) -> None:
    root = typer.main.get_command(app)
    assert isinstance(root, Root)
    command = root.load(name)
    assert command.help.split("\n")[0].startswith(Root.table[name].help.rstrip("."))


def test_a_misspelt_command_is_answered_with_its_neighbour(plimsoll: Plimsoll) -> None:
    answer = plimsoll("nodse")
    assert answer.code == 2
    assert "Did you mean" in answer.err
    assert "'nodes'" in answer.err


def test_an_extension_that_cannot_be_loaded_says_so(plimsoll: Plimsoll, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    broken = EntryPoint("extra", "no_such_package.cli:app", "plimsoll.commands")
    monkeypatch.setattr("services.cli.lazy.entry_points", lambda group: [broken])
    assert "extra" in plimsoll("--help").out
    answer = plimsoll("extra")
    assert answer.code == 1
    assert "no_such_package" in answer.err
    assert "remedy" in answer.err


def test_version(plimsoll: Plimsoll) -> None:
    assert plimsoll("version", "--json").json["version"]
    assert "version" in plimsoll("version").out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(plimsoll: Plimsoll, shell: str) -> None:
    answer = plimsoll("completion", shell)
    assert answer.code == 0
    assert f"_PLIMSOLL_COMPLETE=complete_{shell}" in answer.out


def test_completion_knows_the_names_of_nodes(plimsoll: Plimsoll, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_PLIMSOLL_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_CWORD", "3")
    for words in ("plimsoll ipam explain node", "plimsoll nodes show node"):
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", "3")
        assert plimsoll().out.split() == ["node-1", "node-2"]
    site.stop("registry")
    answer = plimsoll()
    assert answer.out.split() == ["node-1"], "what the context names"
    assert answer.err == ""


def test_the_lab_is_mounted(plimsoll: Plimsoll) -> None:
    answer = plimsoll("lab", "--help")
    assert answer.code == 0
    assert "fake-ec2" in answer.out


def test_completion_knows_the_commands_of_a_group(plimsoll: Plimsoll, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_PLIMSOLL_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "plimsoll ipam pool ")
    monkeypatch.setenv("COMP_CWORD", "3")
    assert plimsoll().out.split() == ["list", "show"]
