"""Runs a fake cloud until it is told to stop."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import Any, TextIO

from lab.fake_cloud.server import Server, serve

_TOLD = ("account", "region", "vpcs", "subnets", "security_groups")


def ready_line(server: Server[Any], listening: str) -> dict[str, Any]:
    """What the first line of the output says."""
    endpoint = listening if listening.startswith("unix:") else f"http://{listening}"
    document = server.state()
    return {"ready": True, "listen": listening, "endpoint": endpoint, **{key: document[key] for key in _TOLD}}


async def run(server: Server[Any], listen: str, *, output: TextIO = sys.stdout) -> None:
    """Serves until SIGTERM or SIGINT. Prints the ready line, as JSON, when it listens. Raises OSError."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    runner, listening = await serve(server, listen)
    try:
        output.write(json.dumps(ready_line(server, listening)) + "\n")
        output.flush()
        await stop.wait()
    finally:
        await runner.cleanup()
