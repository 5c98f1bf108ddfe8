"""What a certificate file says, for people, and its renewal with the same names."""

from __future__ import annotations

import datetime as dt
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from services.cli.errors import CliError, Refused, Unknown, Usage
from services.cli.views import View
from services.runtime import pki
from services.runtime.errors import RuntimeFault


@dataclass(frozen=True, slots=True)
class Names:
    """Whom a certificate is for. `kind` is "" for an authority; `dns` and `ips` are those beyond the standard ones."""

    uri: str
    kind: str
    name: str
    trust_domain: str
    dns: tuple[str, ...]
    ips: tuple[str, ...]


def translate(error: RuntimeFault) -> CliError:
    kinds: dict[str, type[CliError]] = {"invalid": Usage, "not_found": Unknown}
    return kinds.get(error.kind, Refused)(error.message, field=error.field, remedy=error.remedy)


def names_of(certificate: x509.Certificate) -> Names:
    """Raises PkiError if the certificate has no spiffe name."""
    domain = pki.trust_domain_of(certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    (uri,) = (one for one in names.get_values_for_type(x509.UniformResourceIdentifier) if one.startswith("spiffe://"))
    kind, _, name = uri.removeprefix(f"spiffe://{domain}").lstrip("/").partition("/")
    own = pki.dns_name(domain, kind, name)
    dns = tuple(one for one in names.get_values_for_type(x509.DNSName) if one != own)
    return Names(uri, kind, name, domain, dns, tuple(str(one) for one in names.get_values_for_type(x509.IPAddress)))


def view(path: Path, now: dt.datetime) -> View:
    certificate = pki.read_certificate(path)
    names = names_of(certificate)
    expires = certificate.not_valid_after_utc
    return {
        "file": str(path),
        "identity": names.uri,
        "kind": names.kind or "authority",
        "name": names.name or names.trust_domain,
        "trust_domain": names.trust_domain,
        "dns": list(names.dns),
        "ips": list(names.ips),
        "expires_at": expires.isoformat(),
        "days_left": (expires - now).days,
        "fingerprint_sha256": certificate.fingerprint(SHA256()).hex(),
    }


def in_folder(folder: Path) -> list[Path]:
    """Certificate files of a folder, the authority's first. Raises Unknown if there is none."""
    if not folder.is_dir():
        raise Unknown(f"there is no folder {folder}", remedy="name another, or make one with `plimsoll pki init`")
    found = sorted(folder.glob("*.pem"), key=lambda path: (path.name != "ca.pem", path.name))
    if not found:
        raise Unknown(f"{folder} holds no certificate (*.pem)", remedy=f"plimsoll pki init --folder {folder}")
    return found


def renew(authority: Path, path: Path, days: int) -> pki.Issued:
    """A new certificate and key with the names of the old one, in its place; the key keeps its owner and mode, so that
    a service which is not root can read it."""
    names = names_of(pki.read_certificate(path))
    if names.kind not in ("service", "node"):
        raise Refused(f"{path} is an authority", remedy="make a new one in another folder, and issue anew from it")
    kind = cast(Literal["service", "node"], names.kind)
    key = path.with_suffix(".key")
    before = key.stat() if key.exists() else None
    issued = pki.issue(authority, path.parent, kind, names.name, dns=names.dns, ips=names.ips, days=days)
    if before is not None:
        os.chown(issued.key, before.st_uid, before.st_gid)
        issued.key.chmod(before.st_mode & 0o640)
    return issued
