"""Settings files are checked as the service itself would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from services.cli.service_settings import names
from tests.unit.cli.conftest import Plimsoll


@pytest.fixture
def settings_file(tmp_path: Path) -> Callable[[str], str]:
    """Writes a settings file of a worker and returns its path."""

    def write(text: str) -> str:
        path = tmp_path / "worker.toml"
        path.write_text(text)
        return str(path)

    return write


GOOD = 'account = "123456789012"\nregion = "eu-west-1"\nipam = "unix:/run/plimsoll/ipam-aws.sock"\n'


def test_a_good_file(plimsoll: Plimsoll, settings_file: Callable[[str], str]) -> None:
    path = settings_file(GOOD)
    assert f"{path}: good for worker" in plimsoll("config", "check", "worker", "--config", path).out
    assert plimsoll("config", "check", "worker", "--config", path, "--json").json == {
        "service": "worker", "file": path, "ok": True, "problems": [],
    }  # fmt: skip


def test_every_wrong_field_is_named_with_what_is_accepted(
    plimsoll: Plimsoll, settings_file: Callable[[str], str]
) -> None:
    path = settings_file(GOOD.replace("123456789012", "12") + "threads = 900\nthread = 4\n")
    answer = plimsoll("config", "check", "worker", "--config", path, "--json")
    assert answer.code == 1
    found = {one["field"]: one["message"] for one in answer.json["problems"]}
    assert set(found) == {"account", "threads", "thread"}
    assert "1 to 256" in found["threads"]
    assert "did you mean threads" in found["thread"]
    people = plimsoll("config", "check", "worker", "--config", path)
    assert people.code == 1
    assert "threads" in people.out


def test_what_is_missing_is_named(plimsoll: Plimsoll, settings_file: Callable[[str], str]) -> None:
    answer = plimsoll("config", "check", "worker", "--config", settings_file(""), "--json")
    assert {one["field"] for one in answer.json["problems"]} == {"account", "region", "ipam"}


def test_a_file_that_is_not_toml(plimsoll: Plimsoll, settings_file: Callable[[str], str]) -> None:
    answer = plimsoll("config", "check", "worker", "--config", settings_file("account = "), "--json")
    assert answer.code == 1
    assert "not TOML" in answer.json["problems"][0]["message"]


def test_an_absent_file_and_an_unknown_service(
    plimsoll: Plimsoll, settings_file: Callable[[str], str], tmp_path: Path
) -> None:
    assert plimsoll("config", "check", "worker", "--config", str(tmp_path / "absent.toml")).code == 4
    answer = plimsoll("config", "check", "router", "--config", settings_file(""))
    assert answer.code == 4
    assert "worker" in answer.err, "the services that exist are named"


@pytest.mark.parametrize("service", names())
def test_fields_of_every_service_are_listed(plimsoll: Plimsoll, service: str) -> None:
    fields = {one["field"]: one for one in plimsoll("config", "fields", service, "--json").json}
    prefix = f"PLIMSOLL_{service.upper().replace('-', '_')}_"
    assert fields["tls.ca"]["environment"] == f"{prefix}TLS__CA"
    assert all(one["meaning"] for one in fields.values()), "every setting says what it means"
    assert plimsoll("config", "fields", service).code == 0
    assert "| `log_level` |" in plimsoll("config", "fields", service, "--markdown").out
