"""The service as its workers see it: in the same process, and over gRPC with all of its converters and errors."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from ipam.config import IpamConfig
from ipam.errors import Denied, StaleFence, StoreError
from ipam.executor import Executor
from ipam.model import Done, GiveUp, Inventory, NodeSpec, Operation, Report, Retry, Step, Usage, Watermarks
from ipam.ports import IntentJournal
from ipam.service import PoolService
from ipam.testing import AWS_LIKE, DirectQueue, FakeClock, FakeCloud, FreeBudget, LocalJournal, MemoryStore, on_loop
from services.api.ipam.v1 import ipam_pb2_grpc as pb_grpc
from services.ipam.metrics import IpamMetrics
from services.ipam.work_handlers import WorkHandlers
from services.runtime.client import sync_channel
from services.runtime.server import GrpcServer, allow
from services.runtime.settings import ServiceSettings, load
from services.worker.clients import GrpcJournal

WORK = "plimsoll.ipam.v1.IpamWorkService"
CONFIG = IpamConfig(account="123456789012", region="eu-west-1", coalesce_s=0.0)


@dataclass
class Bench:
    service: PoolService
    cloud: FakeCloud
    queue: DirectQueue
    clock: FakeClock
    journal: IntentJournal

    async def node(self) -> str:
        """A node that needs eight addresses; returns the intent that brings them."""
        instance = self.cloud.launch("m5.large")
        await self.service.announce(NodeSpec("n1", instance.id, watermarks=Watermarks(8)), Usage())
        return await self.intent()

    async def intent(self) -> str:
        await self.service.settle()
        intent_id = self.queue.take()
        assert intent_id is not None
        return intent_id

    async def perform(self, intent_id: str) -> object:
        executor = Executor(self.cloud, FreeBudget(), self.journal, self.clock)
        return await asyncio.to_thread(executor.perform, intent_id, "w1")


@pytest.fixture(params=["local", "grpc"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    clock = FakeClock()
    cloud = FakeCloud()
    cloud.clock = clock
    queue = DirectQueue(clock)
    service = PoolService(CONFIG, AWS_LIKE, MemoryStore(clock), queue, clock)
    await service.start()
    if request.param == "local":
        loop = asyncio.get_running_loop()
        yield Bench(service, cloud, queue, clock, LocalJournal(service, on_loop(loop)))
        return
    folder = Path(tempfile.mkdtemp(prefix="plimsoll-work-", dir="/tmp"))
    settings = load(ServiceSettings, ["--socket", str(folder / "work.sock")], environ={})
    server = GrpcServer(settings, policy={f"/{WORK}/*": allow(local=True)})
    handlers = WorkHandlers(service, IpamMetrics(CollectorRegistry()))
    server.add(pb_grpc.add_IpamWorkServiceServicer_to_server, handlers, WORK)
    async with server:
        channel = sync_channel(f"unix:{settings.socket}", None)
        yield Bench(service, cloud, queue, clock, GrpcJournal(channel))
        channel.close()
    shutil.rmtree(folder)


async def test_an_intent_is_performed_to_its_end(bench: Bench) -> None:
    intent_id = await bench.node()
    assert await bench.perform(intent_id) == Done()
    assert bench.service.pool("n1").attached == 8
    assert not bench.service.known(intent_id)


async def test_a_release_asks_once_more_and_frees(bench: Bench) -> None:
    await bench.perform(await bench.node())
    pool = bench.service.interfaces("n1")
    addresses = [address for each in pool.values() for address in each.addresses]
    await bench.service.report("n1", Usage(in_use=frozenset(addresses), sequence=1))
    await bench.perform(await bench.intent())
    assert bench.service.pool("n1").attached == 16
    await bench.service.report("n1", Usage(sequence=2))
    bench.clock.advance(CONFIG.release_delay_s + 1)
    await bench.service.tick()
    marked = [
        address
        for each in bench.service.interfaces("n1").values()
        for address, state in each.addresses.items()
        if state == "marked"
    ]
    assert len(marked) == 8
    await bench.service.report("n1", Usage(ready=frozenset(marked), sequence=3))
    await bench.service.settle()
    while (intent_id := bench.queue.take()) is not None:
        await bench.perform(intent_id)
    assert bench.service.pool("n1").attached == 8


async def test_only_one_worker_gets_an_intent(bench: Bench) -> None:
    intent_id = await bench.node()
    first = await asyncio.to_thread(bench.journal.claim, intent_id, "w1")
    assert first is not None
    assert first.node is not None
    assert (first.intent.id, first.intent.want, first.node.name) == (intent_id, 8, "n1")
    assert await asyncio.to_thread(bench.journal.claim, intent_id, "w2") is None
    assert await asyncio.to_thread(bench.journal.claim, "no such intent", "w2") is None


async def test_who_was_followed_is_refused(bench: Bench) -> None:
    intent_id = await bench.node()
    first = await asyncio.to_thread(bench.journal.claim, intent_id, "w1")
    bench.clock.advance(CONFIG.lease_s + 1)
    second = await asyncio.to_thread(bench.journal.claim, intent_id, "w2")
    assert first is not None
    assert second is not None
    step = Step(1, Operation.ASSIGN_ADDRESSES, "eni-1", {"count": 8})
    for call in (
        lambda: bench.journal.record(intent_id, first.fence, [step]),
        lambda: bench.journal.confirm_release(intent_id, first.fence, []),
        lambda: bench.journal.complete(intent_id, first.fence, Done(), Report()),
        lambda: bench.journal.inventory(intent_id, first.fence, pages(one=True)),
    ):
        with pytest.raises(StaleFence):
            await asyncio.to_thread(call)
    await asyncio.to_thread(bench.journal.record, intent_id, second.fence, [step])


async def test_steps_outlive_their_worker(bench: Bench) -> None:
    intent_id = await bench.node()
    first = await asyncio.to_thread(bench.journal.claim, intent_id, "w1")
    assert first is not None
    step = Step(1, Operation.ASSIGN_ADDRESSES, "eni-1", {"count": 8}, client_token="t")
    await asyncio.to_thread(bench.journal.record, intent_id, first.fence, [step])
    bench.clock.advance(CONFIG.lease_s + 1)
    second = await asyncio.to_thread(bench.journal.claim, intent_id, "w2")
    assert second is not None
    assert second.intent.steps == (step,)


async def test_retries_and_ends_are_told_with_their_reason(bench: Bench) -> None:
    intent_id = await bench.node()
    claim = await asyncio.to_thread(bench.journal.claim, intent_id, "w1")
    assert claim is not None
    await asyncio.to_thread(bench.journal.complete, intent_id, claim.fence, Retry(5.0, "not now"), Report())
    assert bench.service.intents()[0].last_error == "not now"
    bench.clock.advance(600)
    claim = await asyncio.to_thread(bench.journal.claim, intent_id, "w1")
    assert claim is not None
    await asyncio.to_thread(bench.journal.complete, intent_id, claim.fence, GiveUp("never"), Report())
    assert [each.why for each in bench.service.dead_letters()] == ["never"]


def pages(*, one: bool = False) -> Iterator[Inventory]:
    yield Inventory((), (), (), (), 1.0, last=False)
    if not one:
        raise Denied("no listing for you", code="UnauthorizedOperation")


async def test_a_listing_that_fails_raises_its_own_reason(bench: Bench) -> None:
    intent_id = await bench.service.resync()
    claim = await asyncio.to_thread(bench.journal.claim, intent_id, "w1")
    assert claim is not None
    with pytest.raises(Denied, match="no listing"):
        await asyncio.to_thread(bench.journal.inventory, intent_id, claim.fence, pages())


async def test_a_listing_is_merged(bench: Bench) -> None:
    await bench.perform(await bench.node())
    intent_id = await bench.service.resync()
    assert await bench.perform(intent_id) == Done()
    assert bench.service.status().last_resync_at > 0


def test_a_service_that_is_not_there_is_a_store_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.worker.clients.CLAIM_TIMEOUT_S", 0.2)
    monkeypatch.setattr("services.worker.clients.TELL_TIMEOUT_S", 0.2)
    with sync_channel("unix:/nonexistent/ipam.sock", None) as channel:
        journal = GrpcJournal(channel)
        calls: list[Callable[[], object]] = [
            lambda: journal.claim("i", "w"),
            lambda: journal.record("i", 1, []),
            lambda: journal.complete("i", 1, Done(), Report()),
        ]
        for call in calls:
            with pytest.raises(StoreError):
                call()


@pytest.mark.parametrize("bench", ["grpc"], indirect=True)
async def test_a_replica_that_does_not_lead_for_a_moment_is_asked_again(bench: Bench) -> None:
    intent_id = await bench.node()
    await bench.service.stop()
    performing = asyncio.create_task(bench.perform(intent_id))
    await asyncio.sleep(0.1)
    await bench.service.start()
    assert await performing == Done()
    assert bench.service.pool("n1").attached == 8


@pytest.mark.parametrize("bench", ["grpc"], indirect=True)
async def test_a_claim_whose_answer_was_lost_is_given_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    intent_id = await bench.node()
    claims: list[str] = []
    claim = bench.service.claim

    async def slow_at_first(intent_id: str, holder: str) -> object:
        given = await claim(intent_id, holder)
        claims.append(holder)
        if len(claims) == 1:
            await asyncio.sleep(60)
        return given

    monkeypatch.setattr(bench.service, "claim", slow_at_first)
    monkeypatch.setattr("services.worker.clients.CLAIM_TIMEOUT_S", 0.3)
    assert await bench.perform(intent_id) == Done()
    assert len(claims) == 2
    assert bench.service.pool("n1").attached == 8
