"""The registry's object graph."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import NoReturn

import structlog
from prometheus_client import REGISTRY

from ipam.cluster_pool import ClusterPool
from services.api.registry.v1 import registry_pb2_grpc
from services.registry.errors import StaleLead
from services.registry.handlers import POLICY, SERVICE, RegistryHandlers
from services.registry.identities import Identities
from services.registry.metrics import RegistryCollector
from services.registry.service import Fact, Registry
from services.registry.settings import Settings
from services.registry.store import SqlRegistryStore
from services.registry.wire import encode_batch
from services.runtime.clock import SystemClock
from services.runtime.leadership import sole_leader
from services.runtime.lifecycle import Lifecycle
from services.runtime.migrate import migrate_apart
from services.runtime.server import GrpcServer
from services.runtime.store import StoreError, open_database
from services.runtime.watch import Topic

_RETRY_S = 1.0
_TEND_S = 10.0


async def build(settings: Settings, life: Lifecycle) -> None:
    """Opens the store, stands by until no other registry leads, loads it, serves."""
    database = await life.enter(open_database(settings.store))
    await migrate_apart(database, "services.registry.migrations")
    leadership = await life.enter(sole_leader(database, "registry", standing_by=life.standing_by))
    life.spawn("leadership", leadership.watch)
    topic: Topic[Fact] = Topic(encode_batch)
    clock = SystemClock()
    identities = Identities(clock, patterns=settings.identity_labels, rest_s=settings.identity_rest_s)
    store = SqlRegistryStore(database)
    cluster_pool = ClusterPool(settings.cluster) if settings.cluster is not None else None
    registry = Registry(
        store, topic, clock,
        lost_after_s=settings.lost_after_s, identities=identities, cluster_pool=cluster_pool,
    )  # fmt: skip
    await registry.start()
    REGISTRY.register(RegistryCollector(registry, topic))

    async def last_heartbeats() -> None:
        with contextlib.suppress(StoreError, StaleLead):  # a store that is lost must not make a clean stop a crash
            await registry.write_heartbeats()

    life.defer(last_heartbeats)

    async def write_heartbeats() -> float:
        await registry.write_heartbeats()
        return settings.heartbeat_write_s

    async def tend_identities() -> float:
        await registry.tend_identities()
        return min(_TEND_S, settings.identity_rest_s)

    life.spawn("identities", _again(tend_identities))
    life.spawn("sweep", _again(registry.sweep))
    life.spawn("heartbeats", _again(write_heartbeats))
    server = GrpcServer(settings, policy=POLICY)
    server.add(registry_pb2_grpc.add_RegistryServiceServicer_to_server, RegistryHandlers(registry, topic), SERVICE)
    await life.enter(server)


def _again(work: Callable[[], Awaitable[float]]) -> Callable[[], Awaitable[None]]:
    """Runs `work` for ever, each time after the seconds that it returned. A lost store is waited for."""

    async def loop() -> NoReturn:
        while True:
            try:
                pause_s = await work()
            except StoreError as error:
                structlog.get_logger("registry").warning("store", error=error.message, remedy=error.remedy)
                pause_s = error.retry_after_s or _RETRY_S
            await asyncio.sleep(max(pause_s, 0.05))

    return loop
