"""Who calls, and what they may."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import grpc

from services.runtime.errors import RuntimeFault


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller: service or node by its certificate, or local by the permissions of the Unix socket."""

    kind: Literal["service", "node", "local"]
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}" if self.name else self.kind


LOCAL = Identity("local", "")

Rule: TypeAlias = Callable[[Identity], bool]


class NotAllowed(RuntimeFault):
    """The caller may not do that."""

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__("denied", message, remedy=remedy)


def allow(*, services: Collection[str] = (), nodes: bool = False, local: bool = True) -> Rule:
    """A rule that admits the services named, any node, or whoever reaches the local socket.

    A node that may call must still be held to its own name: see `require_node`.
    """
    names = frozenset(services)

    def rule(identity: Identity) -> bool:
        if identity.kind == "service":
            return identity.name in names
        return nodes if identity.kind == "node" else local

    return rule


def require_node(identity: Identity, node: str) -> None:
    """A node may act only for itself; services and local callers that passed the rule may act for any node."""
    if identity.kind == "node" and identity.name != node:
        raise NotAllowed(
            f"{identity} may not act for node {node!r}",
            remedy="A node may act only for itself: its certificate must carry the name that it announces.",
        )


def identify(
    context: grpc.ServicerContext | grpc.aio.ServicerContext[Any, Any], trust_domain: str, *, plain_is_local: bool
) -> Identity | None:
    """The caller of a connection; None: a certificate that names no one in our trust domain.

    :param plain_is_local: the server listens on loopback without TLS, so that whoever gets through is of this machine.
    """
    peer: str = context.peer()
    if peer.startswith("unix:"):
        return LOCAL
    auth: Mapping[str, Any] = context.auth_context()
    if not auth:
        return LOCAL if plain_is_local else None
    uris = [value.decode(errors="replace") for value in auth.get("peer_spiffe_id", ())]
    prefix = f"spiffe://{trust_domain}/"
    if len(uris) != 1 or not uris[0].startswith(prefix):
        return None
    kind, _, name = uris[0].removeprefix(prefix).partition("/")
    if not name or "/" in name:
        return None
    if kind == "service":
        return Identity("service", name)
    return Identity("node", name) if kind == "node" else None
