"""The numbers of bpf/include/types.h as words, sentences and remedies.

Words are for options and programs (lower case, dashes), sentences for people. A number that this release does not know
becomes "reason-77", never an error: programs and daemon may be of two releases during an upgrade.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from socket import IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP
from typing import Final

from datapath import layout

TYPES: Final[Mapping[int, str]] = layout.EVENT_WORDS
HOOKS: Final[Mapping[int, str]] = layout.HOOK_WORDS

# Which way packets go through a hook, seen from the pods of this node.
DIRECTIONS: Final[Mapping[int, str]] = {
    layout.HOOK_FROM_POD: "egress",
    layout.HOOK_TO_POD: "ingress",
    layout.HOOK_FROM_DEVICE: "ingress",
    layout.HOOK_TO_DEVICE: "egress",
    layout.HOOK_FROM_OVERLAY: "ingress",
    layout.HOOK_TO_OVERLAY: "egress",
    layout.HOOK_XDP: "ingress",
}

ACTIONS: Final[Mapping[int, str]] = {
    layout.ACTION_NONE: "none",
    layout.ACTION_POD: "pod",
    layout.ACTION_DEVICE: "device",
    layout.ACTION_NEIGHBOUR: "neighbour",
    layout.ACTION_TUNNEL: "tunnel",
    layout.ACTION_STACK: "stack",
    layout.ACTION_DIRECT: "direct",
}

PROTOCOLS: Final[Mapping[str, int]] = {
    "icmp": IPPROTO_ICMP,
    "tcp": IPPROTO_TCP,
    "udp": IPPROTO_UDP,
    "icmpv6": IPPROTO_ICMPV6,
    "sctp": 132,
}
_PROTOCOL_WORDS: Final = {number: word for word, number in PROTOCOLS.items()}


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
    layout.DROP_NONE: Reason("none", "passed", ""),
    layout.DROP_MALFORMED: Reason(
        "malformed",
        "the packet is truncated, or its lengths contradict each other",
        "its sender is at fault: look at it with `plimsoll monitor --type drop --pcap FILE`",
    ),
    layout.DROP_UNSUPPORTED: Reason(
        "unsupported",
        "pods cannot speak that: another Ethernet type, a routing header, or multicast",
        "pods speak IPv4 and IPv6 to single addresses, and ARP; use that",
    ),
    layout.DROP_SPOOFED_ADDRESS: Reason(
        "spoofed-address",
        "the source address is not the pod's",
        "send from the pod's own address; a router among pods needs any-source",
    ),
    layout.DROP_SPOOFED_MAC: Reason(
        "spoofed-mac",
        "the source MAC is not the pod's",
        "send from the pod's own MAC: see `plimsoll datapath endpoints`",
    ),
    layout.DROP_NO_ENDPOINT: Reason(
        "no-endpoint",
        "the device belongs to no pod that is known",
        "the pod is being set up or was removed; if it stays so, see `plimsoll ipam explain POD`",
    ),
    layout.DROP_POLICY_EGRESS: Reason(
        "policy-egress", "policy does not let the sender talk to this destination", _POLICY
    ),
    layout.DROP_POLICY_INGRESS: Reason(
        "policy-ingress", "policy does not let the receiver be talked to by this source", _POLICY
    ),
    layout.DROP_BLACKHOLE: Reason(
        "blackhole",
        "a blackhole route swallows the destination",
        "see `ip route get ADDRESS` on the node: remove that route if it should be reached",
    ),
    layout.DROP_TTL: Reason(
        "ttl",
        "the packet has been through too many hops; its sender was told",
        "look for a loop of routes: `traceroute` from the pod",
    ),
    layout.DROP_MTU: Reason(
        "mtu",
        "the packet is too big for the next link and must not be fragmented; its sender was told",
        "if the sender ignores it, lower the MTU of the pod, or let ICMP errors through",
    ),
    layout.DROP_FRAGMENT_UNKNOWN: Reason(
        "fragment-unknown",
        "a fragment whose first one has not been seen",
        "the first was lost or came late; send smaller datagrams if it happens often",
    ),
    layout.DROP_FLOW_FULL: Reason(
        "flow-full",
        "the table of connections holds no more",
        "see `plimsoll datapath maps`; raise its size in the daemon's settings",
    ),
    layout.DROP_NAT_NO_PORT: Reason(
        "nat-no-port",
        "no source port is free for this destination",
        "spread connections over more destinations, or close idle ones: see `plimsoll datapath nat list`",
    ),
    layout.DROP_NAT_NO_ADDRESS: Reason(
        "nat-no-address",
        "the device has no address to masquerade with",
        "give the device a global address of this family: see `plimsoll datapath devices`",
    ),
    layout.DROP_NO_TUNNEL: Reason("no-tunnel", "a pod of another node, but its node is unknown", _CLUSTER),
    layout.DROP_INVALID_TCP: Reason(
        "invalid-tcp", "TCP flags that no packet can have", "its sender is broken, or scans: see who it is"
    ),
    layout.DROP_ICMP_UNRELATED: Reason(
        "icmp-unrelated",
        "an ICMP error about a packet that no connection sent",
        "the connection is over, or somebody forges errors; nothing to do if it is rare",
    ),
    layout.DROP_REWRITE: Reason(
        "rewrite", "the kernel refused to rewrite the packet", "if it goes on, look at the daemon's log and report it"
    ),
    layout.DROP_PREFILTER: Reason(
        "prefilter",
        "the prefilter blocks the source",
        "see `plimsoll datapath prefilter list`; delete the range if it should pass",
    ),
    layout.DROP_OVERLAY_UNKNOWN: Reason(
        "overlay-unknown",
        "it came by the tunnel for nobody here",
        f"another node believes a pod to be here: over there, {_CLUSTER}",
    ),
    layout.DROP_FAMILY_OFF: Reason(
        "family-off", "IPv4 or IPv6 is switched off on this node", "switch the family on in the daemon's settings"
    ),
    layout.DROP_EXTENSION_HEADERS: Reason(
        "extension-headers",
        "more IPv6 extension headers than are looked at",
        "send fewer of them: many networks drop such chains",
    ),
    layout.DROP_CONTROL: Reason(
        "control",
        "link-local chatter of the pod's kernel, meant for routers",
        "nothing to do: there are none of them on a pod's link",
    ),
}


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


def source_line(file: int, line: int) -> str:
    """Where in the programs it was decided: "pod.bpf.c:120", or empty."""
    return f"{layout.SOURCE_FILES.get(file, f'source-{file}')}.bpf.c:{line}" if line else ""
