"""Rules of an endpoint's policy as frozen facts; no I/O.

What applies to a packet of a new connection, in one direction:

1. Rules match by peer (its identity, or any), protocol and port of the destination (ICMP: type * 256 + code).
2. A deny that matches wins, whatever else does.
3. Else the most specific match wins: fewer ports before more, a protocol before all of them; of equally specific ones
   that for the very identity, then audit before allow, then the lower rule number.
4. If none matches, an enforced direction denies; one that is not lets pass without asking.

Audit is a deny that is told of and lets pass. An endpoint whose flag says audit turns every deny of that direction
into it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from datapath import layout
from datapath.errors import InvalidPolicy
from datapath.identities.model import IDENTITY_MAX

ANY_IDENTITY: Final = 0
ANY_PROTOCOL: Final = 0
LAST_PORT: Final = 0xFFFF


class Direction(enum.IntEnum):
    """As bpf/include/types.h numbers them, from the pod's point of view."""

    INGRESS = layout.DIRECTION_INGRESS
    EGRESS = layout.DIRECTION_EGRESS


class Verdict(enum.IntEnum):
    ALLOW = layout.POLICY_ALLOW
    DENY = layout.POLICY_DENY
    AUDIT = layout.POLICY_AUDIT


@dataclass(frozen=True, slots=True)
class Rule:
    """:ivar number: for events, so that people find the rule again; several map entries may bear one number.
    :ivar identity: of the peer; ANY_IDENTITY: whoever it is.
    :ivar protocol: its IP number; ANY_PROTOCOL: all, and then all ports.
    :ivar first_port, last_port: of the destination, both included. ICMP: type * 256 + code.
    """

    number: int
    direction: Direction
    verdict: Verdict
    identity: int = ANY_IDENTITY
    protocol: int = ANY_PROTOCOL
    first_port: int = 0
    last_port: int = LAST_PORT

    def __post_init__(self) -> None:
        _within("number", self.number, 0xFFFFFFFF)
        _within("identity", self.identity, IDENTITY_MAX)
        _within("protocol", self.protocol, 0xFF)
        _within("first_port", self.first_port, LAST_PORT)
        _within("last_port", self.last_port, LAST_PORT)
        if self.first_port > self.last_port:
            raise InvalidPolicy(
                f"ports {self.first_port} to {self.last_port} are the wrong way round", field="first_port"
            )
        if self.protocol == ANY_PROTOCOL and not self.all_ports:
            raise InvalidPolicy(
                "ports need a protocol", field="protocol", remedy="write one rule for TCP and one for UDP"
            )

    @property
    def all_ports(self) -> bool:
        return self.first_port == 0 and self.last_port == LAST_PORT

    @property
    def bits(self) -> int:
        """How specific it is: 0 every protocol, 16 every port of one, 32 a single port; a range is between, as the
        smallest power of two that its ports fit in (so it does not matter where the range lies)."""
        if self.protocol == ANY_PROTOCOL:
            return 0
        return 16 if self.all_ports else max(17, 32 - (self.last_port - self.first_port).bit_length())


@dataclass(frozen=True, slots=True)
class Peer:
    """What a packet is asked about: the identity at the other end, protocol, port of the destination."""

    direction: Direction
    identity: int
    protocol: int
    port: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """`rule` 0 and `matched` false: no rule matched, so it is the endpoint's default."""

    verdict: Verdict
    rule: int = 0
    matched: bool = True


@dataclass(frozen=True, slots=True)
class Enforcement:
    """Flags of an endpoint (TARGET_INGRESS_POLICY and its fellows): what is not enforced is not asked."""

    ingress: bool = False
    egress: bool = False
    audit_ingress: bool = False
    audit_egress: bool = False

    def enforced(self, direction: Direction) -> bool:
        return self.ingress if direction is Direction.INGRESS else self.egress

    def audited(self, direction: Direction) -> bool:
        return self.audit_ingress if direction is Direction.INGRESS else self.audit_egress

    @property
    def target_flags(self) -> int:
        """As `struct target.flags` has them."""
        return (
            self.ingress * layout.TARGET_INGRESS_POLICY
            | self.egress * layout.TARGET_EGRESS_POLICY
            | self.audit_ingress * layout.TARGET_INGRESS_AUDIT
            | self.audit_egress * layout.TARGET_EGRESS_AUDIT
        )


@dataclass(frozen=True, slots=True)
class EndpointPolicy:
    rules: frozenset[Rule] = frozenset()
    enforcement: Enforcement = Enforcement()


def _within(field: str, value: int, most: int) -> None:
    if not 0 <= value <= most:
        raise InvalidPolicy(f"{field} {value} is not in 0..{most}", field=field)
