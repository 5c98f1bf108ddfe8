"""A whole service for the lifecycle tests: run it with the flags of `Settings`."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pydantic_settings import SettingsConfigDict

from services.api.registry.v1 import registry_pb2, registry_pb2_grpc
from services.runtime.errors import RuntimeFault
from services.runtime.lifecycle import Lifecycle, run
from services.runtime.server import GrpcServer, allow
from services.runtime.settings import ServiceSettings

SERVICE = "plimsoll.registry.v1.RegistryService"


class Settings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="PLIMSOLL_EXAMPLE_")

    journal: Path
    fail: str = ""
    replicas: int = 1


class Handlers(registry_pb2_grpc.RegistryServiceServicer):
    async def GetNode(self, request: Any, context: Any) -> registry_pb2.GetNodeResponse:
        await asyncio.sleep(0.3)
        return registry_pb2.GetNodeResponse(node=registry_pb2.Node(name=request.name))


async def build(settings: Settings, life: Lifecycle) -> None:
    def write(line: str) -> None:
        with settings.journal.open("a") as file:
            file.write(line + "\n")

    @asynccontextmanager
    async def part(name: str) -> AsyncIterator[str]:
        write(f"open {name}")
        try:
            yield name
        finally:
            write(f"close {name}")

    async def loop() -> None:
        try:
            if settings.fail == "task":
                await asyncio.sleep(0.1)
                raise RuntimeError("the loop broke")
            await asyncio.Event().wait()
        finally:
            if settings.fail == "stuck":
                time.sleep(60)  # noqa: ASYNC251 - the fault that is tested
            write("loop cancelled")

    await life.enter(part("store"))
    if settings.fail == "build":
        raise RuntimeFault("precondition", "the store is of a newer version", remedy="Upgrade the service.")
    if settings.fail == "slow build":
        write("building")
        await asyncio.sleep(60)
    life.spawn("loop", loop)  # type: ignore[unused-awaitable]
    server = GrpcServer(settings, policy={f"/{SERVICE}/*": allow()})
    server.add(registry_pb2_grpc.add_RegistryServiceServicer_to_server, Handlers(), SERVICE)  # type: ignore[abstract]
    await life.enter(server)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[3]))
    run("example", Settings, build)
