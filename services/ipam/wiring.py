"""Builds the IPAM service of a cloud: store and queue below, the pool service, topics of nodes, and gRPC on top."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from prometheus_client import REGISTRY

from ipam.ports import Capabilities
from ipam.service import PoolService
from ipam.store import SqlPoolStore
from services.api.ipam.v1 import ipam_pb2_grpc as pb_grpc
from services.ipam.handlers import IpamHandlers
from services.ipam.metrics import IpamMetrics, PoolCollector
from services.ipam.settings import IpamSettings
from services.ipam.topics import PoolTopics
from services.ipam.work_handlers import WorkHandlers
from services.runtime.clock import SystemClock
from services.runtime.errors import RuntimeFault
from services.runtime.lifecycle import Lifecycle
from services.runtime.metrics import PREPARATIONS
from services.runtime.migrate import migrate_apart
from services.runtime.queue import CeleryQueue, celery_app, queue_name
from services.runtime.server import GrpcServer, Rule, allow
from services.runtime.store import open_database

POOLS: Final = "plimsoll.ipam.v1.IpamService"
WORK: Final = "plimsoll.ipam.v1.IpamWorkService"
_SQLITE: Final = "sqlite:///"

POLICY: Final[Mapping[str, Rule]] = {
    f"/{POOLS}/Watch": allow(nodes=True, local=False),
    f"/{POOLS}/GetPool": allow(services=("gateway", "cli"), nodes=True),
    f"/{POOLS}/Explain": allow(services=("gateway", "cli"), nodes=True),
    f"/{POOLS}/*": allow(services=("gateway", "cli")),
    f"/{WORK}/*": allow(services=("worker",), local=False),
}


async def build(cloud: str, capabilities: Capabilities, settings: IpamSettings, life: Lifecycle) -> None:
    """:param cloud: as the queue's name has it: "aws".
    :param capabilities: of the cloud's provider, which itself only workers need."""
    replica = settings.replica or f"{socket.gethostname()}:{os.getpid()}"
    if not settings.replica and settings.store.startswith(_SQLITE):
        # A lead that the last life did not give back is this one's at once: the lock proves that life to be over.
        await life.enter(only_process(Path(settings.store.removeprefix(_SQLITE))))
        replica = socket.gethostname()
    database = await life.enter(open_database(settings.store))
    await migrate_apart(database, "ipam.migrations")
    queue = CeleryQueue(celery_app(settings.redis, queue_name(cloud, settings.account, settings.region)))
    topics = PoolTopics()
    service = PoolService(
        settings.config(),
        capabilities,
        SqlPoolStore(database),
        await life.enter(queue),
        SystemClock(),
        holder=replica,
        on_pool_change=topics.publish,
        on_leadership=topics.lead,
    )
    life.defer(service.stop)
    await service.start()
    life.spawn("pools", service.run)
    pools = PoolCollector(service)
    REGISTRY.register(pools)
    PREPARATIONS.append(pools.prepare)

    place = {"cloud": cloud, "account": settings.account, "region": settings.region}
    server = GrpcServer(settings, policy=POLICY, record_bytes=1024)  # what nodes are told is short
    server.add(
        pb_grpc.add_IpamServiceServicer_to_server,
        IpamHandlers(service, topics, settings.node_defaults(), **place),
        POOLS,
    )
    server.add(pb_grpc.add_IpamWorkServiceServicer_to_server, WorkHandlers(service, IpamMetrics()), WORK)
    await life.enter(server)


@contextmanager
def only_process(database: Path) -> Iterator[None]:
    """Holds a lock beside the database file that ends with this process. Raises RuntimeFault if another holds it."""
    database.parent.mkdir(parents=True, exist_ok=True)
    with database.with_name(f"{database.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RuntimeFault(
                "precondition",
                f"another process serves {database}",
                field="store",
                remedy="stop it, or use PostgreSQL to run several replicas",
            ) from error
        yield
