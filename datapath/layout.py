"""What the eBPF programs and the daemon share: the numbers, keys, values and events of bpf/include/types.h, in Python.

Constants have the names they have there, and their comments are there. Structures are records (record.py): `pack` and
`unpack`, SIZE and OFFSETS; fields that end in _be there are plain numbers here, and padding is left out. Times (_j) are
jiffies, low 32 bits; loader/clock.py turns them into seconds. A test compares all of it with the compiled types.
"""

from __future__ import annotations

import socket
from typing import Final

from datapath.record import Record, address16, be16, be32, mac6, nested, raw, record, u8, u16, u32, u64

LAYOUT_VERSION: Final = 1

IDENTITY_UNKNOWN: Final = 0
IDENTITY_HOST: Final = 1
IDENTITY_WORLD: Final = 2
IDENTITY_REMOTE_NODE: Final = 3
IDENTITY_UNMANAGED: Final = 4
IDENTITY_FIRST: Final = 256
IDENTITY_MAX: Final = 0xFFFFFF

MARK_KIND_MASK: Final = 0x0F00
MARK_IDENTITY: Final = 0x0500
MARK_DONE: Final = 0x0600

TARGET_NONE: Final = 0
TARGET_POD: Final = 1
TARGET_REMOTE_POD: Final = 2
TARGET_HOST: Final = 3
TARGET_REMOTE_NODE: Final = 4
TARGET_RANGE: Final = 5
TARGET_STACK: Final = 6
TARGET_INGRESS_POLICY: Final = 1 << 0
TARGET_EGRESS_POLICY: Final = 1 << 1
TARGET_CLUSTER: Final = 1 << 2
TARGET_TUNNEL: Final = 1 << 3
TARGET_DIRECT: Final = 1 << 4
TARGET_INGRESS_AUDIT: Final = 1 << 5
TARGET_EGRESS_AUDIT: Final = 1 << 6
TARGET_ANY_SOURCE: Final = 1 << 7

DEVICE_MASQUERADE4: Final = 1 << 0
DEVICE_MASQUERADE6: Final = 1 << 1
DEVICE_NO_ETHERNET: Final = 1 << 2
DEVICE_OVERLAY: Final = 1 << 3

ACTION_NONE: Final = 0
ACTION_POD: Final = 1
ACTION_DEVICE: Final = 2
ACTION_NEIGHBOUR: Final = 3
ACTION_TUNNEL: Final = 4
ACTION_STACK: Final = 5
ACTION_DIRECT: Final = 6

PATH_NAT: Final = 1 << 0
PATH_DENIED: Final = 1 << 1

IN_STACK: Final = 0xFFFFFFFF

FLOW_OPENING: Final = 1
FLOW_OPEN: Final = 2
FLOW_CLOSING: Final = 3
FLOW_SEEN_LOW: Final = 1 << 0
FLOW_SEEN_HIGH: Final = 1 << 1
FLOW_FIN_LOW: Final = 1 << 2
FLOW_FIN_HIGH: Final = 1 << 3
FLOW_RST: Final = 1 << 4
FLOW_ORIGIN_HIGH: Final = 1 << 5
FLOW_NAT: Final = 1 << 6
FLOW_TOLD_CLOSED: Final = 1 << 7
FLOW_BY_STACK: Final = 1 << 8

NAT_OUT: Final = 0
NAT_IN: Final = 1

POLICY_FIXED_BITS: Final = 64
POLICY_PROTOCOL_BITS: Final = 80
POLICY_PORT_BITS: Final = 96

DIRECTION_INGRESS: Final = 0
DIRECTION_EGRESS: Final = 1

POLICY_ALLOW: Final = 1
POLICY_DENY: Final = 2
POLICY_AUDIT: Final = 3

CONFIG_IPV4: Final = 1 << 0
CONFIG_IPV6: Final = 1 << 1
CONFIG_ENDPOINT_ROUTES: Final = 1 << 2
CONFIG_MASQUERADE4: Final = 1 << 3
CONFIG_MASQUERADE6: Final = 1 << 4
CONFIG_TRACE: Final = 1 << 5

