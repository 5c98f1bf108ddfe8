"""Builds a worker: budget and queue on Redis, the cloud's API, the IPAM service's journal, and the executor between."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from contextlib import closing

from ipam.executor import Executor
from services.runtime.client import sync_channel
from services.runtime.clock import SystemClock
from services.runtime.lifecycle import Lifecycle
from services.runtime.queue import celery_app, queue_name
from services.worker import tasks
from services.worker.budget import RedisBudget, connect
from services.worker.clients import GrpcJournal
from services.worker.consumer import CeleryRunner
from services.worker.metrics import WorkerMetrics
from services.worker.providers import provider
from services.worker.settings import Settings


async def build(settings: Settings, life: Lifecycle) -> None:
    metrics = WorkerMetrics()
    channel = await life.enter(sync_channel(settings.ipam, settings.tls, settings.identity))
    redis = await life.enter(closing(connect(settings.redis, connections=settings.threads)))
    name = f"{settings.cloud}:{settings.account}:{settings.region}"
    budget = RedisBudget(
        redis, name, settings.budget.limits(), fallback_share=settings.budget.fallback_share, observer=metrics
    )
    executor = Executor(
        provider(settings, metrics),
        budget,
        GrpcJournal(channel),
        SystemClock(),
        cluster=settings.cluster,
        interface_tags=settings.interface_tags,
        observe=metrics.mutated,
    )

    app = celery_app(settings.redis, queue_name(settings.cloud, settings.account, settings.region), consumer=True)
    tasks.register(app, executor, f"{socket.gethostname()}:{os.getpid()}", metrics)
    # Each task is logged by tasks.py, with its outcome; Celery's two lines around it add nothing.
    for logger in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    runner = await life.enter(CeleryRunner(app, threads=settings.threads))

    async def let_go() -> None:
        """Before the runner ends: who waits for the budget, or for a service that is gone, would hold it up."""
        budget.stop()
        asyncio.get_running_loop().call_later(settings.stop_grace_s / 3, channel.close)

    life.defer(let_go)
    life.spawn("queue", runner.ended)
