"""A process killed in mid-write loses nothing that it acknowledged, and leaves nothing half written."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from ipam.store import SqlPoolStore
from services.runtime.store import migrate, open_database

# Writes instances, each with an intent, as fast as it can and says each one's number once it is durable.
WRITER = """
import asyncio, sys
from ipam.model import CloudInterface, Instance, Intent, IntentKind
from ipam.ports import Changes
from ipam.store import SqlPoolStore
from services.runtime.store import open_database

async def write(store, fence, n):
    addresses = tuple(f"10.{n >> 8}.{n & 255}.{host}" for host in range(20))
    eni = CloudInterface(f"eni-{n}", "02:00", "subnet", "vpc", "a", f"10.255.{n >> 8}.{n & 255}", addresses)
    changes = Changes(
        instances=[Instance(f"i-{n}", "m5.large", "a", "vpc", interfaces=(eni,))],
        intents=[Intent(f"i-{n}", IntentKind.SYNC_INSTANCE, f"i-{n}")],
    )
    await store.apply(changes, leader=fence)
    print(n, flush=True)

async def main():
    async with open_database(sys.argv[1]) as database:
        store = SqlPoolStore(database)
        fence = await store.lead("writer", 60)
        for start in range(0, 60000, 4):
            await asyncio.gather(*(write(store, fence, n) for n in range(start, start + 4)))

asyncio.run(main())
"""


@pytest.mark.parametrize("acknowledged_before_kill", [1, 37, 150])
async def test_what_was_acknowledged_survives_sigkill(store_url: str, acknowledged_before_kill: int) -> None:
    async with open_database(store_url) as database:
        await migrate(database, "ipam.migrations")
    writer = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, store_url, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[3]
    )
    assert writer.stdout is not None
    acknowledged: list[int] = []
    try:
        while len(acknowledged) < acknowledged_before_kill:
            acknowledged.append(int(await writer.stdout.readline()))
    finally:
        os.kill(writer.pid, signal.SIGKILL)
        await writer.wait()
    acknowledged.extend(int(line) for line in (await writer.stdout.read()).split(b"\n")[:-1])

    async with open_database(store_url) as database:
        stored = await SqlPoolStore(database).load()
    kept = {one.id for one in stored.instances}
    assert {f"i-{n}" for n in acknowledged} <= kept
    assert {intent.id for intent in stored.intents} == kept
    assert {len(one.interfaces[0].addresses) for one in stored.instances} == {20}