DROP_NONE: Final = 0
DROP_MALFORMED: Final = 1
DROP_UNSUPPORTED: Final = 2
DROP_SPOOFED_ADDRESS: Final = 3
DROP_SPOOFED_MAC: Final = 4
DROP_NO_ENDPOINT: Final = 5
DROP_POLICY_EGRESS: Final = 6
DROP_POLICY_INGRESS: Final = 7
DROP_BLACKHOLE: Final = 8
DROP_TTL: Final = 9
DROP_MTU: Final = 10
DROP_FRAGMENT_UNKNOWN: Final = 11
DROP_FLOW_FULL: Final = 12
DROP_NAT_NO_PORT: Final = 13
DROP_NAT_NO_ADDRESS: Final = 14
DROP_NO_TUNNEL: Final = 15
DROP_INVALID_TCP: Final = 16
DROP_ICMP_UNRELATED: Final = 17
DROP_REWRITE: Final = 18
DROP_PREFILTER: Final = 19
DROP_OVERLAY_UNKNOWN: Final = 20
DROP_FAMILY_OFF: Final = 21
DROP_EXTENSION_HEADERS: Final = 22
DROP_CONTROL: Final = 23
DROP_REASONS: Final = 24

# Places in the map `created`, by the name of the map whose entries are counted there.
CREATED_FLOWS: Final = 0
CREATED_NAT: Final = 1
CREATED_FRAGMENTS: Final = 2
CREATED_MAPS: Final = 3
CREATED: Final = {"flows": CREATED_FLOWS, "nat": CREATED_NAT, "fragments": CREATED_FRAGMENTS}

HOOK_FROM_POD: Final = 0
HOOK_TO_POD: Final = 1
HOOK_FROM_DEVICE: Final = 2
HOOK_TO_DEVICE: Final = 3
HOOK_FROM_OVERLAY: Final = 4
HOOK_TO_OVERLAY: Final = 5
HOOK_XDP: Final = 6
HOOKS: Final = 7

EVENT_DROP: Final = 1
EVENT_TRACE: Final = 2
EVENT_FLOW_NEW: Final = 3
EVENT_FLOW_CLOSED: Final = 4
EVENT_VERDICT: Final = 5
EVENT_STEP: Final = 6
EVENT_DATA_BYTES: Final = 96

SOURCE_POD: Final = 1
SOURCE_DEVICE: Final = 2
SOURCE_XDP: Final = 3

STEP_SOURCE: Final = 1
STEP_FLOW_FOUND: Final = 2
STEP_FLOW_NEW: Final = 3
STEP_DESTINATION: Final = 4
STEP_POLICY_EGRESS: Final = 5
STEP_POLICY_INGRESS: Final = 6
STEP_ROUTE: Final = 7
STEP_MASQUERADE: Final = 8
STEP_FORWARD: Final = 9
STEP_ANSWER: Final = 10

NO_ADDRESS: Final = bytes(16)
_MAPPED: Final = bytes(10) + b"\xff\xff"


def address_bytes(text: str) -> bytes:
    """16 bytes as in maps: IPv6, or IPv4 as ::ffff:a.b.c.d. Empty text: none. Raises OSError for anything else."""
    if not text:
        return NO_ADDRESS
    return socket.inet_pton(socket.AF_INET6, text) if ":" in text else _MAPPED + socket.inet_pton(socket.AF_INET, text)


def address_text(data: bytes) -> str:
    """The shortest text of 16 bytes; IPv4 as a.b.c.d; empty for none."""
    if data[:12] == _MAPPED:
        return socket.inet_ntop(socket.AF_INET, data[12:])
    return socket.inet_ntop(socket.AF_INET6, data) if any(data) else ""


def mac_bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", "")) if text else bytes(6)


def mac_text(data: bytes) -> str:
    return data.hex(":")


