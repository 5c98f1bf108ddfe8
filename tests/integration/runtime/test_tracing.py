"""Traces: a call's spans of both sides reach an OTLP collector, in one trace; a lost collector holds nothing up."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from services.api.registry.v1 import registry_pb2, registry_pb2_grpc
from services.runtime.client import aio_channel

EXAMPLE = Path(__file__).with_name("example_service.py")
ROOT = EXAMPLE.parents[3]

CALLER = """
import asyncio, sys
from services.api.registry.v1 import registry_pb2, registry_pb2_grpc
from services.runtime.client import aio_channel, sync_channel
from services.runtime.tracing import Tracing

async def call(target):
    async with aio_channel(target, None) as channel:
        await registry_pb2_grpc.RegistryServiceStub(channel).GetNode(registry_pb2.GetNodeRequest(name="n"))

with Tracing("caller", sys.argv[2]):
    asyncio.run(call(sys.argv[1]))
    with sync_channel(sys.argv[1], None) as channel:
        registry_pb2_grpc.RegistryServiceStub(channel).GetNode(registry_pb2.GetNodeRequest(name="n"))
"""


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self) -> None:
        self.spans: list[tuple[str, str, bytes]] = []

    async def Export(self, request: Any, context: Any) -> trace_service_pb2.ExportTraceServiceResponse:
        for resource in request.resource_spans:
            attributes = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [(attributes["service.name"], span.name, span.trace_id) for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()


def start_example(folder: Path, endpoint: str) -> subprocess.Popen[str]:
    argv = [sys.executable, str(EXAMPLE), "--journal", str(folder / "journal"), "--socket", str(folder / "x.sock")]
    return subprocess.Popen(
        [*argv, "--otlp-endpoint", endpoint],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def wait_serving(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("{") and json.loads(line)["event"] == "serving":
            return
    raise AssertionError("it did not start")


async def test_spans_of_both_sides_form_one_trace(socket_folder: Path) -> None:
    collector, server = Collector(), grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    endpoint = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    process = start_example(socket_folder, endpoint)
    try:
        await asyncio.to_thread(wait_serving, process)
        argv = [sys.executable, "-c", CALLER, f"unix:{socket_folder}/x.sock", endpoint]
        caller = await asyncio.create_subprocess_exec(*argv, env=os.environ | {"PYTHONPATH": str(ROOT)})
        assert await caller.wait() == 0
        process.terminate()
        await asyncio.to_thread(process.communicate)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
        await server.stop(None)
    traces: dict[bytes, set[str]] = {}
    for service, name, trace in collector.spans:
        assert name.endswith("RegistryService/GetNode")
        traces.setdefault(trace, set()).add(service)
    assert list(traces.values()) == [{"caller", "example"}] * 2


async def test_a_lost_collector_does_not_hold_up_the_stop(socket_folder: Path) -> None:
    process = start_example(socket_folder, "127.0.0.1:1")
    try:
        await asyncio.to_thread(wait_serving, process)
        async with aio_channel(f"unix:{socket_folder}/x.sock", None) as channel:
            await registry_pb2_grpc.RegistryServiceStub(channel).GetNode(registry_pb2.GetNodeRequest())
        began = time.monotonic()
        process.terminate()
        await asyncio.to_thread(process.communicate, timeout=20)
        assert process.returncode == 0
        assert time.monotonic() - began < 6
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
