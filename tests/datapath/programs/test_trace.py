"""A dry run says what the programs do with the packet that is then sent, and leaves no trace of itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from datapath import layout
from datapath.events.testing import FakeNames
from datapath.layout import mac_bytes
from datapath.policy.model import Direction, EndpointPolicy, Enforcement, Rule, Verdict
from datapath.trace.dryrun import DryRun, Sender
from datapath.view.model import Traced
from tests.datapath.compiled import build_programs
from tests.datapath.programs.bed import (
    BLACKHOLE4,
    CLUSTER4,
    DIRECT4,
    HOST_MAC,
    LOST4,
    NODE4,
    OTHER_NODE4,
    REMOTE4,
    SERVICE4,
    SILENT6,
    TUNNEL6,
    WORLD4,
    WORLD6,
    A,
    B,
    ProgramBed,
)
from tests.datapath.programs.packets import ip, tcp

pytestmark = pytest.mark.root

NAMES = {A.address4: "shop/a", A.address6: "shop/a", B.address4: "shop/b", B.address6: "shop/b", TUNNEL6: "shop/far"}


class Tracer:
    def __init__(self, bed: ProgramBed) -> None:
        self.bed = bed
        devices = {index: (name, "") for name, index in bed.ifindex.items()}
        devices |= {bed.ifindex[f"plm{name}"]: (f"plm{name}", f"shop/{name}") for name in ("a", "b")}
        self.dry = DryRun.opened(bed.folder, bed.config, FakeNames(NAMES, devices), folder=build_programs())
        addresses = (A.address4, A.address6)
        self.sender = Sender("shop/a", bed.ifindex["plma"], mac_bytes(A.mac), mac_bytes(HOST_MAC), addresses)

    def __call__(self, destination: str, port: int = 80, protocol: str = "") -> Traced:
        return self.dry.run(self.sender, destination, port, protocol)


@pytest.fixture(scope="module")
def tracer(loaded: ProgramBed) -> Iterator[Tracer]:
    one = Tracer(loaded)
    yield one
    one.dry.close()


def names_of(traced: Traced) -> list[str]:
    return [step.name for step in traced.steps]


def said(traced: Traced, name: str) -> str:
    return next(step.sentence for step in traced.steps if step.name == name)


@pytest.mark.parametrize(
    ("destination", "port", "protocol", "end", "route"),
    [
        (B.address4, 80, "tcp", "delivered to pod shop/b by plmb", "past the node's stack"),
        (B.address6, 53, "udp", "delivered to pod shop/b by plmb", "past the node's stack"),
        (B.address4, 0, "icmp", "delivered to pod shop/b by plmb", "past the node's stack"),
        (B.address6, 0, "icmp", "delivered to pod shop/b by plmb", "past the node's stack"),
        (WORLD4, 443, "tcp", "sent out by ens0", "out by ens0"),
        (WORLD6, 443, "tcp", "sent out by ens0", "out by ens0"),
        (SILENT6, 443, "tcp", "sent out by ens0", "the kernel finds the next hop's MAC"),
        (REMOTE4, 80, "tcp", "sent out by ens0", "out by ens0"),
        (TUNNEL6, 80, "tcp", "sent to the node of pod shop/far by plm_vxlan", "through the tunnel plm_vxlan"),
        (DIRECT4, 80, "tcp", "sent out by ens0", "out by ens0"),
        (NODE4, 80, "tcp", "handed to the node's own network stack", "by the node's own network stack"),
        (SERVICE4, 80, "tcp", "handed to the node's own network stack", "by the node's own network stack"),
        (OTHER_NODE4, 80, "tcp", "sent out by ens0", "out by ens0"),
        (CLUSTER4, 80, "tcp", "sent out by ens0", "out by ens0"),
    ],
)
def test_what_is_forwarded(
    bed: ProgramBed, tracer: Tracer, destination: str, port: int, protocol: str, end: str, route: str
) -> None:
    traced = tracer(destination, port, protocol)
    assert (traced.verdict, traced.reason) == ("forwarded", "")
    assert traced.sentence.startswith(end)
    assert route in said(traced, "route")
    assert names_of(traced)[:4] == ["source", "destination", "flow", "policy"]
    assert said(traced, "source").endswith(f"is pod shop/a (identity {A.identity})")
    assert said(traced, "policy") == "no policy is asked: neither end enforces one here"


@pytest.mark.parametrize(
    ("destination", "reason"),
    [(BLACKHOLE4, "blackhole"), ("198.18.3.9", "nat-no-address"), (LOST4, "no-tunnel")],
)
def test_what_is_dropped(bed: ProgramBed, tracer: Tracer, destination: str, reason: str) -> None:
    traced = tracer(destination)
    assert (traced.verdict, traced.reason) == ("dropped", reason)
    assert traced.remedy
    assert ".bpf.c:" in traced.sentence


def test_masquerade_is_told_with_its_address(bed: ProgramBed, tracer: Tracer) -> None:
    assert said(tracer(WORLD4, 443), "masquerade").startswith(f"it would leave as {NODE4}:4")
    assert "masquerade" not in names_of(tracer(CLUSTER4, 80))


def rule(number: int, direction: Direction, verdict: Verdict, identity: int, port: int) -> Rule:
    return Rule(number, direction, verdict, identity, 6, port, port)


def test_policy_is_told_with_its_rule(bed: ProgramBed, tracer: Tracer) -> None:
    allow = rule(7, Direction.EGRESS, Verdict.ALLOW, B.identity, 80)
    bed.set_policy(A, EndpointPolicy(frozenset({allow}), Enforcement(egress=True)))
    assert said(tracer(B.address4, 80), "policy") == "egress policy: allowed by rule 7"
    traced = tracer(B.address4, 81)
    assert (traced.verdict, traced.reason) == ("dropped", "policy-egress")
    assert said(traced, "policy") == "egress policy: denied since no rule matches"


def test_policy_of_the_receiver(bed: ProgramBed, tracer: Tracer) -> None:
    deny = rule(9, Direction.INGRESS, Verdict.DENY, A.identity, 80)
    bed.set_policy(B, EndpointPolicy(frozenset({deny}), Enforcement(ingress=True)))
    traced = tracer(B.address4, 80)
    assert (traced.verdict, traced.reason) == ("dropped", "policy-ingress")
    assert said(traced, "policy") == "ingress policy: denied by rule 9"
    assert "by rule 9" in traced.sentence


def test_a_dry_run_changes_nothing(bed: ProgramBed, tracer: Tracer) -> None:
    before = {name: list(one.items()) for name, one in bed.maps.items() if name in ("flows", "nat", "counters")}
    for destination in (B.address4, WORLD4, WORLD6, BLACKHOLE4, LOST4):
        tracer(destination)
    assert {name: list(bed.maps[name].items()) for name in before} == before
    assert bed.ring.read() == [], "the steps went to a ring of their own"


def test_what_it_says_is_what_happens(bed: ProgramBed, tracer: Tracer) -> None:
    for destination, action in ((B.address4, layout.ACTION_POD), (WORLD4, layout.ACTION_DEVICE)):
        assert tracer(destination).verdict == "forwarded"
        assert bed.from_pod(A, ip(A.address4, destination) / tcp(4000, 80, "S")).action == action


def test_a_connection_that_is_there_is_seen(bed: ProgramBed, tracer: Tracer) -> None:
    from datapath.trace.packet import SOURCE_PORT

    bed.from_pod(A, ip(A.address4, B.address4) / tcp(SOURCE_PORT, 80, "S"))
    assert said(tracer(B.address4, 80), "flow").startswith("a connection between these ends and ports is known")
