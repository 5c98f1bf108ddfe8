"""Messages of DatapathService as plain data with stable keys: what --json prints, and what tables are made of."""

from __future__ import annotations

from typing import Any

from datapath.layout import IDENTITY_WORDS
from services.api.node.v1 import datapath_pb2 as wire
from services.cli.views import View, finding_view, moment


def plain(message: Any, *names: str) -> View:
    """Scalar fields of a message under their own names; lists of text as lists."""
    found = {name: getattr(message, name) for name in names}
    return {
        name: value if isinstance(value, str | int | float | bool) else list(value) for name, value in found.items()
    }


def status_view(node: str, one: wire.GetDatapathStatusResponse) -> View:
    collected = one.garbage_collection
    return {
        "node": node,
        **plain(one, "mode", "kernel", "routing", "ipv4", "ipv6", "masquerade4", "masquerade6", "generation"),
        **plain(one, "devices", "endpoints"),
        "features": [plain(it, "name", "in_force", "detail") for it in one.features],
        "programs": [
            {
                **plain(it, "name", "type", "verified_instructions"),
                "attachments": [plain(at, "hook", "device", "by") for at in it.attachments],
            }
            for it in one.programs
        ],
        "garbage_collection": {
            "last_at": moment(collected, "last_at"),
            **plain(collected, "interval_s", "took_s", "seen", "deleted"),
        },
        "events": plain(one.events, "read", "lost", "suppressed", "subscribers", "lost_by_subscribers"),
        "problems": [finding_view(node, it.level, it.subject, it.message, it.remedy) for it in one.problems],
    }


def map_view(one: wire.MapUse) -> View:
    entries = one.entries if one.HasField("entries") else None
    return {**plain(one, "name", "type", "max_entries", "memory_bytes", "pressure"), "entries": entries}


def endpoint_view(one: wire.DatapathEndpoint) -> View:
    return plain(
        one,
        *("number", "pod", "addresses", "device", "ifindex", "mac", "identity", "flags", "mtu"),
        *("flows", "packets_out", "bytes_out", "packets_in", "bytes_in"),
    )


def end_view(one: wire.FlowEnd) -> View:
    return plain(one, "address", "port", "pod", "identity")


def flow_view(one: wire.Flow) -> View:
    ways = ("packets", "bytes", "action", "device", "denied")
    return {
        "protocol": one.protocol,
        "source": end_view(one.source),
        "destination": end_view(one.destination),
        **plain(one, "state", "age_s", "expires_s"),
        "forth": plain(one.forth, *ways),
        "back": plain(one.back, *ways),
        **plain(one, "translated_address", "translated_port"),
    }


def translation_view(one: wire.Translation) -> View:
    return {
        "protocol": one.protocol,
        "source": end_view(one.source),
        "destination": end_view(one.destination),
        **plain(one, "translated_address", "translated_port", "age_s", "expires_s"),
    }


def drops_view(one: wire.GetDropsResponse) -> View:
    drops = [
        plain(it, "hook", "direction", "reason", "sentence", "remedy", "packets", "bytes")
        for it in sorted(one.drops, key=lambda it: -it.packets)
    ]
    return {"drops": drops, "passed": [plain(it, "hook", "direction", "packets", "bytes") for it in one.passed]}


def address_view(one: wire.AddressEntry) -> View:
    return plain(one, "address", "kind", "identity", "pod", "node", "flags", "device")


def policy_view(one: wire.PolicyEntry) -> View:
    return plain(
        one,
        *("pod", "endpoint", "direction", "identity", "protocol", "first_port", "last_port"),
        *("verdict", "rule", "packets"),
    )


def device_view(one: wire.DatapathDevice) -> View:
    return {
        **plain(one, "name", "ifindex", "kind", "mac", "mtu", "masquerade4", "masquerade6"),
        "attachments": [plain(at, "hook", "device", "by") for at in one.attachments],
    }


def trace_view(one: wire.TraceResponse) -> View:
    return {
        "source": end_view(one.source),
        "destination": end_view(one.destination),
        "protocol": one.protocol,
        "steps": [plain(step, "name", "sentence") for step in one.steps],
        **plain(one, "verdict", "reason", "sentence", "remedy"),
    }


def event_view(one: wire.DatapathEvent) -> View:
    return {
        "time": moment(one, "time"),
        **plain(one, "type", "hook", "direction", "verdict", "reason", "sentence", "remedy", "protocol"),
        "source": end_view(one.source),
        "destination": end_view(one.destination),
        **plain(one, "device", "device_pod", "out_device", "action", "rule", "bytes", "source_line"),
        **plain(one, "count", "suppressed", "various"),
    }


def end_text(end: View) -> str:
    """ "shop/web 10.0.1.5:40000", for people."""
    address = end["address"] or "?"
    if end["port"]:
        address = f"[{address}]:{end['port']}" if ":" in address else f"{address}:{end['port']}"
    who = end["pod"] or (IDENTITY_WORDS.get(end["identity"], "") if end["identity"] else "")
    return f"{who} {address}".lstrip()


def line_of(event: View) -> str:
    """An event in one line, for people: when, where, who to whom, what of it."""
    ends = f"{end_text(event['source'])} > {end_text(event['destination'])}"
    moment_text = str(event["time"] or "")[11:23].rstrip("Z")
    parts = [f"{moment_text:12}", f"{event['verdict']:9}", f"{event['hook']:12}", ends, event["protocol"], _what(event)]
    if event["device_pod"] and event["device_pod"] not in (event["source"]["pod"], event["destination"]["pod"]):
        parts.append(f"by {event['device_pod']}")
    if event["various"]:
        parts.append("and various others")
    if event["count"] > 1:
        parts.append(f"x{event['count']}")
    if event["suppressed"]:
        parts.append(f"({event['suppressed']} more not told)")
    return " ".join(part for part in parts if part)


def _what(event: View) -> str:
    match event["type"]:
        case "drop":
            return f"{event['bytes']} B: {event['reason']}: {event['sentence']}"
        case "verdict":
            return f"by rule {event['rule']}" if event["rule"] else "by no rule"
        case "flow-new" | "flow-closed":
            return str(event["type"])
        case _:
            out = f" {event['out_device']}" if event["out_device"] else ""
            return f"{event['bytes']} B to {event['action']}{out}"
