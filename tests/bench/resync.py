"""Whether a listing of the whole account holds up nodes: allocations are made one after the other, first in peace, then
while 5,000 instances with 10,000 interfaces and 100,000 addresses are merged again and again.

The service runs as it is, on its SQLite store; pages of the listing are decoded and merged in its loop, as its handler
does. What workers do is of other processes on a site: pages are encoded before, and the thread of the executor need not
wait for the interpreter as long as threads of one process do by default.

    python -m tests.bench resync -- --nodes 5000
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ipam.config import IpamConfig
from ipam.executor import Executor, small_pages
from ipam.model import Done, Instance, Inventory, NodeSpec, PoolInterface, Report, Subnet, Usage, Watermarks
from ipam.service import PoolService
from ipam.store import SqlPoolStore
from ipam.testing import FakeCloud, FreeBudget, LocalJournal, on_loop
from ipam.testing.bridge import DirectQueue
from services.api.ipam import convert_work
from services.api.ipam.v1 import ipam_pb2 as pb
from services.runtime.store import migrate, open_database
from tests.bench.report import Row

ADDRESSES = 9
A_NODE, ON_SECOND = 20, 14  # addresses for pods: of a node, and of its second interface
PROBE = "probe"
ALLOCATIONS = 60
SWITCH_S = 0.0002


class SystemClock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


@dataclass
class Bench:
    nodes: int
    cloud: FakeCloud
    service: PoolService
    queue: DirectQueue
    executor: Executor
    instances: list[Instance] = field(default_factory=list)
    told: asyncio.Event = field(default_factory=asyncio.Event)
    held: list[str] = field(default_factory=list)
    encoded: list[bytes] = field(default_factory=list)
    sequence: int = 0

    async def announce(self) -> None:
        for number in range(self.nodes):
            instance = self.cloud.launch("m5.4xlarge")
            first = instance.interfaces[0].id
            self.cloud.assign_addresses(interface_id=first, count=A_NODE - ON_SECOND)
            more = self.cloud.create_interface(
                subnet_id="subnet-a", security_group_ids=["sg-1"], secondary_count=ON_SECOND, tags={}, description="",
                client_token="",
            )  # fmt: skip
            self.cloud.attach_interface(interface_id=more.id, instance_id=instance.id, device_index=1, network_card=0)
            self.instances.append(self.cloud.instance(instance.id))
            await self.service.announce(NodeSpec(f"n{number}", instance.id, release_excess=False), Usage())
        probe = self.cloud.launch("m5.large")
        marks = Watermarks(pre_allocate=1)
        await self.service.announce(NodeSpec(PROBE, probe.id, watermarks=marks, release_excess=False), Usage())
        await self.service.settle()

    def hears(self, node: str, interfaces: Mapping[str, PoolInterface]) -> None:
        if node == PROBE:
            self.held = [address for each in interfaces.values() for address in each.addresses]
            self.told.set()

    async def allocations(self, count: int) -> list[float]:
        """Seconds from a pod that waits to the addresses being told, one after the other, ascending."""
        taken: list[float] = []
        while len(taken) < count:
            self.told.clear()
            began = time.perf_counter()
            in_use = frozenset(self.held) if len(self.held) < 2 * ADDRESSES else frozenset()
            await self._say(in_use, pending=1)
            await self._worked()
            if len(self.held) >= 2 * ADDRESSES:
                await self._replaced()  # the instance is full: another one takes its place
                continue
            await self.told.wait()
            taken.append(time.perf_counter() - began)
        return sorted(taken)

    async def _say(self, in_use: frozenset[str], pending: int) -> None:
        self.sequence += 1
        await self.service.report(PROBE, Usage(in_use=in_use, pending_pods=pending, sequence=self.sequence))
        await self.service.settle()

    async def _worked(self) -> None:
        while (intent_id := self.queue.take()) is not None:
            if not intent_id.startswith("resync"):
                await asyncio.to_thread(self.executor.perform, intent_id, "bench")

    async def _replaced(self) -> None:
        probe = self.cloud.launch("m5.large")
        self.held, self.sequence = [], 0
        marks = Watermarks(pre_allocate=1)
        await self.service.announce(NodeSpec(PROBE, probe.id, watermarks=marks, release_excess=False), Usage())
        await self.service.settle()
        await self._worked()

    def encode(self) -> None:
        """The listing as a worker sends it, but for whose it is: that is added to each page, as messages are merged."""
        parts = list(small_pages(self.instances, ()))
        subnets, groups = tuple(self.cloud.subnets()), tuple(self.cloud.security_groups())
        self.encoded = [
            convert_work.inventory_to(
                "", 0,
                Inventory(tuple(part), (), subnets if not number else (), groups if not number else (), time.time(),
                          last=number == len(parts) - 1),
            ).SerializeToString()
            for number, (part, _) in enumerate(parts)
        ]  # fmt: skip

    async def resync(self) -> float:
        """One listing; returns how long it took."""
        intent_id = await self.service.resync()
        claim = await self.service.claim(intent_id, "bench")
        assert claim is not None
        whose = pb.ReportInventoryRequest(intent_id=intent_id, fence=claim.fence).SerializeToString()
        began = time.perf_counter()
        for raw in self.encoded:
            page = convert_work.inventory_from(pb.ReportInventoryRequest.FromString(raw + whose))
            await self.service.inventory_page(intent_id, claim.fence, page)
            await asyncio.sleep(0)
        await self.service.complete(intent_id, claim.fence, Done(), Report())
        return time.perf_counter() - began


async def measure(nodes: int) -> tuple[list[float], list[float], list[float]]:
    """Allocations in peace, allocations during listings, and how long listings took."""
    with tempfile.TemporaryDirectory() as folder:
        async with open_database(f"sqlite:///{Path(folder) / 'ipam.db'}") as database:
            await migrate(database, "ipam.migrations")
            clock = SystemClock()
            cloud = FakeCloud(clock=clock, subnets=[Subnet("subnet-a", "10.0.0.0/10", "zone-a", "vpc-1", 0)])
            queue = DirectQueue(clock)
            config = IpamConfig(account="1", region="r", resync_interval_s=86400, coalesce_s=0.0)
            service = PoolService(config, cloud.capabilities, SqlPoolStore(database), queue, clock)
            loop = asyncio.get_running_loop()
            executor = Executor(cloud, FreeBudget(), LocalJournal(service, on_loop(loop)), clock)
            bench = Bench(nodes, cloud, service, queue, executor)
            service.on_pool_change = bench.hears
            await service.start()
            await bench.announce()
            await bench._worked()
            bench.encode()
            calm = await bench.allocations(ALLOCATIONS)
            listings: list[float] = []

            async def list_on() -> None:
                while True:
                    listings.append(await bench.resync())

            listing = asyncio.create_task(list_on())
            busy = await bench.allocations(ALLOCATIONS)
            listing.cancel()
            await asyncio.wait([listing])
            await service.stop()
            return calm, busy, listings


def main(argv: list[str]) -> list[Row]:
    parser = argparse.ArgumentParser(prog="tests.bench resync", description=__doc__)
    parser.add_argument("--nodes", type=int, default=5000)
    nodes = parser.parse_args(argv).nodes
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    calm, busy, listings = asyncio.run(measure(nodes))
    sys.setswitchinterval(interval_s)
    middle = calm[len(calm) // 2]
    what = f"resync: {nodes} instances, {2 * nodes} interfaces, {A_NODE * nodes} addresses"
    taken = sorted(listings)[len(listings) // 2] if listings else float("nan")
    return [
        Row(f"{what}: longest delay of an allocation meanwhile", (busy[-1] - middle) * 1e3, "ms", target="<= 50"),
        Row(f"{what}: median allocation meanwhile, against one in peace", busy[len(busy) // 2] * 1e3, "ms",
            baseline=middle * 1e3),
        Row(f"{what}: one listing", taken, "s"),
        Row(f"{what}: memory of the process", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "MB",
            target="<= 600"),
    ]  # fmt: skip