def mark_of(identity: int, kind: int = MARK_IDENTITY) -> int:
    """skb->mark that carries an identity."""
    return (identity & 0xFFFF) << 16 | kind | identity >> 16 & 0xFF


def identity_of(mark: int) -> int:
    """The identity in a mark; IDENTITY_UNKNOWN if it has none of our kinds."""
    return mark >> 16 | (mark & 0xFF) << 16 if mark & MARK_KIND_MASK in (MARK_IDENTITY, MARK_DONE) else IDENTITY_UNKNOWN


@record
class Target(Record):
    kind: int = u8()
    flags: int = u8()
    mtu: int = u16()
    identity: int = u32()
    ifindex: int = u32()
    endpoint: int = u32()
    node: int = u32()
    mac: bytes = mac6()
    host_mac: bytes = mac6()


@record
class CidrKey(Record):
    prefix_bits: int = u32()
    address: bytes = address16()


@record
class Endpoint(Record):
    address4: bytes = address16()
    address6: bytes = address16()
    target: Target = nested(Target)


@record
class Node(Record):
    address: bytes = address16()
    flags: int = u32(pad=4)


@record
class Device(Record):
    masquerade4: bytes = address16()
    masquerade6: bytes = address16()
    flags: int = u32()
    mtu: int = u16()
    mac: bytes = mac6(pad=4)


@record
class FlowKey(Record):
    low: bytes = address16()
    high: bytes = address16()
    low_port: int = be16()
    high_port: int = be16()
    protocol: int = u8(pad=3)


@record
class Path(Record):
    nat_address: bytes = address16()
    generation: int = u32()
    checked_j: int = u32()
    in_ifindex: int = u32()
    out_ifindex: int = u32()
    action: int = u8()
    flags: int = u8()
    mtu: int = u16()
    in_mac: bytes = mac6()
    destination_mac: bytes = mac6()
    source_mac: bytes = mac6()
    nat_port: int = be16()
    node: int = u32()
    mark: int = u32(pad=2)
    reason: int = u16()
    rule: int = u32()
    packets: int = u32()
    checksum_diff: int = u32()
    byte_count: int = u64()


@record
class Flow(Record):
    expires_j: int = u32()
    created_j: int = u32()
    state: int = u8(pad=1)
    flags: int = u16()
    low_identity: int = u32()
    high_identity: int = u32(pad=4)
    from_low: Path = nested(Path)
    from_high: Path = nested(Path)


@record
class NatKey(Record):
    source: bytes = address16()
    destination: bytes = address16()
    source_port: int = be16()
    destination_port: int = be16()
    protocol: int = u8()
    direction: int = u8(pad=2)


@record
class Nat(Record):
    address: bytes = address16()
    port: int = be16(pad=2)
    expires_j: int = u32()
    created_j: int = u32()
    checksum_diff: int = u32()


@record
class FragmentKey(Record):
    source: bytes = address16()
    destination: bytes = address16()
    id: int = be32()
    protocol: int = u8(pad=3)


@record
class Fragment(Record):
    source_port: int = be16()
    destination_port: int = be16()
    seen_j: int = u32()


@record
class PolicyKey(Record):
    prefix_bits: int = u32()
    direction: int = u8(pad=3)
    identity: int = u32()
    protocol: int = u8(pad=1)
    port: int = be16()


@record
class Policy(Record):
    verdict: int = u8()
    bits: int = u8(pad=2)
    rule: int = u32()
    packets: int = u64()


@record
class Config(Record):
    hz: int = u32()
    tunnel_ifindex: int = u32()
    flags: int = u32()
    tcp_open_j: int = u32()
    tcp_opening_j: int = u32()
    tcp_closing_j: int = u32()
    other_open_j: int = u32()
    other_opening_j: int = u32()
    fragment_j: int = u32()
    recheck_j: int = u32()
    nat_port_low: int = u16()
    nat_port_high: int = u16()
    host_mac: bytes = mac6()
    tunnel_mac: bytes = mac6()
    gateway4: bytes = address16()
    gateway6: bytes = address16()


