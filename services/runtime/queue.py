"""The queue of cloud work: Celery on Redis, one queue per cloud account.

A message carries an intent's id and nothing else; whoever takes it reads the intent anew, so a message may be lost,
doubled or late. What makes that safe is the intent's journal and the sweeper behind it, not the queue.

    publisher (a central service)                         consumer (services.worker)
    CeleryQueue.enqueue ── thread ──▶ Redis list ──────▶ Celery worker, threads pool ──▶ "plimsoll.perform"
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Self
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import structlog
from celery import Celery
from kombu import Exchange, Queue
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from ipam.errors import Unavailable
from services.runtime import tracing

log = structlog.get_logger(__name__)

PERFORM_TASK: Final = "plimsoll.perform"
PRIORITIES: Final = 10
# Longer than any task: an intent's lease ends long before, so a redelivered message then finds nothing to take.
VISIBILITY_TIMEOUT_S: Final = 600
# Longer delays are left to the sweeper, which looks at what is due anyhow.
HELD_DELAY_S: Final = 60.0

_CONNECT_TIMEOUT_S: Final = 0.5
_PUBLISH_TIMEOUT_S: Final = 1.0
_CONSUME_TIMEOUT_S: Final = 30.0
_CIRCUIT_BASE_S: Final = 0.25
_CIRCUIT_CAP_S: Final = 2.0


def queue_name(cloud: str, account: str, region: str) -> str:
    """Name of the queue of one cloud account and region: "cloud.aws.123456789012.eu-west-1"."""
    return f"cloud.{cloud}.{account}.{region}"


def broker_url(redis_url: str) -> str:
    """Celery's spelling of a Redis URL: "unix:///path?db=1" is "redis+socket:///path?virtual_host=1" there."""
    parts = urlsplit(redis_url)
    if parts.scheme != "unix":
        return redis_url
    query = {("virtual_host" if name == "db" else name): value for name, value in parse_qsl(parts.query)}
    # Celery takes these from before the path only, where redis-py takes them from there and from the query.
    user = query.pop("username", "") or unquote(parts.username or "")
    password = query.pop("password", "") or unquote(parts.password or "")
    login = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user or password else ""
    return f"redis+socket://{login}{parts.path}" + (f"?{urlencode(query)}" if query else "")


def celery_app(redis_url: str, queue: str, *, consumer: bool = False) -> Celery:
    """A Celery application for one queue. `consumer` chooses its patience: publishing fails fast."""
    patience: dict[str, object] = {"socket_timeout": _CONSUME_TIMEOUT_S}
    if not consumer:
        patience = {"socket_timeout": _PUBLISH_TIMEOUT_S, "max_retries": 1, "interval_start": 0, "interval_step": 0}
    app = Celery("plimsoll", set_as_current=False)
    app.conf.update(
        broker_url=broker_url(redis_url),
        broker_transport_options={
            "visibility_timeout": VISIBILITY_TIMEOUT_S,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
            "queue_order_strategy": "priority",
            "priority_steps": list(range(PRIORITIES)),
            "socket_connect_timeout": _CONNECT_TIMEOUT_S,
            "retry_on_timeout": False,
            **patience,
        },
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # The default exchange needs no binding. A binding would be lost with Redis, and messages with it, unseen.
        task_queues=[Queue(queue, Exchange("", type="direct"), routing_key=queue)],
        task_default_queue=queue,
        task_create_missing_queues=False,
        task_ignore_result=True,
        task_publish_retry=False,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_serializer="json",
        accept_content=["json"],
        result_accept_content=["json"],
        worker_pool="threads",
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        enable_utc=True,
    )
    return app


class CeleryQueue:
    """Implements ipam.ports.Queue. Use as an async context manager.

    Publishing blocks, so one thread does it. After a failure the circuit stays open for a moment, so that a Redis that
    is gone costs callers nothing but an exception.
    """

    def __init__(
        self, app: Celery, *, task: str = PERFORM_TASK, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._app = app
        self._task = task
        self._monotonic = monotonic
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="publish")
        self._failures = 0
        self._open_until = 0.0
        self._held: dict[str, asyncio.TimerHandle] = {}
        self._sending: set[asyncio.Task[None]] = set()

    async def enqueue(self, intent_id: str, *, delay_s: float = 0.0, priority: int = 0) -> None:
        """Publishes now, or holds the id for `delay_s` and then publishes. Raises Unavailable when Redis is away.

        A delay beyond HELD_DELAY_S, and what is held when the process ends, is left to the sweeper.
        """
        if not 0 <= priority < PRIORITIES:
            raise ValueError(f"priority is {priority}; it must be 0 (most urgent) to {PRIORITIES - 1}")
        if delay_s > 0:
            self._hold(intent_id, delay_s, priority)
            return
        self._check_circuit()
        in_context = contextvars.copy_context().run  # so that the thread goes on with the caller's trace
        await asyncio.get_running_loop().run_in_executor(self._thread, in_context, self._publish, intent_id, priority)

    @property
    def failing(self) -> bool:
        """True from a failed publishing until the next that succeeds."""
        return self._failures > 0

    def _hold(self, intent_id: str, delay_s: float, priority: int) -> None:
        if delay_s > HELD_DELAY_S:
            return
        if (earlier := self._held.pop(intent_id, None)) is not None:
            earlier.cancel()
        self._held[intent_id] = asyncio.get_running_loop().call_later(delay_s, self._release, intent_id, priority)

    def _release(self, intent_id: str, priority: int) -> None:
        self._held.pop(intent_id, None)
        sending = asyncio.ensure_future(self._send_held(intent_id, priority))
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)

    async def _send_held(self, intent_id: str, priority: int) -> None:
        try:
            await self.enqueue(intent_id, priority=priority)
        except Unavailable as error:
            log.warning("left to the sweeper", intent=intent_id, reason=error.message)

    def _check_circuit(self) -> None:
        left_s = self._open_until - self._monotonic()
        if left_s > 0:
            raise Unavailable(
                "the queue's Redis did not answer a moment ago",
                operation="publish",
                remedy="nothing is lost: the sweeper enqueues open intents again once Redis is back",
                retry_after_s=left_s,
            )

    def _publish(self, intent_id: str, priority: int) -> None:
        """Runs in the publishing thread."""
        self._check_circuit()
        try:
            with tracing.producing(f"publish {self._task}", intent=intent_id, priority=priority) as headers:
                self._app.send_task(self._task, args=(intent_id,), priority=priority, retry=False, headers=headers)
        except (OperationalError, RedisError, OSError) as error:
            self._failures += 1
            pause_s = min(_CIRCUIT_CAP_S, _CIRCUIT_BASE_S * 2 ** (self._failures - 1))
            self._open_until = self._monotonic() + pause_s
            raise Unavailable(
                f"the queue's Redis does not answer: {error}",
                operation="publish",
                remedy="start Redis; nothing is lost, the sweeper enqueues open intents again",
                retry_after_s=pause_s,
            ) from error
        self._failures = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: Any) -> None:
        for timer in self._held.values():
            timer.cancel()
        self._held.clear()
        for sending in self._sending:
            sending.cancel()
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._thread.shutdown(cancel_futures=True)
        self._app.close()


__all__ = ["PERFORM_TASK", "VISIBILITY_TIMEOUT_S", "CeleryQueue", "broker_url", "celery_app", "queue_name"]
