"""A whole IPAM in one thread and in simulated time: service, store, queue, worker, cloud."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from ipam.config import IpamConfig
from ipam.executor import Executor
from ipam.model import NodeSpec, Outcome, PoolInterface, Usage, Watermarks
from ipam.service import PoolService
from ipam.testing.bridge import DirectQueue, FreeBudget, LocalJournal
from ipam.testing.clock import FakeClock
from ipam.testing.cloud import FakeCloud
from ipam.testing.store import MemoryStore

T = TypeVar("T")
CONFIG = IpamConfig(account="123456789012", region="eu-central-1", release_delay_s=180.0, coalesce_s=30.0)


class IpamSite:
    """Drives everything by hand. `work` performs what is due in the queue, `advance` passes time and ticks."""

    def __init__(self, config: IpamConfig = CONFIG, cloud: FakeCloud | None = None) -> None:
        self.loop = asyncio.new_event_loop()
        self.config = config
        self.clock = FakeClock()
        self.cloud = cloud or FakeCloud()
        self.cloud.clock = self.clock
        self.store = MemoryStore(self.clock)
        self.queue = DirectQueue(self.clock)
        self.budget = FreeBudget()
        self.told: dict[str, Mapping[str, PoolInterface]] = {}
        self.sequence = 0
        self.outcomes: list[Outcome] = []
        self.new_service()

    def new_service(self) -> None:
        """A service that knows only what the store has, and a worker beside it."""
        self.service = PoolService(
            self.config, self.cloud.capabilities, self.store, self.queue, self.clock, on_pool_change=self._tell
        )
        self.executor = Executor(
            self.cloud, self.budget, LocalJournal(self.service, self.run), self.clock, cluster=self.config.cluster
        )
        self.run(self.service.start())

    def _tell(self, node: str, interfaces: Mapping[str, PoolInterface]) -> None:
        self.told[node] = interfaces

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        async def whole() -> T:
            result = await coroutine
            await self.service.settle()
            return result

        return self.loop.run_until_complete(whole())

    def close(self) -> None:
        self.loop.close()

    def node(self, name: str = "n1", **changes: Any) -> NodeSpec:
        """Launches an instance and announces a node on it."""
        kind = changes.pop("type_", "m5.large")
        usage = changes.pop("usage", Usage())
        instance = self.cloud.launch(kind, subnet_id=changes.pop("subnet_id", ""))
        spec = replace(NodeSpec(name, instance.id, watermarks=Watermarks()), **changes)
        self.run(self.service.announce(spec, usage))
        return spec

    def report(self, node: str = "n1", **usage: Any) -> None:
        self.sequence += 1
        self.run(self.service.report(node, Usage(sequence=self.sequence, **usage)))

    def work(self, limit: int = 1000) -> int:
        """Performs what is due; returns how many intents it took from the queue."""
        done = 0
        while done < limit and (intent_id := self.queue.take()) is not None:
            self.outcomes.append(self.executor.perform(intent_id, "worker-1"))
            done += 1
        return done

    def tick(self) -> None:
        self.run(self.service.tick())

    def advance(self, seconds: float, step_s: float = 5.0) -> None:
        while seconds > 0:
            self.clock.advance(min(step_s, seconds))
            seconds -= step_s
            self.tick()
            self.work()

    def addresses(self, node: str = "n1") -> list[str]:
        """What the node was told, in order."""
        return [address for each in self.told[node].values() for address in each.addresses]

    def states(self, node: str = "n1") -> dict[str, str]:
        return {address: state for each in self.told[node].values() for address, state in each.addresses.items()}