@record
class Runtime(Record):
    generation: int = u32()
    trace_every: int = u32()
    flow_events: int = u32()
    drop_events_per_tick: int = u32()
    verdict_events: int = u32()
    icmp_errors_per_tick: int = u32(pad=8)


@record
class Counter(Record):
    packets: int = u64()
    byte_count: int = u64()


@record
class Event(Record):
    time_ns: int = u64()
    type: int = u8()
    hook: int = u8()
    reason: int = u8()
    verdict: int = u8()
    line: int = u16()
    protocol: int = u8()
    action: int = u8()
    source: bytes = address16()
    destination: bytes = address16()
    source_port: int = be16()
    destination_port: int = be16()
    ifindex: int = u32()
    out_ifindex: int = u32()
    source_identity: int = u32()
    destination_identity: int = u32()
    rule: int = u32()
    suppressed: int = u32()
    length: int = u16()
    data_length: int = u16()
    file: int = u32()
    cpu: int = u32()
    data: bytes = raw(EVENT_DATA_BYTES)


ADDRESS_SIZE: Final = 16
TARGET_SIZE, ENDPOINT_SIZE, NODE_SIZE, DEVICE_SIZE = Target.SIZE, Endpoint.SIZE, Node.SIZE, Device.SIZE
FLOW_KEY_SIZE, FLOW_SIZE, NAT_KEY_SIZE, NAT_SIZE = FlowKey.SIZE, Flow.SIZE, NatKey.SIZE, Nat.SIZE
FRAGMENT_KEY_SIZE, FRAGMENT_SIZE = FragmentKey.SIZE, Fragment.SIZE
POLICY_KEY_SIZE, POLICY_SIZE, CIDR_KEY_SIZE, EVENT_SIZE = PolicyKey.SIZE, Policy.SIZE, CidrKey.SIZE, Event.SIZE

# Words for people and metrics, by number; a word never changes its meaning. Drops and actions: events/words.py.
HOOK_WORDS: Final = {
    HOOK_FROM_POD: "from-pod",
    HOOK_TO_POD: "to-pod",
    HOOK_FROM_DEVICE: "from-device",
    HOOK_TO_DEVICE: "to-device",
    HOOK_FROM_OVERLAY: "from-overlay",
    HOOK_TO_OVERLAY: "to-overlay",
    HOOK_XDP: "xdp",
}
EVENT_WORDS: Final = {
    EVENT_DROP: "drop",
    EVENT_TRACE: "trace",
    EVENT_FLOW_NEW: "flow-new",
    EVENT_FLOW_CLOSED: "flow-closed",
    EVENT_VERDICT: "verdict",
    EVENT_STEP: "step",
}
VERDICT_WORDS: Final = {0: "", POLICY_ALLOW: "allow", POLICY_DENY: "deny", POLICY_AUDIT: "audit"}
STATE_WORDS: Final = {FLOW_OPENING: "opening", FLOW_OPEN: "open", FLOW_CLOSING: "closing"}
SOURCE_FILES: Final = {SOURCE_POD: "pod", SOURCE_DEVICE: "device", SOURCE_XDP: "xdp"}
STEP_WORDS: Final = {
    STEP_SOURCE: "source known",
    STEP_FLOW_FOUND: "flow found",
    STEP_FLOW_NEW: "new flow",
    STEP_DESTINATION: "destination",
    STEP_POLICY_EGRESS: "egress policy",
    STEP_POLICY_INGRESS: "ingress policy",
    STEP_ROUTE: "route",
    STEP_MASQUERADE: "masquerade",
    STEP_FORWARD: "forward",
    STEP_ANSWER: "answer of a known flow",
}
IDENTITY_WORDS: Final = {
    IDENTITY_UNKNOWN: "unknown",
    IDENTITY_HOST: "host",
    IDENTITY_WORLD: "world",
    IDENTITY_REMOTE_NODE: "remote-node",
    IDENTITY_UNMANAGED: "unmanaged",
}
