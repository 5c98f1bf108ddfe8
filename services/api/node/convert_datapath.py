"""Messages of DatapathService <-> facts of the datapath."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.timestamp_pb2 import Timestamp

from datapath.events import words
from datapath.events.aggregate import Line
from datapath.events.filters import Filter, Names
from datapath.layout import EVENT_DROP, address_text
from datapath.view import model
from datapath.view.select import canonical
from services.api.node.v1 import datapath_pb2 as wire
from services.api.node.v1 import node_pb2


def status(one: model.Status) -> wire.GetDatapathStatusResponse:
    collected = one.collected
    answer = wire.GetDatapathStatusResponse(
        mode=one.mode,
        kernel=one.kernel,
        routing=one.routing,
        ipv4=one.ipv4,
        ipv6=one.ipv6,
        masquerade4=one.masquerade4,
        masquerade6=one.masquerade6,
        generation=one.generation,
        features=[wire.DatapathFeature(name=it.name, in_force=it.in_force, detail=it.detail) for it in one.features],
        programs=[
            wire.Program(
                name=it.name,
                type=it.type,
                verified_instructions=it.verified_instructions,
                attachments=_attachments(it.attachments),
            )
            for it in one.programs
        ],
        devices=one.devices,
        endpoints=one.endpoints,
        garbage_collection=wire.GarbageCollection(
            interval_s=collected.interval_s,
            took_s=collected.took_s,
            seen=collected.seen,
            deleted=collected.deleted,
        ),
        events=wire.EventCounts(
            read=one.events.read,
            lost=one.events.lost,
            suppressed=one.events.suppressed,
            subscribers=one.events.subscribers,
            lost_by_subscribers=one.events.lost_by_subscribers,
        ),
        problems=[
            node_pb2.Finding(level="problem", subject=it.subject, message=it.message, remedy=it.remedy)
            for it in one.troubles
        ],
    )
    if collected.last_at_s is not None:
        answer.garbage_collection.last_at.FromNanoseconds(int(collected.last_at_s * 1e9))
    return answer


def map_use(one: model.MapFacts) -> wire.MapUse:
    return wire.MapUse(
        name=one.name,
        type=one.type,
        entries=one.entries,
        max_entries=one.max_entries,
        memory_bytes=one.memory_bytes,
        pressure=one.pressure,
    )


def endpoint(one: model.EndpointFacts) -> wire.DatapathEndpoint:
    return wire.DatapathEndpoint(
        number=one.number,
        pod=one.pod,
        addresses=one.addresses,
        ifindex=one.ifindex,
        device=one.device,
        mac=one.mac,
        identity=one.identity,
        flags=one.flags,
        mtu=one.mtu,
        flows=one.flows,
        packets_out=one.packets_out,
        bytes_out=one.bytes_out,
        packets_in=one.packets_in,
        bytes_in=one.bytes_in,
    )


def flow(one: model.FlowFacts) -> wire.Flow:
    message = wire.Flow(
        protocol=one.protocol,
        source=end(one.source),
        destination=end(one.destination),
        state=one.state,
        age_s=one.age_s,
        expires_s=one.expires_s,
        forth=_way(one.forth),
        back=_way(one.back),
    )
    if one.translated is not None:
        message.translated_address = one.translated.address
        message.translated_port = one.translated.port
    return message


def translation(one: model.TranslationFacts) -> wire.Translation:
    return wire.Translation(
        protocol=one.protocol,
        source=end(one.source),
        destination=end(one.destination),
        translated_address=one.translated.address,
        translated_port=one.translated.port,
        age_s=one.age_s,
        expires_s=one.expires_s,
    )


def drops(counts: Iterable[model.HookCount]) -> wire.GetDropsResponse:
    answer = wire.GetDropsResponse()
    for one in counts:
        hook, direction = words.hook_word(one.hook), words.DIRECTIONS.get(one.hook, "")
        if not one.reason:
            answer.passed.add(hook=hook, direction=direction, packets=one.packets, bytes=one.bytes)
        elif one.packets:
            reason = words.reason_of(one.reason)
            answer.drops.add(
                hook=hook,
                direction=direction,
                reason=reason.word,
                sentence=reason.sentence,
                remedy=reason.remedy,
                packets=one.packets,
                bytes=one.bytes,
            )
    return answer


def address_entry(one: model.AddressFacts) -> wire.AddressEntry:
    return wire.AddressEntry(
        address=one.address,
        kind=one.kind,
        identity=one.identity,
        pod=one.pod,
        node=one.node,
        flags=one.flags,
        device=one.device,
    )


def policy(one: model.PolicyFacts) -> wire.PolicyEntry:
    return wire.PolicyEntry(
        pod=one.pod,
        endpoint=one.endpoint,
        direction=one.direction,
        identity=one.identity,
        protocol=one.protocol,
        first_port=one.first_port,
        last_port=one.last_port,
        verdict=one.verdict,
        rule=one.rule,
        packets=one.packets,
    )


def device(one: model.DeviceFacts) -> wire.DatapathDevice:
    return wire.DatapathDevice(
        name=one.name,
        ifindex=one.ifindex,
        kind=one.kind,
        mac=one.mac,
        mtu=one.mtu,
        masquerade4=one.masquerade4,
        masquerade6=one.masquerade6,
        attachments=_attachments(one.attachments),
    )


def traced(one: model.Traced) -> wire.TraceResponse:
    return wire.TraceResponse(
        source=end(one.source),
        destination=end(one.destination),
        protocol=one.protocol,
        steps=[wire.TraceStep(name=step.name, sentence=step.sentence) for step in one.steps],
        verdict=one.verdict,
        reason=one.reason,
        sentence=one.sentence,
        remedy=one.remedy,
    )


def event(line: Line, names: Names, wall_offset_ns: int, *, packets: bool) -> wire.DatapathEvent:
    """:param wall_offset_ns: what makes CLOCK_MONOTONIC the time since 1970."""
    one = line.event
    seconds, nanoseconds = divmod(one.time_ns + wall_offset_ns, 10**9)
    message = wire.DatapathEvent(
        time=Timestamp(seconds=seconds, nanos=nanoseconds),
        type=words.type_word(one.type),
        hook=words.hook_word(one.hook),
        direction=words.DIRECTIONS.get(one.hook, ""),
        verdict=one.outcome,
        protocol=words.protocol_word(one.protocol),
        source=_event_end(names, one.source, one.source_port if one.has_ports else 0, one.source_identity),
        destination=_event_end(
            names, one.destination, one.destination_port if one.has_ports else 0, one.destination_identity
        ),
        device=names.device(one.ifindex),
        device_pod=names.pod_behind(one.ifindex),
        out_device=names.device(one.out_ifindex) if one.out_ifindex else "",
        action=words.action_word(one.action),
        rule=one.rule,
        bytes=line.octets,
        source_line=words.source_line(one.file, one.line),
        count=line.count,
        suppressed=line.suppressed,
        various=line.various,
    )
    if one.type == EVENT_DROP:
        reason = words.reason_of(one.reason)
        message.reason, message.sentence, message.remedy = reason.word, reason.sentence, reason.remedy
    if packets:
        message.packet = one.packet
    return message


def end(one: model.End) -> wire.FlowEnd:
    return wire.FlowEnd(address=one.address, port=one.port, pod=one.pod, identity=one.identity)


def selection(filter_: wire.FlowFilter) -> model.Selection:
    return model.Selection(
        pods=tuple(filter_.pods),
        addresses=tuple(filter_.addresses),
        ports=tuple(filter_.ports),
        protocols=tuple(filter_.protocols),
    )


def event_filter(filter_: wire.EventFilter) -> Filter:
    return Filter(
        pods=tuple(filter_.pods),
        addresses=tuple(filter_.addresses),
        ports=tuple(filter_.ports),
        protocols=tuple(filter_.protocols),
        verdicts=tuple(filter_.verdicts),
        types=tuple(filter_.types),
        hooks=tuple(filter_.hooks),
    )


def address(text: str) -> str:
    """Canonical; empty stays empty. Raises InvalidFilter."""
    return canonical(text, "address") if text else ""


def prefilter(one: model.Prefilter) -> wire.ListPrefilterResponse:
    return wire.ListPrefilterResponse(
        in_force=one.in_force,
        ranges=[
            wire.PrefilterRange(range=it.range, number=it.number, packets=it.packets, bytes=it.bytes)
            for it in one.ranges
        ],
    )


def _way(one: model.Way) -> wire.FlowWay:
    return wire.FlowWay(packets=one.packets, bytes=one.bytes, action=one.action, device=one.device, denied=one.denied)


def _attachments(found: Iterable[model.Attachment]) -> list[wire.Attachment]:
    return [wire.Attachment(hook=one.hook, device=one.device, by=one.by) for one in found]


def _event_end(names: Names, address: bytes, port: int, identity: int) -> wire.FlowEnd:
    return wire.FlowEnd(address=address_text(address), port=port, pod=names.pod_at(address), identity=identity)
