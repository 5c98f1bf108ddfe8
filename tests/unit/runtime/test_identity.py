"""Who a caller is, by the names in its certificate; and what an address may look like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.runtime.addresses import is_loopback, parse_listen
from services.runtime.identity import LOCAL, Identity, NotAllowed, allow, identify, require_node


class Connection:
    """A call's context, as far as identity needs it."""

    def __init__(self, peer: str, *uris: str, tls: bool = True) -> None:
        self._peer = peer
        self._auth = {"transport_security_type": [b"ssl"]} if tls else {}
        if uris:
            self._auth["peer_spiffe_id"] = [uri.encode() for uri in uris]

    def peer(self) -> str:
        return self._peer

    def auth_context(self) -> Any:
        return self._auth


@pytest.mark.parametrize(
    ("story", "connection", "expected"),
    [
        ("a service", Connection("ipv4:10.0.0.1:1", "spiffe://x.org/service/worker"), Identity("service", "worker")),
        ("a node", Connection("ipv4:10.0.0.1:1", "spiffe://x.org/node/node-1"), Identity("node", "node-1")),
        ("the local socket", Connection("unix:", tls=False), LOCAL),
        ("no name", Connection("ipv4:10.0.0.1:1"), None),
        ("two names", Connection("ipv4:10.0.0.1:1", "spiffe://x.org/node/a", "spiffe://x.org/node/b"), None),
        ("another domain", Connection("ipv4:10.0.0.1:1", "spiffe://y.org/node/node-1"), None),
        ("a domain that begins alike", Connection("ipv4:10.0.0.1:1", "spiffe://x.org.evil/node/node-1"), None),
        ("the authority itself", Connection("ipv4:10.0.0.1:1", "spiffe://x.org"), None),
        ("an empty name", Connection("ipv4:10.0.0.1:1", "spiffe://x.org/node/"), None),
        ("a longer path", Connection("ipv4:10.0.0.1:1", "spiffe://x.org/node/a/b"), None),
        ("an unknown kind", Connection("ipv4:10.0.0.1:1", "spiffe://x.org/local/root"), None),
        ("no TLS at all", Connection("ipv4:10.0.0.1:1", tls=False), None),
    ],
)
def test_only_one_clear_name_of_our_domain_counts(story: str, connection: Any, expected: Identity | None) -> None:
    assert identify(connection, "x.org", plain_is_local=False) == expected, story


def test_a_plain_loopback_listener_that_was_asked_for_makes_its_callers_local() -> None:
    connection: Any = Connection("ipv4:127.0.0.1:1", tls=False)
    assert identify(connection, "x.org", plain_is_local=True) == LOCAL


@pytest.mark.parametrize(
    ("rule", "admitted"),
    [
        (allow(), {"local"}),
        (allow(nodes=True), {"local", "node/node-1"}),
        (allow(services=["worker"], local=False), {"service/worker"}),
    ],
)
def test_rules_admit_whom_they_name(rule: Any, admitted: set[str]) -> None:
    everybody = [LOCAL, Identity("node", "node-1"), Identity("service", "worker"), Identity("service", "gateway")]
    assert {str(identity) for identity in everybody if rule(identity)} == admitted


def test_a_node_speaks_for_itself_and_services_for_any() -> None:
    require_node(Identity("node", "node-1"), "node-1")
    require_node(Identity("service", "ipam-aws"), "node-1")
    require_node(LOCAL, "node-1")
    with pytest.raises(NotAllowed):
        require_node(Identity("node", "node-1"), "node-2")
    with pytest.raises(NotAllowed):
        require_node(Identity("node", "node-1"), "")


@pytest.mark.parametrize(
    ("text", "address", "loopback"),
    [
        ("127.0.0.1:7401", ("127.0.0.1", 7401), True),
        ("[::1]:0", ("::1", 0), True),
        ("localhost:80", ("localhost", 80), True),
        ("0.0.0.0:80", ("0.0.0.0", 80), False),
        ("[::]:80", ("::", 80), False),
        ("registry.internal:80", ("registry.internal", 80), False),
        ("unix:/run/x.sock", Path("/run/x.sock"), True),
    ],
)
def test_addresses_that_can_be_listened_on(text: str, address: Any, loopback: bool) -> None:
    assert parse_listen(text) == address
    assert is_loopback(text) is loopback


@pytest.mark.parametrize("text", ["", "host", ":80", "host:", "host:x", "host:65536", "::1:80", "unix:x", "host:²"])
def test_addresses_that_can_not(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|brackets|unix"):
        parse_listen(text)
