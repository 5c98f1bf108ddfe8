"""Nodes that take their ranges of a real registry, on its real transport, while it is away, full and emptied."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from ipam.cluster_pool import ClusterPool
from services.api.registry.v1 import registry_pb2_grpc
from services.node import cluster_ranges
from services.node.cluster_ranges import FILE, with_ranges
from services.node.settings import Settings
from services.registry.handlers import POLICY, SERVICE, RegistryHandlers
from services.registry.service import Fact, Registry
from services.registry.settings import Settings as RegistrySettings
from services.registry.testing import FakeClock, MemoryStore
from services.runtime.client import aio_channel
from services.runtime.errors import RuntimeFault
from services.runtime.server import GrpcServer
from services.runtime.watch import Topic

CLUSTER = ["10.128.0.0/23", "fd00:7::/63"]


class Site:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = MemoryStore()
        self.target = f"unix:{folder}/registry.sock"
        self.clock = FakeClock()
        self._stack = AsyncExitStack()

    async def start(self, cidrs: list[str] = CLUSTER) -> None:
        socket = self.folder / "registry.sock"
        settings = RegistrySettings.model_validate({"socket": socket, "listen": "", "cluster_cidrs": cidrs})
        pool = ClusterPool(settings.cluster) if settings.cluster is not None else None
        topic: Topic[Fact] = Topic(lambda batch: b"")
        self.registry = Registry(self.store, topic, self.clock, lost_after_s=30, cluster_pool=pool)
        await self.registry.start()
        server = GrpcServer(settings, policy=POLICY)
        handlers = RegistryHandlers(self.registry, topic)
        server.add(registry_pb2_grpc.add_RegistryServiceServicer_to_server, handlers, SERVICE)
        await self._stack.enter_async_context(server)

    async def stop(self) -> None:
        await self._stack.aclose()

    def settings(self, name: str) -> Settings:
        said = {"name": name, "registry": self.target, "pod_cidrs": ["cluster"], "state_dir": self.folder / name}
        return Settings.model_validate(said)

    async def ranges(self, name: str) -> list[str]:
        settings = await with_ranges(self.settings(name), lambda: aio_channel(self.target, None))
        assert settings.pod_ranges is not None
        return settings.pod_cidrs


@pytest.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.setattr(cluster_ranges, "FIRST_PAUSE_S", 0.02)
    made = Site(tmp_path)
    yield made
    await made.stop()


async def test_nodes_get_ranges_of_both_families_and_start_without_the_registry_from_then_on(site: Site) -> None:
    await site.start()
    first, second = await asyncio.gather(site.ranges("node-1"), site.ranges("node-2"))
    assert {*first, *second} == {"10.128.0.0/24", "10.128.1.0/24", "fd00:7::/64", "fd00:7:0:1::/64"}
    await site.stop()
    assert await site.ranges("node-1") == first
    (site.folder / "node-1" / FILE).unlink()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(site.ranges("node-1"), 0.3)
    await site.start()
    assert await site.ranges("node-1") == first, "the registry knew it"


async def test_a_node_waits_for_a_range_that_another_one_gives_up(site: Site) -> None:
    await site.start()
    for name in ("node-1", "node-2"):
        await site.ranges(name)
    waiting = asyncio.create_task(site.ranges("node-3"))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    await site.registry.delete("node-1")
    assert await asyncio.wait_for(waiting, 20) == ["10.128.0.0/24", "fd00:7::/64"]


async def test_what_was_kept_and_cannot_be_read_is_not_guessed_at(site: Site) -> None:
    settings = site.settings("node-1")
    settings.state_dir.mkdir()
    (settings.state_dir / FILE).write_text('{"pod_cidrs": 7}')
    with pytest.raises(RuntimeFault, match="cannot be read"):
        await site.ranges("node-1")
    (settings.state_dir / FILE).write_text('{"pod_cidrs": ["10.0.0.0/8"]}')
    with pytest.raises(RuntimeFault, match="cannot be this node's ranges"):
        await site.ranges("node-1")


def test_the_clusters_ranges_need_a_registry() -> None:
    with pytest.raises(ValueError, match="set registry"):
        Settings.model_validate({"name": "n", "pod_cidrs": ["cluster"]})
