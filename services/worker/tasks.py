"""The one task: perform an intent. It holds no state, and may be run twice, late, or never."""

from __future__ import annotations

import time
from typing import Any, Protocol

import structlog
from celery import Celery

from ipam.errors import IpamError
from ipam.model import Done, GiveUp, Outcome, Retry
from services.runtime import tracing
from services.runtime.queue import PERFORM_TASK
from services.worker.metrics import WorkerMetrics

log = structlog.get_logger(__name__)


class Performer(Protocol):
    """ipam.executor.Executor, as far as a task knows it."""

    def perform(self, intent_id: str, holder: str) -> Outcome | None: ...


def register(app: Celery, performer: Performer, holder: str, metrics: WorkerMetrics) -> None:
    """Makes `app` perform what it takes from the queue. `holder` names this worker to the service."""

    @app.task(name=PERFORM_TASK, bind=True, ignore_result=True, shared=False)
    def perform(task: Any, intent_id: str) -> None:
        # Celery makes the message's headers attributes of the request.
        with tracing.consuming(PERFORM_TASK, vars(task.request), intent=intent_id):
            follow(intent_id)

    def follow(intent_id: str) -> None:
        started = time.monotonic()
        try:
            outcome = performer.perform(intent_id, holder)
        except IpamError as error:
            # The intent stays open: its lease lapses, and the sweeper hands it out again.
            metrics.performed("failed", time.monotonic() - started)
            log.warning("intent left to the sweeper", intent=intent_id, reason=error.message)
            return
        taken_s = time.monotonic() - started
        match outcome:
            case Done():
                metrics.performed("done", taken_s)
                log.info("intent done", intent=intent_id, taken_s=round(taken_s, 3))
            case Retry(after_s, why, underway, no_turn):
                metrics.performed("underway" if underway else "no-turn" if no_turn else "retry", taken_s)
                log.info("intent to be retried", intent=intent_id, after_s=after_s, why=why)
            case GiveUp(why):
                metrics.performed("give-up", taken_s)
                log.warning("intent given up", intent=intent_id, why=why)
            case None:
                log.debug("nothing to do", intent=intent_id)
