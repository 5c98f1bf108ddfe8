"""What an administrator is shown, as frozen facts; no I/O.

Addresses, ranges and MACs are canonical text, empty if not known. Pods are "namespace/name". Words (kinds, states,
actions, reasons) are those of events/words.py. Ages are seconds, counts are since the start unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Feature:
    """:ivar detail: which way it is done, or why it is not."""

    name: str
    in_force: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Attachment:
    """:ivar by: tcx, clsact, xdp-native, xdp-generic, cgroup."""

    hook: str
    device: str
    by: str


@dataclass(frozen=True, slots=True)
class ProgramFacts:
    """:ivar verified_instructions: what the verifier looked at; the kernel allows a million."""

    name: str
    type: str
    verified_instructions: int
    attachments: Sequence[Attachment] = ()


@dataclass(frozen=True, slots=True)
class Collected:
    """The last run of the garbage collector. `last_at_s`: since 1970; None: has not run yet."""

    last_at_s: float | None = None
    interval_s: float = 0.0
    took_s: float = 0.0
    seen: int = 0
    deleted: int = 0


@dataclass(frozen=True, slots=True)
class EventTotals:
    """See events.hub.HubCounts."""

    read: int = 0
    lost: int = 0
    suppressed: int = 0
    subscribers: int = 0
    lost_by_subscribers: int = 0


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that is not as it should be."""

    subject: str
    message: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """:ivar mode: "ebpf" or "kernel". `routing`: native, tunnel, direct."""

    mode: str
    kernel: str
    routing: str
    ipv4: bool = True
    ipv6: bool = False
    masquerade4: bool = False
    masquerade6: bool = False
    generation: int = 0
    features: Sequence[Feature] = ()
    programs: Sequence[ProgramFacts] = ()
    devices: Sequence[str] = ()
    endpoints: int = 0
    collected: Collected = Collected()
    events: EventTotals = EventTotals()
    troubles: Sequence[Trouble] = ()


@dataclass(frozen=True, slots=True)
class MapFacts:
    """:ivar entries: None: not counted, such as of a ring buffer."""

    name: str
    type: str
    entries: int | None
    max_entries: int
    memory_bytes: int

    @property
    def pressure(self) -> float:
        return self.entries / self.max_entries if self.entries and self.max_entries else 0.0


@dataclass(frozen=True, slots=True)
class EndpointFacts:
    """A pod of this node as the programs know it.

    :ivar flags: ingress-policy, egress-policy, ingress-audit, egress-audit, any-source.
    :ivar flows: connections that the table holds now; packets and bytes are theirs.
    """

    number: int
    pod: str
    addresses: Sequence[str]
    ifindex: int
    device: str
    mac: str
    identity: int
    flags: Sequence[str] = ()
    mtu: int = 0
    flows: int = 0
    packets_out: int = 0
    bytes_out: int = 0
    packets_in: int = 0
    bytes_in: int = 0


@dataclass(frozen=True, slots=True)
class End:
    """One end of a connection. `port` of ICMP: the id of an echo, at the end that asks."""

    address: str
    port: int = 0
    pod: str = ""
    identity: int = 0


@dataclass(frozen=True, slots=True)
class Way:
    """One direction of a connection. `denied`: the reason's word, or empty."""

    packets: int = 0
    bytes: int = 0
    action: str = "none"
    device: str = ""
    denied: str = ""


@dataclass(frozen=True, slots=True)
class FlowFacts:
    """A tracked connection; `source` began it.

    :ivar protocol: name, or number in figures.
    :ivar state: opening, open, closing.
    :ivar expires_s: below 0: it has expired, and is about to be collected.
    :ivar translated: what the source looks like from outside; None: as it is.
    """

    protocol: str
    source: End
    destination: End
    state: str
    age_s: float
    expires_s: float
    forth: Way = Way()
    back: Way = Way()
    translated: End | None = None


@dataclass(frozen=True, slots=True)
class TranslationFacts:
    """An entry of masquerade: `source` leaves as `translated`."""

    protocol: str
    source: End
    destination: End
    translated: End
    age_s: float
    expires_s: float


@dataclass(frozen=True, slots=True)
class HookCount:
    """Packets that ended one way at one hook. `reason` 0: they passed. Numbers as in bpf/include/types.h."""

    hook: int
    reason: int
    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class AddressFacts:
    """:ivar address: an address, or a range with its length. `kind`: pod, remote-pod, host, remote-node, range."""

    address: str
    kind: str
    identity: int
    pod: str = ""
    node: str = ""
    flags: Sequence[str] = ()
    device: str = ""


@dataclass(frozen=True, slots=True)
class PolicyFacts:
    """One entry of a pod's policy.

    :ivar direction: ingress, egress.
    :ivar identity: of the peer; 0: any.
    :ivar protocol: empty: any.
    :ivar packets: first packets of connections that it decided.
    """

    pod: str
    endpoint: int
    direction: str
    identity: int
    protocol: str
    first_port: int
    last_port: int
    verdict: str
    rule: int
    packets: int = 0


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """:ivar kind: external, overlay. `masquerade4`, `masquerade6`: empty: packets keep their source."""

    name: str
    ifindex: int
    kind: str
    mac: str
    mtu: int
    masquerade4: str = ""
    masquerade6: str = ""
    attachments: Sequence[Attachment] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a decision: its name, and what was found, as a sentence without its full stop."""

    name: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Traced:
    """What would become of a packet.

    :ivar verdict: forwarded, dropped.
    :ivar reason: word of the drop, or empty.
    """

    source: End
    destination: End
    protocol: str
    steps: Sequence[Step]
    verdict: str
    sentence: str
    reason: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which connections or translations. Values of a field are alternatives, fields must all agree; empty: all.

    :ivar addresses: addresses or ranges, of either end.
    :ivar protocols: names or numbers.
    """

    pods: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    protocols: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DeniedRange:
    """:ivar number: as drops name it, in `rule`. `packets`: dropped since it was added."""

    range: str
    number: int
    packets: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Prefilter:
    """:ivar in_force: whether the program is attached anywhere."""

    in_force: bool
    ranges: Sequence[DeniedRange] = ()
