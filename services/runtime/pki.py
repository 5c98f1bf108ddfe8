"""A certificate authority for labs and small sites.

Every process has a certificate whose URI name says what it is: spiffe://<trust domain>/<kind>/<name>, kind being
"service" or "node". Its DNS name is what clients check: <name>.<trust domain> for a service,
<name>.node.<trust domain> for a node, so that no node can pose as a service by its name.
Keys are P-256, PEM, mode 0600. Files are replaced atomically, so that a process that reloads never reads half of one.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from services.runtime.errors import RuntimeFault

Kind = Literal["service", "node"]
DEFAULT_TRUST_DOMAIN: Final = "plimsoll.local"
CA_DAYS: Final = 3650
DAYS: Final = 365
# Clocks differ between machines: a certificate is valid a little before it was made.
_BACKDATE: Final = dt.timedelta(minutes=5)
_LABEL: Final = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_SERVICE_NAME: Final = re.compile(_LABEL)
_DNS_NAME: Final = re.compile(rf"{_LABEL}(\.{_LABEL})*")


class PkiError(RuntimeFault):
    """A certificate can't be made or read."""


@dataclass(frozen=True, slots=True)
class Issued:
    """Where the PEM files of one certificate lie, and until when it is valid."""

    ca: Path
    certificate: Path
    key: Path
    uri: str
    expires_at: dt.datetime


def spiffe_uri(trust_domain: str, kind: str, name: str) -> str:
    return f"spiffe://{trust_domain}/{kind}/{name}"


def dns_name(trust_domain: str, kind: str, name: str) -> str:
    """The DNS name by which clients check the certificate of `kind`/`name`."""
    return f"{name}.{trust_domain}" if kind == "service" else f"{name}.{kind}.{trust_domain}"


def create_ca(folder: Path, *, trust_domain: str = DEFAULT_TRUST_DOMAIN, days: int = CA_DAYS) -> Path:
    """Makes `folder`/ca.pem and ca.key and returns the path of ca.pem. Refuses to replace an authority."""
    _check_name(trust_domain, _DNS_NAME, "trust_domain")
    certificate_path, key_path = folder / "ca.pem", folder / "ca.key"
    if certificate_path.exists() or key_path.exists():
        raise PkiError(
            "precondition",
            f"{folder} already holds an authority",
            field="folder",
            remedy="Use it as it is, or remove ca.pem and ca.key if every certificate it issued may become invalid.",
        )
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Plimsoll CA {trust_domain}")])
    now = dt.datetime.now(dt.UTC)
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")]), False)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(key_path, _key_pem(key), 0o600)
    _write(certificate_path, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    return certificate_path


def issue(
    ca_folder: Path,
    out_folder: Path,
    kind: Kind,
    name: str,
    *,
    trust_domain: str | None = None,
    dns: Sequence[str] = (),
    ips: Sequence[str] = (),
    days: int = DAYS,
) -> Issued:
    """Writes `out_folder`/<kind>-<name>.pem and .key, and a copy of ca.pem; replaces older ones, which renews them.

    :param trust_domain: None: the authority's own.
    :param dns: more DNS names, beside the one that clients check.
    :param ips: addresses, for clients that are not ours.
    """
    _check_name(name, _SERVICE_NAME if kind == "service" else _DNS_NAME, "name")
    ca, ca_key = _load_ca(ca_folder)
    domain = trust_domain if trust_domain is not None else trust_domain_of(ca)
    if domain != trust_domain_of(ca):
        raise PkiError("invalid", f"the authority is of {trust_domain_of(ca)!r}, not {domain!r}", field="trust_domain")
    uri = spiffe_uri(domain, kind, name)
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri), x509.DNSName(dns_name(domain, kind, name))]
    for extra in dns:
        _check_name(extra, _DNS_NAME, "dns")
        if extra.endswith("." + domain):
            raise PkiError("invalid", f"{extra!r} lies in the trust domain: such a name is an identity", field="dns")
        names.append(x509.DNSName(extra))
    names += [x509.IPAddress(_ip(text)) for text in ips]
    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)
    expires_at = min(now + dt.timedelta(days=days), ca.not_valid_after_utc)
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=True,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    # A common name holds 64 characters at most; nobody decides by it.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{kind}/{name}"[:64])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(expires_at)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(purposes, critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    out_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    stem = f"{kind}-{name}"
    paths = Issued(out_folder / "ca.pem", out_folder / f"{stem}.pem", out_folder / f"{stem}.key", uri, expires_at)
    if out_folder.resolve() != ca_folder.resolve():
        _write(paths.ca, ca.public_bytes(serialization.Encoding.PEM), 0o644)
    # Between the two renames a reader sees a pair that does not match; tls.py checks the pair and reads again.
    _write(paths.key, _key_pem(key), 0o600)
    _write(paths.certificate, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    return paths


def renew(ca_folder: Path, certificate: Path, *, days: int = DAYS) -> Issued:
    """Issues a certificate of `certificate`'s names again, in its place, with a new key beside it."""
    old = read_certificate(certificate)
    domain, path = _spiffe_path(old)
    kind, _, name = path.partition("/")
    if kind not in ("service", "node") or certificate.name != f"{kind}-{name}.pem":
        raise PkiError("invalid", f"{certificate} was not issued here: it is of {path!r}", field="certificate")
    names = old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    own = dns_name(domain, kind, name)
    return issue(
        ca_folder,
        certificate.parent,
        cast(Kind, kind),
        name,
        trust_domain=domain,
        dns=[dns for dns in names.get_values_for_type(x509.DNSName) if dns != own],
        ips=[str(ip) for ip in names.get_values_for_type(x509.IPAddress)],
        days=days,
    )


def trust_domain_of(certificate: x509.Certificate) -> str:
    """Trust domain in the certificate's spiffe URI. Raises PkiError if it has none."""
    return _spiffe_path(certificate)[0]


def read_certificate(path: Path) -> x509.Certificate:
    """The first certificate of a PEM file. Raises PkiError naming the path."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as exc:
        raise PkiError(
            "invalid",
            f"{path} is no readable certificate: {exc}",
            remedy="Issue one with: plimsoll pki issue",
        ) from exc


def _spiffe_path(certificate: x509.Certificate) -> tuple[str, str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    uris = [uri for uri in names.get_values_for_type(x509.UniformResourceIdentifier) if uri.startswith("spiffe://")]
    if len(uris) != 1:
        raise PkiError("invalid", f"the certificate must have one spiffe:// name, it has {len(uris)}")
    domain, _, path = uris[0].removeprefix("spiffe://").partition("/")
    return domain, path


def _load_ca(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    remedy = f"Make an authority with: plimsoll pki init --folder {folder}"
    try:
        ca = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
        key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as exc:
        raise PkiError("precondition", f"{folder} holds no usable authority: {exc}", remedy=remedy) from exc
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise PkiError("precondition", f"{folder / 'ca.key'} is no elliptic curve key", remedy=remedy)
    return ca, key


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, data: bytes, mode: int) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    try:
        os.fchmod(fd, mode)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _check_name(name: str, pattern: re.Pattern[str], field: str) -> None:
    if len(name) > 200 or not pattern.fullmatch(name):
        raise PkiError(
            "invalid",
            f"{field} {name!r} is not accepted: lower-case letters, digits and hyphens"
            + ("" if pattern is _SERVICE_NAME else ", in parts joined by dots"),
            field=field,
        )


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError as exc:
        raise PkiError("invalid", f"{text!r} is no IP address", field="ips") from exc
