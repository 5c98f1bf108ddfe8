"""What the programs told of a dry run, as sentences and a verdict. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from datapath import layout
from datapath.events import words
from datapath.events.filters import Names
from datapath.events.model import Event
from datapath.layout import address_text
from datapath.view.model import End, Step, Traced

_POLICY: Final = (layout.STEP_POLICY_EGRESS, layout.STEP_POLICY_INGRESS)
_VERDICTS: Final = {
    layout.POLICY_ALLOW: "allowed",
    layout.POLICY_DENY: "denied",
    layout.POLICY_AUDIT: "denied, but only told of (audit)",
}


def told(events: Sequence[Event], names: Names, source: End, destination: End, protocol: str) -> Traced:
    """:param events: in their order, from one run. Those of another release's kinds are named by number."""
    steps = [_step(event, names) for event in events if event.type == layout.EVENT_STEP]
    kinds = {event.reason for event in events if event.type == layout.EVENT_STEP}
    if layout.STEP_DESTINATION in kinds and not kinds.intersection((*_POLICY, layout.STEP_ANSWER)):
        place = (
            next(number for number, step in enumerate(steps) if step.name == "flow") + 1 if _flow(kinds) else len(steps)
        )
        steps.insert(place, Step("policy", "no policy is asked: neither end enforces one here"))
    known = [event for event in events if event.type == layout.EVENT_STEP]
    if known:
        source = _with_identity(source, known[-1].source_identity)
        destination = _with_identity(destination, known[-1].destination_identity)
    drop = next((event for event in events if event.type == layout.EVENT_DROP), None)
    if drop is not None:
        reason = words.reason_of(drop.reason)
        where = words.source_line(drop.file, drop.line)
        by_rule = f", by rule {drop.rule}" if drop.rule else ""
        sentence = f"{reason.sentence}{by_rule}" + (f" ({where})" if where else "")
        return Traced(source, destination, protocol, steps, "dropped", sentence, reason.word, reason.remedy)
    end = next((event for event in known if event.reason == layout.STEP_FORWARD), None)
    if end is None:
        return Traced(
            source, destination, protocol, steps, "dropped", "the programs did not say what becomes of it", "untold",
            "see `plimsoll datapath status`: programs and daemon may be of two releases",
        )  # fmt: skip
    return Traced(source, destination, protocol, steps, "forwarded", _end(end, names))


def _flow(kinds: set[int]) -> bool:
    return bool(kinds & {layout.STEP_FLOW_FOUND, layout.STEP_FLOW_NEW})


def _with_identity(end: End, identity: int) -> End:
    return End(end.address, end.port, end.pod, identity)


def _step(event: Event, names: Names) -> Step:
    match event.reason:
        case layout.STEP_SOURCE:
            return Step("source", _source(event, names))
        case layout.STEP_DESTINATION:
            return Step("destination", _destination(event, names))
        case layout.STEP_FLOW_FOUND:
            return Step("flow", "a connection between these ends and ports is known: it is part of that")
        case layout.STEP_FLOW_NEW:
            return Step("flow", "no connection between these ends and ports is known: it would be new")
        case layout.STEP_ANSWER:
            return Step("flow", "it answers a connection that the other end began: no policy is asked")
        case layout.STEP_POLICY_EGRESS | layout.STEP_POLICY_INGRESS:
            return Step("policy", _policy(event))
        case layout.STEP_ROUTE:
            return Step("route", _route(event, names))
        case layout.STEP_MASQUERADE:
            end = f"{address_text(event.source)}:{event.source_port}"
            if ":" in address_text(event.source):
                end = f"[{address_text(event.source)}]:{event.source_port}"
            return Step("masquerade", f"it would leave as {end}")
        case layout.STEP_FORWARD:
            return Step("forward", _end(event, names))
        case number:
            return Step(f"step-{number}", f"step {number}, which this release does not know")


def _source(event: Event, names: Names) -> str:
    address, pod = address_text(event.source), names.pod_behind(event.ifindex) or names.pod_at(event.source)
    return f"source {address} is pod {pod or '?'} ({_identity(event.source_identity)})"


def _destination(event: Event, names: Names) -> str:
    address, pod = address_text(event.destination), names.pod_at(event.destination)
    who = {
        layout.TARGET_NONE: "of nobody that is known: the world",
        layout.TARGET_POD: f"pod {pod or '?'} of this node",
        layout.TARGET_REMOTE_POD: f"pod {pod or '?'} of another node",
        layout.TARGET_HOST: "this node itself",
        layout.TARGET_REMOTE_NODE: "another node",
        layout.TARGET_RANGE: "in a range that is known",
        layout.TARGET_STACK: "in a range that is left to the node's own network stack",
    }.get(event.action, f"a target of kind {event.action}")
    return f"destination {address} is {who} ({_identity(event.destination_identity)})"


def _policy(event: Event) -> str:
    direction = "egress" if event.reason == layout.STEP_POLICY_EGRESS else "ingress"
    verdict = _VERDICTS.get(event.verdict, f"verdict {event.verdict}")
    rule = (
        f"by rule {event.rule}"
        if event.rule
        else "since no rule matches"
        if event.verdict != layout.POLICY_ALLOW
        else ""
    )
    return f"{direction} policy: {verdict} {rule}".rstrip()


def _route(event: Event, names: Names) -> str:
    device = _device(event.out_ifindex, names)
    match event.action:
        case layout.ACTION_POD:
            return f"to the pod's own device {device}, past the node's stack"
        case layout.ACTION_DEVICE:
            return f"out by {device}; the next hop's MAC is known"
        case layout.ACTION_NEIGHBOUR:
            return f"out by {device}; the kernel finds the next hop's MAC"
        case layout.ACTION_TUNNEL:
            return f"through the tunnel {device} to the pod's node"
        case layout.ACTION_DIRECT:
            return f"out by {device}, straight to the pod's node"
        case layout.ACTION_STACK:
            return "by the node's own network stack"
        case _:
            return f"{words.action_word(event.action)} {device}".rstrip()


def _end(event: Event, names: Names) -> str:
    device, pod = _device(event.out_ifindex, names), names.pod_at(event.destination)
    match event.action:
        case layout.ACTION_POD:
            return f"delivered to pod {pod or '?'} by {device}"
        case layout.ACTION_TUNNEL | layout.ACTION_DIRECT:
            whose = f"pod {pod}" if pod else "the destination"
            return f"sent to the node of {whose} by {device}; that node asks the policy of its pods"
        case layout.ACTION_STACK:
            return "handed to the node's own network stack: its routes and netfilter rules decide from here on"
        case _:
            return f"sent out by {device}"


def _device(ifindex: int, names: Names) -> str:
    return (names.device(ifindex) or f"device {ifindex}") if ifindex else "no device"


def _identity(number: int) -> str:
    word = layout.IDENTITY_WORDS.get(number)
    return f"identity {number}, {word}" if word else f"identity {number}"
