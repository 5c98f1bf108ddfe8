"""The authority of a small site, from its making to the renewal of what it issued."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.conftest import Plimsoll


@pytest.fixture
def authority(plimsoll: Plimsoll, tmp_path: Path) -> Path:
    """A folder with an authority and the certificate of a registry that also answers to an address."""
    folder = tmp_path / "pki"
    assert plimsoll("pki", "init", "--folder", str(folder), "--trust-domain", "shop.example").code == 0
    issued = plimsoll(
        "pki", "issue", "service", "registry", "--folder", str(folder), "--ip", "10.0.0.5", "--days", "90"
    )
    assert issued.code == 0
    return folder


def test_what_was_issued_is_shown(plimsoll: Plimsoll, authority: Path) -> None:
    ca, registry = plimsoll("pki", "show", "--folder", str(authority), "--json").json
    assert (ca["kind"], ca["name"]) == ("authority", "shop.example")
    assert registry["identity"] == "spiffe://shop.example/service/registry"
    assert registry["ips"] == ["10.0.0.5"]
    assert registry["days_left"] in (89, 90)
    assert "service/registry" in plimsoll("pki", "show", "--folder", str(authority)).out
    assert (authority / "service-registry.key").stat().st_mode & 0o777 == 0o600


def test_one_that_soon_expires_is_bad_news_and_is_renewed(plimsoll: Plimsoll, authority: Path) -> None:
    show = ("pki", "show", "--folder", str(authority), "--json", "--warn-days", "100")
    assert plimsoll(*show).code == 1
    before = plimsoll(*show).json[1]["fingerprint_sha256"]
    untouched = plimsoll("pki", "renew", "--folder", str(authority))
    assert "no certificate expires within 30 days" in untouched.out
    (renewed,) = plimsoll("pki", "renew", "--folder", str(authority), "--within-days", "100", "--json").json
    assert renewed["certificate"].endswith("service-registry.pem")
    after = plimsoll(*show)
    assert after.code == 0
    assert after.json[1]["fingerprint_sha256"] != before
    assert after.json[1]["ips"] == ["10.0.0.5"], "the names stay"


def test_a_renewed_key_keeps_its_owner_and_mode(plimsoll: Plimsoll, authority: Path) -> None:
    key = authority / "service-registry.key"
    key.chmod(0o644)
    assert plimsoll("pki", "renew", "--folder", str(authority), "--within-days", "100").code == 0
    assert key.stat().st_mode & 0o777 == 0o640, "its group may read it as before, others never"
    assert key.stat().st_uid == authority.stat().st_uid


def test_certificates_in_another_folder_are_renewed_there(plimsoll: Plimsoll, authority: Path, tmp_path: Path) -> None:
    out = tmp_path / "node"
    assert plimsoll("pki", "issue", "node", "node-1", "--folder", str(authority), "--out", str(out)).code == 0
    renew = ("pki", "renew", "--folder", str(authority), "--out", str(out), "--within-days", "9999", "--json")
    (renewed,) = plimsoll(*renew).json
    assert renewed["certificate"] == str(out / "node-node-1.pem")


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("init", "--folder", "{authority}"), 5, "already holds an authority"),
        (("issue", "service", "Bad_Name", "--folder", "{authority}"), 2, "Bad_Name"),
        (("issue", "router", "r1", "--folder", "{authority}"), 2, "router"),
        (("issue", "service", "registry", "--folder", "{authority}", "--ip", "10.0.0.256"), 2, "no IP address"),
        (("issue", "service", "registry", "--folder", "{authority}/none"), 5, "no usable authority"),
        (("show", "--folder", "{authority}/none"), 4, "no folder"),
        (("show", "{authority}/ca.key"), 2, "no readable certificate"),
        (("renew", "{authority}/ca.pem", "--folder", "{authority}", "--within-days", "99999"), 5, "is an authority"),
    ],
)
def test_what_goes_wrong_is_named(
    plimsoll: Plimsoll, authority: Path, args: tuple[str, ...], code: int, says: str
) -> None:
    answer = plimsoll("pki", *(arg.format(authority=authority) for arg in args))
    assert answer.code == code
    assert says in answer.err
    assert answer.out == ""
