"""The numbers of bpf/include/types.h as words, sentences and remedies.

Words are for options and programs (lower case, dashes), sentences for people. A number that this release does not know
becomes "reason-77", never an error: programs and daemon may be of two releases during an upgrade.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

DROP: Final = 1
TRACE: Final = 2
FLOW_NEW: Final = 3
FLOW_CLOSED: Final = 4
POLICY: Final = 5
STEP: Final = 6

ALLOW: Final = 1
DENY: Final = 2
AUDIT: Final = 3

TYPES: Final[Mapping[int, str]] = {
    DROP: "drop",
    TRACE: "trace",
    FLOW_NEW: "flow-new",
    FLOW_CLOSED: "flow-closed",
    POLICY: "policy",
    STEP: "step",
}

HOOKS: Final[Mapping[int, str]] = {
    0: "from-pod",
    1: "to-pod",
    2: "from-device",
    3: "to-device",
    4: "from-overlay",
    5: "to-overlay",
    6: "xdp",
}

# Which way packets go through a hook, seen from the pods of this node.
DIRECTIONS: Final[Mapping[int, str]] = {
    0: "egress",
    1: "ingress",
    2: "ingress",
    3: "egress",
    4: "ingress",
    5: "egress",
    6: "ingress",
}

ACTIONS: Final[Mapping[int, str]] = {
    0: "none",
    1: "pod",
    2: "device",
    3: "neighbour",
    4: "tunnel",
    5: "stack",
    6: "direct",
}

SOURCES: Final[Mapping[int, str]] = {1: "pod.bpf.c", 2: "device.bpf.c", 3: "xdp.bpf.c"}

PROTOCOLS: Final[Mapping[str, int]] = {
    "icmp": socket.IPPROTO_ICMP,
    "tcp": socket.IPPROTO_TCP,
    "udp": socket.IPPROTO_UDP,
    "icmpv6": socket.IPPROTO_ICMPV6,
    "sctp": 132,
}
_PROTOCOL_WORDS: Final = {number: word for word, number in PROTOCOLS.items()}

IDENTITIES: Final[Mapping[int, str]] = {0: "unknown", 1: "host", 2: "world", 3: "remote-node", 4: "unmanaged"}


@dataclass(frozen=True, slots=True)
class Reason:
    """Why packets are dropped.

    :ivar sentence: what happened, without its full stop.
    :ivar remedy: what the reader can do about it; empty: nothing is wrong.
    """

    word: str
    sentence: str
    remedy: str


_CLUSTER: Final = "see `plimsoll datapath addresses`, and whether the registry is connected: `plimsoll status`"
_POLICY: Final = "see `plimsoll datapath policy list POD`; allow it there, or let the policy audit only"

REASONS: Final[Mapping[int, Reason]] = {
    0: Reason("none", "passed", ""),
    1: Reason("malformed", "the packet is truncated, or its lengths contradict each other",
              "its sender is at fault: look at it with `plimsoll monitor --type drop --pcap FILE`"),
    2: Reason("unsupported", "pods cannot speak that: another Ethernet type, a routing header, or multicast",
              "pods speak IPv4 and IPv6 to single addresses, and ARP; use that"),
    3: Reason("spoofed-address", "the source address is not the pod's",
              "send from the pod's own address; a router among pods needs any-source"),
    4: Reason("spoofed-mac", "the source MAC is not the pod's",
              "send from the pod's own MAC: see `plimsoll datapath endpoints`"),
    5: Reason("no-endpoint", "the device belongs to no pod that is known",
              "the pod is being set up or was removed; if it stays so, see `plimsoll ipam explain POD`"),
    6: Reason("policy-egress", "policy does not let the sender talk to this destination", _POLICY),
    7: Reason("policy-ingress", "policy does not let the receiver be talked to by this source", _POLICY),
    8: Reason("blackhole", "a blackhole route swallows the destination",
              "see `ip route get ADDRESS` on the node: remove that route if it should be reached"),
    9: Reason("ttl", "the packet has been through too many hops; its sender was told",
              "look for a loop of routes: `traceroute` from the pod"),
    10: Reason("mtu", "the packet is too big for the next link and must not be fragmented; its sender was told",
               "if the sender ignores it, lower the MTU of the pod, or let ICMP errors through"),
    11: Reason("fragment-unknown", "a fragment whose first one has not been seen",
               "the first was lost or came late; send smaller datagrams if it happens often"),
    12: Reason("flow-full", "the table of connections holds no more",
               "see `plimsoll datapath maps`; raise its size in the daemon's settings"),
    13: Reason("nat-no-port", "no source port is free for this destination",
               "spread connections over more destinations, or close idle ones: see `plimsoll datapath nat list`"),
    14: Reason("nat-no-address", "the device has no address to masquerade with",
               "give the device a global address of this family: see `plimsoll datapath devices`"),
    15: Reason("no-tunnel", "a pod of another node, but its node is unknown", _CLUSTER),
    16: Reason("invalid-tcp", "TCP flags that no packet can have",
               "its sender is broken, or scans: see who it is"),
    17: Reason("icmp-unrelated", "an ICMP error about a packet that no connection sent",
               "the connection is over, or somebody forges errors; nothing to do if it is rare"),
    18: Reason("rewrite", "the kernel refused to rewrite the packet",
               "if it goes on, look at the daemon's log and report it"),
    19: Reason("prefilter", "the prefilter blocks the source",
               "see `plimsoll datapath prefilter list`; delete the range if it should pass"),
    20: Reason("overlay-unknown", "it came by the tunnel for nobody here",
               f"another node believes a pod to be here: over there, {_CLUSTER}"),
    21: Reason("family-off", "IPv4 or IPv6 is switched off on this node",
               "switch the family on in the daemon's settings"),
    22: Reason("extension-headers", "more IPv6 extension headers than are looked at",
               "send fewer of them: many networks drop such chains"),
    23: Reason("control", "link-local chatter of the pod's kernel, meant for routers",
               "nothing to do: there are none of them on a pod's link"),
}  # fmt: skip


def type_word(number: int) -> str:
    return TYPES.get(number) or f"type-{number}"


def hook_word(number: int) -> str:
    return HOOKS.get(number) or f"hook-{number}"


def action_word(number: int) -> str:
    return ACTIONS.get(number) or f"action-{number}"


def reason_of(number: int) -> Reason:
    return REASONS.get(number) or Reason(
        f"reason-{number}", f"reason {number}, which this release does not know", "see the daemon's log for its release"
    )


def protocol_word(number: int) -> str:
    """ "tcp"; the number in figures if it has no name here."""
    return _PROTOCOL_WORDS.get(number) or str(number)


def identity_word(number: int) -> str:
    return IDENTITIES.get(number) or str(number)


def source_line(file: int, line: int) -> str:
    """Where in the programs it was decided: "pod.bpf.c:120", or empty."""
    return f"{SOURCES.get(file, f'source-{file}')}:{line}" if line else ""
