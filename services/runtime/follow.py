"""The client side of a watch stream: stays connected, resumes where it stood, acknowledges what it applied."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, NoReturn, Protocol, TypeVar

import grpc
import structlog

from services.api.watch.v1 import watch_pb2
from services.runtime.batch import START, Batch, Position
from services.runtime.errors import describe

K = TypeVar("K")
M = TypeVar("M")


class Message(Protocol):
    """What a watch stream answers: any message with the common header."""

    @property
    def header(self) -> watch_pb2.Header: ...


Request = TypeVar("Request")
Response = TypeVar("Response", bound=Message)
RequestIn = TypeVar("RequestIn", contravariant=True)
ResponseOut = TypeVar("ResponseOut", covariant=True)


class Call(Protocol[RequestIn, ResponseOut]):
    """A bidirectional call of grpc.aio, as far as it is needed here."""

    def __aiter__(self) -> AsyncIterator[ResponseOut]: ...
    async def write(self, request: RequestIn) -> None: ...
    def cancel(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class FollowState:
    """How a stream is doing, for people and metrics. `since_unix_s` is when `connected` last changed."""

    connected: bool = False
    since_unix_s: float = field(default_factory=time.time)
    last_error: str = ""


class _NotOpenedError(Exception):
    """The stream could not even be asked for, for lack of certificates, say."""


class Follower(Generic[Request, Response]):
    """Follows one watch stream for as long as `run` runs.

    :param open_stream: makes the call and writes its first request, which carries the position to resume from.
    :param apply: brings a message into force and returns what failed, by key. Messages come in order, one at a time.
        If it raises, the message is not acknowledged and the stream is opened again from the last position.
    :param ack: wraps an acknowledgement into a request.
    :param on_state: told of each connect and disconnect.
    :param backoff_s: (first, longest) pause between attempts; each pause is drawn from zero to the current limit.
    """

    def __init__(
        self,
        name: str,
        open_stream: Callable[[Position], Awaitable[Call[Request, Response]]],
        apply: Callable[[Response], Awaitable[Mapping[str, str] | None]],
        ack: Callable[[watch_pb2.Ack], Request] | None,
        *,
        position: Position = START,
        on_state: Callable[[FollowState], None] | None = None,
        backoff_s: tuple[float, float] = (0.2, 10.0),
    ) -> None:
        self.name = name
        self.position = position
        self.state = FollowState()
        self._open_stream = open_stream
        self._apply = apply
        self._ack = ack
        self._on_state = on_state
        self._backoff_s = backoff_s
        self._call: Call[Request, Response] | None = None
        # grpc.aio allows one write at a time.
        self._writing = asyncio.Lock()
        self._log = structlog.get_logger("follow").bind(stream=name)

    async def run(self) -> NoReturn:
        """Runs until it is cancelled."""
        limit_s = self._backoff_s[0]
        while True:
            heard = False
            error = "the server ended the stream"
            try:
                async for _ in self._follow_once():
                    heard = True
            except asyncio.CancelledError:
                # grpc.aio raises it too when only the call was cancelled, as by the closing of its channel.
                if _being_cancelled():
                    raise
                error = "the stream was cut on this side"
            except (grpc.RpcError, OSError, _NotOpenedError) as exc:
                error = str(exc) if isinstance(exc, _NotOpenedError) else describe(exc)
            except Exception as exc:  # noqa: BLE001 - one message must not end the stream for good
                error = describe(exc)
                self._log.exception("watch message could not be applied")
            self._set_state(connected=False, error=error)
            limit_s = self._backoff_s[0] if heard else min(limit_s * 2, self._backoff_s[1])
            await asyncio.sleep(random.uniform(0, limit_s))  # noqa: S311 - jitter, not a secret

    async def send(self, request: Request) -> bool:
        """Writes a request on the stream that is open now. False: there is none, or it just broke."""
        call = self._call
        if call is None:
            return False
        try:
            async with self._writing:
                await call.write(request)
        except asyncio.CancelledError:
            if _being_cancelled():
                raise
            return False
        except (grpc.RpcError, asyncio.InvalidStateError):
            return False
        return True

    async def _follow_once(self) -> AsyncIterator[None]:
        try:
            call = await self._open_stream(self.position)
        except (grpc.RpcError, OSError):
            raise
        except Exception as exc:
            raise _NotOpenedError(describe(exc)) from exc
        self._call = call
        try:
            async for response in call:
                if not self.state.connected:
                    self._set_state(connected=True, error="")
                errors = await self._apply(response)
                header = response.header
                if header.complete and header.position.epoch:
                    self.position = Position.from_proto(header.position)
                if self._ack is not None:
                    failed = [watch_pb2.ObjectError(key=key, reason=why) for key, why in (errors or {}).items()]
                    await self.send(self._ack(watch_pb2.Ack(position=header.position, errors=failed)))
                yield
        finally:
            self._call = None
            call.cancel()

    def _set_state(self, *, connected: bool, error: str) -> None:
        since = self.state.since_unix_s if connected == self.state.connected else time.time()
        if connected != self.state.connected or error != self.state.last_error:
            self._log.info("watch stream connected" if connected else "watch stream down", error=error or None)
        self.state = FollowState(connected, since, error)
        if self._on_state is not None:
            self._on_state(self.state)


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def follow(
    name: str,
    open_stream: Callable[[Position], Awaitable[Call[Request, Response]]],
    apply: Callable[[Response], Awaitable[Mapping[str, str] | None]],
    ack: Callable[[watch_pb2.Ack], Request] | None = None,
    *,
    position: Position = START,
    on_state: Callable[[FollowState], None] | None = None,
) -> NoReturn:
    """Follows a stream until cancelled; see `Follower`, which also lets others write on the stream."""
    await Follower(name, open_stream, apply, ack, position=position, on_state=on_state).run()


class Mirror(Generic[K, M]):
    """A copy of a topic's state, kept by applying batches in order.

    `state` changes at once when a snapshot completes: what the snapshot did not name disappears then, not before.
    """

    def __init__(self) -> None:
        self.state: dict[K, M] = {}
        self.position = START
        self._building: dict[K, M] | None = None

    def apply(self, header: watch_pb2.Header, upserts: Mapping[K, M], deletes: Iterable[K]) -> None:
        if header.snapshot:
            self._building = {}
        target = self.state if self._building is None else self._building
        target.update(upserts)
        for key in deletes:
            target.pop(key, None)
        if header.complete:
            if self._building is not None:
                self.state, self._building = self._building, None
            self.position = Position.from_proto(header.position)

    def apply_batch(self: Mirror[str, M], batch: Batch[M]) -> None:
        """Applies a batch that came without a wire between."""
        self.apply(batch.header(), dict(zip(batch.keys, batch.upserts, strict=True)), batch.deletes)
