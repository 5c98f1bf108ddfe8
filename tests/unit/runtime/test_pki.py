"""Certificates: what is issued, what is refused, and what happens to files that change."""

from __future__ import annotations

import datetime as dt
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from services.runtime import pki
from services.runtime.pki import PkiError
from services.runtime.tls import TlsError, TlsFiles


@pytest.fixture(scope="module")
def authority_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ca")
    pki.create_ca(folder, trust_domain="example.org")
    return folder


def names_in(path: Path) -> tuple[list[str], list[str], list[str]]:
    extension = pki.read_certificate(path).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    uris = extension.get_values_for_type(x509.UniformResourceIdentifier)
    addresses = [str(address) for address in extension.get_values_for_type(x509.IPAddress)]
    return uris, extension.get_values_for_type(x509.DNSName), addresses


@pytest.mark.parametrize(
    ("kind", "name", "uri", "dns"),
    [
        ("service", "ipam-aws", "spiffe://example.org/service/ipam-aws", "ipam-aws.example.org"),
        ("node", "node-1", "spiffe://example.org/node/node-1", "node-1.node.example.org"),
        ("node", "ip-10-0-0-1.ec2.internal", "spiffe://example.org/node/ip-10-0-0-1.ec2.internal", None),
    ],
)
def test_a_certificate_names_its_holder(
    authority_folder: Path, tmp_path: Path, kind: Any, name: str, uri: str, dns: str | None
) -> None:
    issued = pki.issue(authority_folder, tmp_path, kind, name, dns=["lb.example.com"], ips=["10.0.0.5"])
    uris, dns_names, addresses = names_in(issued.certificate)
    assert uris == [issued.uri] == [uri]
    assert dns_names[0] == (dns or pki.dns_name("example.org", kind, name))
    assert (dns_names[1:], addresses) == (["lb.example.com"], ["10.0.0.5"])
    assert stat.S_IMODE(issued.key.stat().st_mode) == 0o600


@pytest.mark.tool("openssl")
def test_openssl_accepts_the_chain(authority_folder: Path, tmp_path: Path) -> None:
    issued = pki.issue(authority_folder, tmp_path, "service", "registry")
    argv = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", str(issued.ca)]
    result = subprocess.run([*argv, str(issued.certificate)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_issuing_again_renews(authority_folder: Path, tmp_path: Path) -> None:
    first = pki.issue(authority_folder, tmp_path, "node", "node-1", days=1)
    second = pki.issue(authority_folder, tmp_path, "node", "node-1", days=30)
    assert (first.certificate, first.key) == (second.certificate, second.key)
    assert second.expires_at > first.expires_at
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ca.pem", "node-node-1.key", "node-node-1.pem"]


def test_renewing_keeps_the_names_and_changes_the_key(authority_folder: Path, tmp_path: Path) -> None:
    first = pki.issue(authority_folder, tmp_path, "node", "node-1", dns=["lb.example.com"], ips=["10.0.0.5"], days=1)
    names, key = names_in(first.certificate), first.key.read_bytes()
    second = pki.renew(authority_folder, first.certificate, days=30)
    assert names_in(second.certificate) == names
    assert second.expires_at > first.expires_at
    assert second.key.read_bytes() != key
    with pytest.raises(PkiError):
        pki.renew(authority_folder, first.ca)


def test_no_certificate_outlives_its_authority(tmp_path: Path) -> None:
    pki.create_ca(tmp_path / "ca", days=10)
    issued = pki.issue(tmp_path / "ca", tmp_path, "service", "registry", days=365)
    assert issued.expires_at < dt.datetime.now(dt.UTC) + dt.timedelta(days=11)


@pytest.mark.parametrize(
    ("story", "arguments", "field"),
    [
        ("a service with a dot could look like a node", {"kind": "service", "name": "x.node"}, "name"),
        ("a path", {"kind": "node", "name": "../../etc/x"}, "name"),
        ("capitals", {"kind": "node", "name": "Node-1"}, "name"),
        ("nothing", {"kind": "node", "name": ""}, "name"),
        ("a name that is an identity", {"kind": "node", "name": "n", "dns": ["registry.example.org"]}, "dns"),
        ("no address", {"kind": "node", "name": "n", "ips": ["10.0.0.256"]}, "ips"),
        ("another domain", {"kind": "node", "name": "n", "trust_domain": "other.org"}, "trust_domain"),
    ],
)
def test_what_would_be_unsafe_is_refused(
    authority_folder: Path, tmp_path: Path, story: str, arguments: dict[str, Any], field: str
) -> None:
    with pytest.raises(PkiError) as caught:
        pki.issue(authority_folder, tmp_path, **arguments)
    assert caught.value.field == field, story
    assert list(tmp_path.iterdir()) == []


def test_an_authority_is_not_replaced_and_its_lack_is_told(authority_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(PkiError, match="already holds an authority"):
        pki.create_ca(authority_folder)
    with pytest.raises(PkiError) as caught:
        pki.issue(tmp_path, tmp_path, "node", "node-1")
    assert "plimsoll pki init" in caught.value.remedy


def test_tls_files_follow_the_disk_but_never_a_broken_one(authority_folder: Path, tmp_path: Path) -> None:
    issued = pki.issue(authority_folder, tmp_path, "node", "node-1")
    files = TlsFiles(issued.ca, issued.certificate, issued.key)
    first = files.current()
    assert files.current() is first
    assert first.trust_domain == "example.org"
    old_key = issued.key.read_bytes()
    pki.issue(authority_folder, tmp_path, "node", "node-1")
    second = files.current()
    assert second != first
    issued.key.write_bytes(old_key)
    assert files.current() is second, "a key that does not belong to the certificate"
    issued.certificate.unlink()
    assert files.current() is second, "a file that is gone"
    pki.issue(authority_folder, tmp_path, "node", "node-1")
    assert files.current() not in (first, second)


@pytest.mark.parametrize("broken", ["ca", "certificate", "key"])
def test_unusable_files_at_the_start_are_told(authority_folder: Path, tmp_path: Path, broken: str) -> None:
    issued = pki.issue(authority_folder, tmp_path, "node", "node-1")
    getattr(issued, broken).write_bytes(b"nothing")
    with pytest.raises(TlsError) as caught:
        TlsFiles(issued.ca, issued.certificate, issued.key)
    assert caught.value.field == "tls"
    assert "plimsoll pki issue" in caught.value.remedy
