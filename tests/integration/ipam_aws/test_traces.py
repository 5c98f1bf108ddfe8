"""One trace follows an intent: from its publishing, through Redis and the worker's task, to the worker's calls back."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from ipam.model import IntentKind
from lab.site import Site, eventually
from services.api.ipam.v1 import ipam_pb2 as pb

pytestmark = [pytest.mark.redis, pytest.mark.tool("setpriv")]

PUBLISH, PERFORM = "publish plimsoll.perform", "plimsoll.perform"
WORK = "plimsoll.ipam.v1.IpamWorkService"


@dataclass(frozen=True)
class Span:
    service: str
    name: str
    trace: bytes
    id: bytes
    parent: bytes
    intent: str


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes spans as an OTLP collector does."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self._came = asyncio.Condition()

    async def Export(self, request: Any, context: Any) -> trace_service_pb2.ExportTraceServiceResponse:
        async with self._came:
            for resource in request.resource_spans:
                service = _attributes(resource.resource)["service.name"]
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        ids = (span.trace_id, span.span_id, span.parent_span_id)
                        self.spans.append(
                            Span(service, span.name.strip("/"), *ids, _attributes(span).get("intent", ""))
                        )
            self._came.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()

    def of_trace(self, trace: bytes) -> dict[str, Span]:
        """Spans by service and name."""
        return {f"{each.service} {each.name}": each for each in self.spans if each.trace == trace}

    async def until(self, kind: IntentKind, *names: str) -> dict[str, Span]:
        """The first trace that published an intent of this kind and has spans of these services and names."""
        found: dict[str, Span] = {}

        def complete() -> bool:
            for each in self.spans:
                if each.name == PUBLISH and each.intent.startswith(f"{kind}-"):
                    found.clear()
                    found.update(self.of_trace(each.trace))
                    if set(names) <= found.keys():
                        return True
            return False

        async with self._came:
            try:
                await asyncio.wait_for(self._came.wait_for(complete), 20)
            except TimeoutError:
                raise AssertionError(f"no trace has all of {names}; the last has {sorted(found)}") from None
        return found


def _attributes(of: Any) -> dict[str, str]:
    return {pair.key: pair.value.string_value for pair in of.attributes}


@pytest.fixture
async def collector() -> AsyncIterator[tuple[Collector, str]]:
    collector, server = Collector(), grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield collector, f"127.0.0.1:{port}"
    await server.stop(None)


async def test_an_intent_is_one_trace_from_its_publishing_to_the_workers_calls(
    collector: tuple[Collector, str], make_site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    taken, endpoint = collector
    tracing = {"otlp_endpoint": endpoint}
    site: Site = await make_site(ipam=tracing, worker=tracing)
    instance = await site.ec2.launch("m5.large")
    async with site.node("n1", instance, watermarks=pb.Watermarks(pre_allocate=4)) as node:
        await node.until(lambda: len(node.addresses) == 4)
        calls = ("ClaimIntent", "RecordSteps", "CompleteIntent")
        both_sides = [f"{service} {WORK}/{call}" for call in calls for service in ("worker", "ipam-aws")]
        spans = await taken.until(IntentKind.ALLOCATE, f"ipam-aws {PUBLISH}", f"worker {PERFORM}", *both_sides)
    published, performed = spans[f"ipam-aws {PUBLISH}"], spans[f"worker {PERFORM}"]
    assert not published.parent, "what a stream of days has caused does not hang below that stream"
    assert (performed.parent, performed.intent) == (published.id, published.intent)
    for call in calls:
        asked = spans[f"worker {WORK}/{call}"]
        assert asked.parent == performed.id
        assert spans[f"ipam-aws {WORK}/{call}"].parent == asked.id
    assert published.trace.hex() in (site.folder / "worker.log").read_text(), "logs name the trace"
    assert not [each for each in taken.spans if each.name.endswith("/Watch")]
    intents_of = [each.intent for each in taken.spans if (each.trace, each.name) == (published.trace, PUBLISH)]
    assert set(intents_of) == {published.intent}, "no other intent has got into this trace"


async def test_a_person_s_call_and_the_intent_that_it_caused_are_one_trace(
    collector: tuple[Collector, str], make_site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    taken, endpoint = collector
    site: Site = await make_site(ipam={"otlp_endpoint": endpoint}, worker={"otlp_endpoint": endpoint})
    await taken.until(IntentKind.RESYNC, f"ipam-aws {WORK}/CompleteIntent")  # the one at the start
    await eventually(partial(_nothing_open, site), "the first resync is over")
    taken.spans.clear()
    trace, span = secrets.token_bytes(16), secrets.token_bytes(8)
    caller = ("traceparent", f"00-{trace.hex()}-{span.hex()}-01")
    await site.local.Resync(pb.ResyncRequest(), metadata=(caller,))
    resync = "plimsoll.ipam.v1.IpamService/Resync"
    spans = await taken.until(
        IntentKind.RESYNC,
        f"ipam-aws {resync}",
        f"worker {PERFORM}",
        f"ipam-aws {WORK}/ReportInventory",
    )
    assert (spans[f"ipam-aws {resync}"].trace, spans[f"ipam-aws {resync}"].parent) == (trace, span)
    assert spans[f"ipam-aws {PUBLISH}"].parent == spans[f"ipam-aws {resync}"].id


async def _nothing_open(site: Site) -> bool:
    return not (await site.local.ListIntents(pb.ListIntentsRequest())).intents
