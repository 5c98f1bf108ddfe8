"""This node's ranges out of the cluster's: asked of the registry once, then kept, so that pods start without it.

The file `pod_cidrs.json` beside the journal is what the node goes by from then on. The registry keeps the ranges for
this node until it is deleted there; whoever empties the state folder gets the same ones again.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import grpc
import structlog

from ipam import ranges
from services.api.registry.v1 import registry_pb2, registry_pb2_grpc
from services.node.settings import Settings
from services.runtime.errors import RuntimeFault

FILE: Final = "pod_cidrs.json"
DEADLINE_S: Final = 5.0
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 15.0

_log = structlog.get_logger("ranges")


async def with_ranges(settings: Settings, connect: Callable[[], grpc.aio.Channel]) -> Settings:
    """The settings with the node's own ranges in them, where they said that the cluster gives these.

    Waits until the registry has given them. Raises RuntimeFault when what it kept or was given cannot be used.
    """
    if not settings.of_cluster:
        return settings
    path = settings.state_dir / FILE
    kept = await asyncio.to_thread(_read, path)
    if not kept:
        kept = await _ask(settings.name, connect)
        await asyncio.to_thread(_write, path, kept)
        _log.info("the registry gave ranges for pods", pod_cidrs=kept)
    try:
        texts = ranges.parse(kept, settings.pod_cidr6_size).texts
    except ValueError as error:
        raise RuntimeFault(
            "precondition", f"{', '.join(kept)} cannot be this node's ranges: {error}", field="pod_cidrs",
            remedy=f"correct the registry's cluster_cidrs and node prefixes, then remove {path}",
        ) from error  # fmt: skip
    return settings.model_copy(update={"pod_cidrs": list(texts)})


async def _ask(name: str, connect: Callable[[], grpc.aio.Channel]) -> list[str]:
    pause_s = FIRST_PAUSE_S
    while True:
        channel = connect()
        try:
            stub = registry_pb2_grpc.RegistryServiceStub(channel)
            answer = await stub.TakePodCidrs(registry_pb2.TakePodCidrsRequest(node=name), timeout=DEADLINE_S)
            return list(answer.pod_cidrs)
        except grpc.aio.AioRpcError as error:
            _log.warning("no ranges for pods yet", error=error.details(), code=error.code().name, again_in_s=pause_s)
        finally:
            await channel.close()
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _read(path: Path) -> list[str]:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return [str(text) for text in kept["pod_cidrs"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RuntimeFault(
            "precondition", f"{path} cannot be read: {error}", field="state_dir",
            remedy="remove it if no pod runs on this node; the registry then tells its ranges again",
        ) from error  # fmt: skip


def _write(path: Path, pod_cidrs: list[str]) -> None:
    """Durable before any pod has one of the addresses."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    with fresh.open("w", encoding="utf-8") as file:
        json.dump({"pod_cidrs": pod_cidrs}, file)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
