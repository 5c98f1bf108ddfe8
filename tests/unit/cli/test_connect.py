"""Reaching a service: sockets that nobody serves, and mutual TLS over the network."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from services.api.registry.v1 import registry_pb2_grpc
from services.api.registry.v1.registry_pb2_grpc import RegistryServiceStub
from services.cli.connect import stub_of
from services.cli.context import Service
from services.cli.errors import Refused
from services.runtime import pki
from tests.unit.cli.conftest import Plimsoll, Site


def test_a_socket_that_its_service_left_behind(
    plimsoll: Plimsoll, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind("stale.sock")
    (tmp_path / "context.toml").write_text('registry = "unix:stale.sock"')
    answer = plimsoll("nodes", "list", "--context", "context.toml")
    assert answer.code == 3
    assert "stale.sock: Connection refused" in answer.err
    assert "systemctl status plimsoll-registry" in answer.err


def test_a_socket_that_one_may_not_open(site: Site) -> None:
    """Only its owner's folder keeps it: whoever is somebody else is refused."""
    service = Service("registry", "registry", f"unix:{site.folder}/registry.sock", "registry")
    was_root = os.geteuid() == 0
    if was_root:
        os.seteuid(65534)
    else:
        site.folder.chmod(0)
    try:
        with pytest.raises(Refused, match="may not be opened") as caught, stub_of(service, RegistryServiceStub):
            pass
        assert "as root" in caught.value.remedy
    finally:
        if was_root:
            os.seteuid(0)
        site.folder.chmod(0o700)


Secure = tuple[Path, Callable[..., str]]  # the authority's folder, and a writer of context files


class TestTls:
    @pytest.fixture
    def secure(self, site: Site, tmp_path: Path) -> Iterator[Secure]:
        """The site's registry on TCP with mutual TLS; returns a writer of context files for its port."""
        folder = tmp_path / "pki"
        pki.create_ca(folder)
        own = pki.issue(folder, folder, "service", "registry")
        pki.issue(folder, folder, "service", "cli")
        pair = [(own.key.read_bytes(), own.certificate.read_bytes())]
        credentials = grpc.ssl_server_credentials(pair, own.ca.read_bytes(), require_client_auth=True)
        server = grpc.server(ThreadPoolExecutor(2))
        registry_pb2_grpc.add_RegistryServiceServicer_to_server(site.registry, server)
        port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()

        def context(extra: str = "") -> str:
            path = tmp_path / "secure.toml"
            path.write_text(f'registry = "127.0.0.1:{port}"\n{extra}')
            return str(path)

        yield folder, context
        server.stop(None).wait()

    @staticmethod
    def tls(folder: Path) -> str:
        return (
            f'[tls]\nca = "{folder}/ca.pem"\ncertificate = "{folder}/service-cli.pem"\nkey = "{folder}/service-cli.key"'
        )

    def test_with_certificates_of_the_same_authority(self, plimsoll: Plimsoll, secure: Secure) -> None:
        folder, context = secure
        assert len(plimsoll("nodes", "list", "--json", "--context", context(self.tls(folder))).json) == 2

    def test_with_those_of_another(self, plimsoll: Plimsoll, secure: Secure, tmp_path: Path) -> None:
        other = tmp_path / "other"
        pki.create_ca(other)
        pki.issue(other, other, "service", "cli")
        answer = plimsoll("nodes", "list", "--context", secure[1](self.tls(other)))
        assert answer.code == 3
        assert "certificates" in answer.err

    def test_with_none(self, plimsoll: Plimsoll, secure: Secure) -> None:
        answer = plimsoll("nodes", "list", "--context", secure[1]())
        assert answer.code == 3
        assert "[tls]" in answer.err

    def test_with_none_for_a_service_that_is_not_on_this_machine(self, plimsoll: Plimsoll, tmp_path: Path) -> None:
        path = tmp_path / "context.toml"
        path.write_text('registry = "registry.example.net:7401"')
        answer = plimsoll("nodes", "list", "--context", str(path), "--json")
        assert answer.code == 2
        assert answer.error["field"] == "tls"

    def test_with_files_that_are_not_there(self, plimsoll: Plimsoll, secure: Secure, tmp_path: Path) -> None:
        answer = plimsoll("nodes", "list", "--context", secure[1](self.tls(tmp_path / "absent")))
        assert answer.code == 2
        assert "absent" in answer.err
        assert "remedy" in answer.err
