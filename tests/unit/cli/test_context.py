"""The context file: where it is found, and what is said of a bad one."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from services.cli.context import find, load
from services.cli.errors import CliError, Unknown, Usage
from tests.unit.cli.conftest import Plimsoll


class Places:
    """Finds a context among places of a machine of our own; `put` writes a file there."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.user = self.home / ".config" / "plimsoll" / "context.toml"
        self.system = folder / "etc" / "context.toml"
        self.labs = folder / "labs"
        self.locks: dict[str, IO[str]] = {}

    def lab(self, name: str) -> Path:
        """A running lab's context; `kill` ends the lab."""
        path = self.put(self.labs / name / "context.toml")
        self.locks[name] = (path.parent / "lock").open("w")
        fcntl.flock(self.locks[name], fcntl.LOCK_EX)
        return path

    def kill(self, name: str) -> None:
        self.locks.pop(name).close()

    def put(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
        return path

    def find(self, given: Path | None = None) -> Path:
        return find(given, home=self.home, system=self.system, labs=self.labs)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Places]:
    monkeypatch.delenv("PLIMSOLL_CONTEXT", raising=False)
    places = Places(tmp_path)
    yield places
    for lock in places.locks.values():
        lock.close()


def test_the_nearest_place_wins(places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = places.lab("lab")
    assert places.find() == lab, "a running lab is found by itself"
    places.put(places.system)
    assert places.find() == places.system, "the machine's file goes before a lab"
    places.put(places.user)
    assert places.find() == places.user, "the user's file goes before the machine's"
    named = places.put(tmp_path / "named.toml")
    monkeypatch.setenv("PLIMSOLL_CONTEXT", str(named))
    assert places.find() == named, "the environment goes before files at known places"
    given = places.put(tmp_path / "given.toml")
    assert places.find(given) == given, "the option wins"


def test_two_labs_must_be_told_apart(places: Places) -> None:
    places.lab("a")
    living = places.lab("b")
    with pytest.raises(Usage, match="several labs") as caught:
        places.find()
    assert "a/context.toml" in caught.value.remedy
    assert "b/context.toml" in caught.value.remedy
    places.kill("a")
    assert places.find() == living, "a killed lab leaves its folder, but is not meant"


def test_no_context_at_all_says_how_to_get_one(places: Places) -> None:
    with pytest.raises(Unknown) as caught:
        places.find()
    assert "make lab" in caught.value.remedy


def test_a_file_that_is_named_but_absent(places: Places, tmp_path: Path) -> None:
    with pytest.raises(Unknown, match=r"absent\.toml"):
        places.find(tmp_path / "absent.toml")


GOOD = """
registry = "registry.example.net:7401"
[ipam]
ipam-aws = "unix:/run/a.sock"
second = { target = "10.0.0.5:7402", identity = "ipam-aws" }
[nodes]
node-1 = "/run/node.sock"
[tls]
ca = "ca.pem"
certificate = "cli.pem"
key = "/etc/cli.key"
"""


def test_a_good_file(tmp_path: Path) -> None:
    path = tmp_path / "context.toml"
    path.write_text(GOOD)
    context = load(path)
    assert context.registry is not None
    assert context.registry.target == "registry.example.net:7401"
    assert context.registry.tls is not None
    assert context.registry.tls.ca == tmp_path / "ca.pem", "relative to the file"
    assert context.registry.tls.key == Path("/etc/cli.key")
    assert context.ipam["ipam-aws"].tls is None, "sockets need no certificates"
    assert context.ipam["second"].identity == "ipam-aws"
    assert context.nodes["node-1"].target == "unix:/run/node.sock"
    assert [one.name for one in context.services()] == ["registry", "ipam-aws", "second", "node-1"]


@pytest.mark.parametrize(
    ("text", "field", "says"),
    [
        ("registry = ", "", "is not TOML"),
        ("registrey = 'x:1'", "registrey", "not a key"),
        ("registry = 7", "registry", "must be a target"),
        ("registry = 'host'", "registry", "no target"),
        ("registry = 'host:99999'", "registry", "no target"),
        ("ipam = 'host:1'", "ipam", "must be a table"),
        ("[ipam]\naws = {identity = 'x'}", "ipam.aws", "must be a target"),
        ("[nodes]\nn = ':1'", "nodes.n", "no target"),
        ("[tls]\nca = 'ca.pem'", "tls.certificate", "PEM"),
    ],
)
def test_a_bad_file_is_named_with_its_key(tmp_path: Path, text: str, field: str, says: str) -> None:
    path = tmp_path / "context.toml"
    path.write_text(text)
    with pytest.raises(Usage) as caught:
        load(path)
    assert str(path) in caught.value.message
    assert says in caught.value.message
    assert caught.value.field == field
    assert caught.value.remedy


def test_what_a_context_lacks_is_named(tmp_path: Path) -> None:
    path = tmp_path / "context.toml"
    path.write_text("")
    for ask in (load(path).need_registry, load(path).need_ipam):
        with pytest.raises(CliError, match="names no") as caught:
            ask()
        assert caught.value.exit_code == 2


def test_a_bad_file_ends_a_command_with_code_2_and_no_traceback(plimsoll: Plimsoll, tmp_path: Path) -> None:
    path = tmp_path / "context.toml"
    path.write_text("registry = 7")
    for args in (["--context", str(path), "nodes", "list"], ["nodes", "list", "--context", str(path)]):
        answer = plimsoll(*args)
        assert answer.code == 2
        assert answer.out == ""
        assert "registry must be a target" in answer.err
        assert "remedy: " in answer.err
    error = plimsoll("nodes", "list", "--json", "--context", str(path)).error
    assert error["kind"] == "usage"
    assert error["field"] == "registry"
