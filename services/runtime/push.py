"""Sends what a subscription has, in a task that lives only while there is something to send.

A stream that waits in a task of its own holds 2 KB more, and a service has one for each of thousands of nodes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from services.runtime.watch import Subscription


class Push:
    """:param send: of one batch, encoded. Never called before it has returned. It raises once the peer is gone.
    :param ended: called once the subscription is closed, the peer is gone, or a batch can't be encoded.
    :ivar error: why a batch can't be encoded.
    """

    __slots__ = ("_ended", "_send", "_stopped", "_subscription", "_task", "error")

    def __init__(
        self, subscription: Subscription[Any], send: Callable[[bytes], Awaitable[None]], ended: Callable[[], object]
    ) -> None:
        self.error: Exception | None = None
        self._subscription = subscription
        self._send = send
        self._ended = ended
        self._stopped = False
        self._task: asyncio.Task[None] | None = None
        subscription.on_news = self._go
        self._go()

    def stop(self) -> None:
        """Nothing is sent any more."""
        self._stopped = True
        self._subscription.on_news = None
        if self._task is not None:
            self._task.cancel()

    def _go(self) -> None:
        if self._task is None and not self._stopped:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        subscription, over = self._subscription, False
        try:
            while not over and (batch := subscription.take()) is not None:
                over = not await self._sent(subscription.encode(batch))
        except Exception as error:  # noqa: BLE001 - whoever has the stream raises it
            self.error = error
        finally:
            # Nothing is awaited since `take` had nothing, so no news is lost.
            self._task = None
        if (over or subscription.closed or self.error is not None) and not self._stopped:
            self._stopped = True
            self._ended()

    async def _sent(self, wire: bytes) -> bool:
        try:
            await self._send(wire)
        except Exception:  # noqa: BLE001 - whatever says so, the peer takes no more
            return False
        return True


__all__ = ["Push"]
