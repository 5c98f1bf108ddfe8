"""Dry runs without a kernel: the packet, what was told as sentences, and who may be asked about."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether

from datapath import layout
from datapath.errors import InvalidFilter
from datapath.events.testing import FakeNames, FakeRecords, event_record
from datapath.loader.programs import SkbContext, TestRun
from datapath.trace.dryrun import DryRun, Sender, destination_of
from datapath.trace.packet import SOURCE_PORT, Conversation, build, protocol_for
from datapath.view.model import Traced

POD, HOST = bytes.fromhex("0e580a000105"), bytes.fromhex("0e504c4d0001")
WEB = Sender("shop/web", 7, POD, HOST, ("10.0.1.5", "fd00::5"))
NAMES = FakeNames(
    {"10.0.1.5": "shop/web", "10.0.1.6": "shop/db", "10.0.2.9": "shop/far"},
    {7: ("plmweb", "shop/web"), 8: ("plmdb", "")},
)  # fmt: skip


@pytest.mark.parametrize("protocol", ["tcp", "udp", "icmp"])
@pytest.mark.parametrize(("source", "destination"), [("10.0.1.5", "10.0.1.6"), ("fd00::5", "fd00::6")])
def test_packets_are_right(source: str, destination: str, protocol: str) -> None:
    data = build(Conversation(POD, HOST, source, destination, protocol, 0 if protocol == "icmp" else 443))
    packet = Ether(data)
    assert (packet.src, packet.dst) == (POD.hex(":"), HOST.hex(":"))
    network = packet[IPv6 if ":" in source else IP]
    assert (network.src, network.dst) == (source, destination)
    layer = {"tcp": TCP, "udp": UDP, "icmp": ICMPv6EchoRequest if ":" in source else ICMP}[protocol]
    assert layer in packet
    if protocol != "icmp":
        assert (packet[layer].sport, packet[layer].dport) == (SOURCE_PORT, 443)
    if protocol == "tcp":
        assert packet[TCP].flags == "S"
    again = Ether(data)
    for one in (IP, TCP, UDP, ICMP, ICMPv6EchoRequest):
        if one in again:
            del again[one].fields["cksum" if one is ICMPv6EchoRequest else "chksum"]
    assert bytes(again) == data, "scapy computes the same checksums"


@pytest.mark.parametrize(
    ("word", "port", "protocol"), [("", 443, "tcp"), ("", 0, "icmp"), ("UDP", 53, "udp"), ("icmp", 0, "icmp")]
)
def test_protocols(word: str, port: int, protocol: str) -> None:
    assert protocol_for(word, port) == protocol


@pytest.mark.parametrize(
    ("word", "port", "field"),
    [("sctp", 80, "protocol"), ("tcp", 0, "port"), ("icmp", 80, "port"), ("tcp", 65536, "port")],
)
def test_protocols_that_cannot_be(word: str, port: int, field: str) -> None:
    with pytest.raises(InvalidFilter) as caught:
        protocol_for(word, port)
    assert caught.value.field == field
    assert caught.value.remedy


class Program:
    """Tells what it is given when it is run."""

    def __init__(self, records: FakeRecords, told: Sequence[bytes]) -> None:
        self.packets: list[bytes] = []
        self.contexts: list[SkbContext] = []
        self._records, self._told = records, told

    def test_run(self, packet: bytes = b"", *, context: bytes = b"") -> TestRun:
        self.packets.append(packet)
        self.contexts.append(SkbContext.unpack(context))
        self._records.put(*self._told)
        return TestRun(7, packet, context, 0)


def step(number: int, **fields: object) -> bytes:
    common: dict[str, object] = {
        "type": layout.EVENT_STEP, "reason": number, "source": "10.0.1.5", "destination": "10.0.1.6", "protocol": "tcp",
        "ifindex": 7, "source_identity": 300, "destination_identity": 301,
    }  # fmt: skip
    return event_record(**{**common, **fields})  # type: ignore[arg-type]


TO_DB = [
    step(layout.STEP_SOURCE),
    step(layout.STEP_DESTINATION, action=layout.TARGET_POD),
    step(layout.STEP_FLOW_NEW),
    step(layout.STEP_POLICY_EGRESS, verdict=layout.POLICY_ALLOW, rule=7),
    step(layout.STEP_ROUTE, action=layout.ACTION_POD, out_ifindex=8),
    step(layout.STEP_FORWARD, action=layout.ACTION_POD, out_ifindex=8),
]


def run(told: Sequence[bytes], destination: str = "10.0.1.6", port: int = 443) -> tuple[Program, Traced]:
    records = FakeRecords()
    records.put(step(layout.STEP_SOURCE))  # left over from a run that was cut off
    program = Program(records, told)
    return program, DryRun(program, records, NAMES).run(WEB, destination, port, "")


def test_a_packet_to_a_pod_of_the_node() -> None:
    program, traced = run(TO_DB)
    assert [one.sentence for one in traced.steps] == [
        "source 10.0.1.5 is pod shop/web (identity 300)",
        "destination 10.0.1.6 is pod shop/db of this node (identity 301)",
        "no connection between these ends and ports is known: it would be new",
        "egress policy: allowed by rule 7",
        "to the pod's own device plmdb, past the node's stack",
        "delivered to pod shop/db by plmdb",
    ]
    assert (traced.verdict, traced.sentence) == ("forwarded", "delivered to pod shop/db by plmdb")
    assert (traced.source.identity, traced.destination.identity, traced.destination.pod) == (300, 301, "shop/db")
    assert program.contexts[0].ifindex == 7
    assert Ether(program.packets[0])[TCP].dport == 443


def test_a_drop_is_told_with_reason_rule_line_and_remedy() -> None:
    drop = event_record(type=layout.EVENT_DROP, reason=layout.DROP_POLICY_EGRESS, rule=8, line=120, file=1)
    _, traced = run([*TO_DB[:3], step(layout.STEP_POLICY_EGRESS, verdict=layout.POLICY_DENY, rule=8), drop])
    assert (traced.verdict, traced.reason) == ("dropped", "policy-egress")
    assert traced.sentence == "policy does not let the sender talk to this destination, by rule 8 (pod.bpf.c:120)"
    assert traced.remedy


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        (step(layout.STEP_FLOW_FOUND), "a connection between these ends and ports is known: it is part of that"),
        (step(layout.STEP_ANSWER), "it answers a connection that the other end began: no policy is asked"),
        (step(layout.STEP_POLICY_INGRESS, verdict=2), "ingress policy: denied since no rule matches"),
        (step(layout.STEP_POLICY_INGRESS, verdict=3, rule=4),
         "ingress policy: denied, but only told of (audit) by rule 4"),
        (step(layout.STEP_MASQUERADE, source="203.0.113.5", source_port=1024), "it would leave as 203.0.113.5:1024"),
        (step(layout.STEP_MASQUERADE, source="2001:db8::5", source_port=1), "it would leave as [2001:db8::5]:1"),
        (step(layout.STEP_ROUTE, action=layout.ACTION_DEVICE, out_ifindex=9),
         "out by device 9; the next hop's MAC is known"),
        (step(layout.STEP_DESTINATION, destination="10.0.2.9", action=layout.TARGET_REMOTE_POD),
         "destination 10.0.2.9 is pod shop/far of another node (identity 301)"),
        (step(layout.STEP_DESTINATION, destination="198.51.100.7", action=0, destination_identity=2),
         "destination 198.51.100.7 is of nobody that is known: the world (identity 2, world)"),
        (step(77), "step 77, which this release does not know"),
    ],
)  # fmt: skip
def test_sentences(record: bytes, sentence: str) -> None:
    _, traced = run([record])
    assert sentence in [one.sentence for one in traced.steps]


def test_a_program_that_says_nothing() -> None:
    _, traced = run([])
    assert (traced.verdict, traced.reason) == ("dropped", "untold")
    assert traced.remedy


KNOWN = {"shop/db": ("10.0.1.6",), "shop/six": ("fd00::9",), "shop/both": ("fd00::8", "10.0.1.8")}


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.1.6", "10.0.1.6"),
        ("FD00:0::6", "fd00::6"),
        ("shop/db", "10.0.1.6"),
        ("shop/six", "fd00::9"),
        ("shop/both", "10.0.1.8"),
    ],
)
def test_a_pod_may_be_meant_by_its_name(text: str, address: str) -> None:
    assert destination_of(text, lambda pod: KNOWN.get(pod, ()), WEB) == address


@pytest.mark.parametrize("text", ["db", "shop/nowhere", "10.0.1", ""])
def test_destinations_that_nobody_knows(text: str) -> None:
    with pytest.raises(InvalidFilter) as caught:
        destination_of(text, lambda pod: KNOWN.get(pod, ()), WEB)
    assert caught.value.field == "destination"
    assert caught.value.remedy


def test_a_pod_of_the_other_family_alone() -> None:
    old = Sender("shop/web", 7, POD, HOST, ("10.0.1.5",))
    with pytest.raises(InvalidFilter, match="no address of the sender's family"):
        destination_of("shop/six", lambda pod: KNOWN.get(pod, ()), old)


def test_a_family_that_the_pod_lacks() -> None:
    records = FakeRecords()
    dry = DryRun(Program(records, TO_DB), records, NAMES)
    with pytest.raises(InvalidFilter) as caught:
        dry.run(Sender("shop/web", 7, POD, HOST, ("10.0.1.5",)), "fd00::6", 80, "")
    assert "the pod has 10.0.1.5" in caught.value.remedy
