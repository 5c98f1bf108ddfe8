"""TLS files of a process, read again whenever they change on disk."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import grpc
import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization

from services.runtime import pki
from services.runtime.errors import RuntimeFault
from services.runtime.metrics import CERTIFICATE_EXPIRES


@dataclass(frozen=True, slots=True)
class Material:
    """PEM contents that belong together."""

    ca: bytes
    certificate: bytes
    key: bytes

    @property
    def trust_domain(self) -> str:
        return pki.trust_domain_of(x509.load_pem_x509_certificate(self.certificate))


class TlsError(RuntimeFault):
    """The TLS files can't be used."""


class TlsFiles:
    """The files named by settings; `current` returns what they hold now. Safe for use from any thread.

    A pair that does not match (a rotation under way), or that can't be read, leaves the last good one in force.
    """

    def __init__(self, ca: Path, certificate: Path, key: Path) -> None:
        self._paths = (ca, certificate, key)
        self._lock = threading.Lock()
        self._log = structlog.get_logger("tls").bind(certificate=str(certificate))
        self._stamp = self._stat()
        self._material = self._read()
        self._use(self._material)
        if key.stat().st_mode & 0o007:
            self._log.warning("anybody on this machine may read the private key; make it mode 0600", key=str(key))

    def current(self) -> Material:
        """The newest usable material; the same object as long as it is the same."""
        with self._lock:
            try:
                stamp = self._stat()
                if stamp == self._stamp:
                    return self._material
                material = self._read()
            except TlsError as exc:
                self._log.warning("changed TLS files are not usable yet; the old ones stay", error=exc.message)
                return self._material
            self._stamp = stamp
            if material == self._material:
                return self._material
            self._use(material)
            self._log.info("TLS files changed on disk and are in use now")
            return material

    def _use(self, material: Material) -> None:
        self._material = material
        expires_at = x509.load_pem_x509_certificate(material.certificate).not_valid_after_utc
        CERTIFICATE_EXPIRES.labels(str(self._paths[1])).set(expires_at.timestamp())

    def _stat(self) -> tuple[tuple[int, int, int], ...]:
        try:
            stats = [path.stat() for path in self._paths]
        except OSError as exc:
            raise self._unusable(str(exc)) from exc
        return tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in stats)

    def _read(self) -> Material:
        try:
            ca, certificate, key = (path.read_bytes() for path in self._paths)
            x509.load_pem_x509_certificates(ca)
            public = x509.load_pem_x509_certificate(certificate).public_key()
            private = serialization.load_pem_private_key(key, password=None)
        except (OSError, ValueError, TypeError, InvalidSignature) as exc:
            raise self._unusable(str(exc)) from exc
        der = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        if private.public_key().public_bytes(*der) != public.public_bytes(*der):
            raise self._unusable(f"{self._paths[1]} and {self._paths[2]} do not belong together")
        return Material(ca, certificate, key)

    def _unusable(self, why: str) -> TlsError:
        return TlsError(
            "precondition",
            f"TLS files can't be used: {why}",
            field="tls",
            remedy="Give readable PEM files in tls.ca, tls.certificate and tls.key, or issue them: plimsoll pki issue",
        )


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Credentials that demand a client certificate of our authority; each new connection sees the files of its time."""

    def configuration(material: Material) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration(
            [(material.key, material.certificate)], root_certificates=material.ca
        )

    used = [files.current()]

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        material = files.current()
        if material is used[0]:
            return None
        used[0] = material
        return configuration(material)

    # The stubs do not know that None means: go on with the last one.
    fetcher = cast(Callable[[], grpc.ServerCertificateConfiguration], fetch)
    return grpc.dynamic_ssl_server_credentials(configuration(used[0]), fetcher, require_client_authentication=True)


def channel_credentials(material: Material) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(material.ca, material.key, material.certificate)
