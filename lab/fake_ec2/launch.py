"""Runs a fake EC2 until it is told to stop."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from functools import partial
from typing import Any, TextIO

from lab.fake_ec2 import state
from lab.fake_ec2.app import Server, serve
from lab.fake_ec2.cloud import Cloud
from lab.fake_ec2.seed import Seed, plant


def ready_line(cloud: Cloud, listening: str) -> dict[str, Any]:
    """What the first line of the output says."""
    endpoint = listening if listening.startswith("unix:") else f"http://{listening}"
    document = state.document(cloud)
    told = ("account", "region", "vpcs", "subnets", "security_groups")
    return {"ready": True, "listen": listening, "endpoint": endpoint, **{key: document[key] for key in told}}


def make_cloud(seed: Seed, chance: int | None = None) -> Cloud:
    """A cloud with the seed's network. Raises BadSeed."""
    cloud = Cloud(account=seed.account, region=seed.region, seed=chance)
    plant(cloud, seed)
    return cloud


async def run(seed: Seed, listen: str, *, chance: int | None = None, output: TextIO = sys.stdout) -> None:
    """Serves until SIGTERM or SIGINT. Prints the ready line, as JSON, when it listens. Raises BadSeed, OSError."""
    server = Server(partial(make_cloud, seed, chance))
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    runner, listening = await serve(server, listen)
    try:
        output.write(json.dumps(ready_line(server.cloud, listening)) + "\n")
        output.flush()
        await stop.wait()
    finally:
        await runner.cleanup()
