"""Connections of world.py's pods, opened packet by packet through the programs, as established ones are."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from datapath import layout
from datapath.layout import NatKey, address_bytes
from datapath.loader.programs import SkbContext
from datapath.model import HOST_MAC
from tests.bench.packet.node import Node
from tests.bench.packet.plan import SYN, SYN_ACK, End, Plan
from tests.bench.packet.runs import REDIRECT, Runs
from tests.bench.packet.world import (
    NODE,
    NODE_MAC,
    OUTSIDE_MAC,
    REMOTE_POD,
    A,
    B,
    World,
)  # fmt: skip

PORT: Final = 8080  # allowed by node.py's rules, as are the hundred that follow
DENIED_PORT: Final = 9999
FIRST: Final = 1024


class Flows:
    """Call within the node's namespace."""

    def __init__(self, world: World, node: Node, runs: Runs) -> None:
        self._node, self._runs = node, runs
        self.from_pod = node.programs["from_pod"].fd
        self.a, self.b, self.out = (world.ifindex("node", device) for device in (A.device, B.device, "ens0"))

    def between_pods(self, flows: int, *, ipv6: bool = False, opened: bool = True) -> Plan:
        """From pod a to pod b."""
        a, b = (A.address6, B.address6) if ipv6 else (A.address, B.address)
        plan = Plan(End(A.mac, a, FIRST), End(HOST_MAC, b, PORT), flows=flows)
        if opened:
            back = Plan(End(B.mac, b, PORT), End(HOST_MAC, a, FIRST), flows=flows, destination_varies=True)
            self._through(self.from_pod, replace(plan, flags=SYN), self.a)
            self._through(self.from_pod, replace(back, flags=SYN_ACK), self.b)
            self._through(self.from_pod, plan, self.a)
        return plan

    def outwards(self, destination: str, flows: int, *, opened: bool = True) -> Plan:
        """From pod a to the outside, whose answers come in by the node's device."""
        plan = Plan(End(A.mac, A.address, FIRST), End(HOST_MAC, destination, PORT), flows=flows)
        if not opened:
            return plan
        self._through(self.from_pod, replace(plan, flags=SYN), self.a)
        if destination == REMOTE_POD:
            back = Plan(
                End(OUTSIDE_MAC, destination, PORT), End(NODE_MAC, A.address, FIRST), flags=SYN_ACK, flows=flows,
                destination_varies=True,
            )  # fmt: skip
            self._through(self._node.programs["from_device"].fd, back, self.out)
        else:
            self._answer_masqueraded(destination)
        self._through(self.from_pod, plan, self.a)
        return plan

    def denied(self, flows: int) -> Plan:
        return Plan(End(A.mac, A.address, FIRST), End(HOST_MAC, B.address, DENIED_PORT), flows=flows)

    def _answer_masqueraded(self, destination: str) -> None:
        """Each to the port that its flow was given."""
        context = SkbContext(ifindex=self.out, ingress_ifindex=self.out).pack()
        program = self._node.programs["from_device"]
        for port in self._given_ports(destination):
            plan = Plan(End(OUTSIDE_MAC, destination, PORT), End(NODE_MAC, NODE, port), flags=SYN_ACK)
            code = program.test_run(plan.packet(), context=context).retval
            if code != REDIRECT:
                raise RuntimeError(f"the answer to port {port} ended with verdict {code}")

    def _given_ports(self, destination: str) -> list[int]:
        peer = address_bytes(destination)
        keys = (NatKey.unpack(key) for key, _ in self._node.maps["nat"].items())
        return [key.destination_port for key in keys if key.direction == layout.NAT_IN and key.source == peer]

    def _through(self, program: int, plan: Plan, ifindex: int) -> None:
        codes = self._runs.run(program, plan, ifindex, plan.flows)[1]
        if set(codes) != {REDIRECT}:
            raise RuntimeError(f"opening {plan.flows} flows ended with verdicts {codes}")
