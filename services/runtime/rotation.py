"""Channels that follow their certificates: a call made after a rotation uses a connection with the new ones.

gRPC reads a client's certificate once, when its channel is made. These channels look at the files before each call
(three stat calls, some microseconds) and make a new channel underneath when they changed. Streams that are open go on
with the old one.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import grpc

from services.runtime.tls import Material, TlsFiles

C = TypeVar("C")

# The connections of one rotation ago may carry streams; what is older is closed.
_OLD_CHANNELS = 1


class _Rotation(Generic[C]):
    """The channel of now, and those before it that may still carry streams."""

    def __init__(self, files: TlsFiles, make: Callable[[Material], C], retire: Callable[[C], None]) -> None:
        self._files = files
        self._make = make
        self._retire = retire
        self._material = files.current()
        self._lock = threading.Lock()
        self.channels = [make(self._material)]

    def current(self) -> C:
        material = self._files.current()
        if material is not self._material:
            with self._lock:
                self._rotate(material)
        return self.channels[-1]

    def _rotate(self, material: Material) -> None:
        if material is self._material:
            return
        self.channels.append(self._make(material))
        self._material = material
        while len(self.channels) > 1 + _OLD_CHANNELS:
            self._retire(self.channels.pop(0))


class _Method(Generic[C]):
    """One method of a stub; finds the channel of now at each call."""

    def __init__(self, rotation: _Rotation[C], kind: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        self._rotation = rotation
        self._kind = kind
        self._arguments = arguments
        self._options = options
        self._made_for: C | None = None
        self._callable: Any = None

    def _now(self) -> Any:
        channel = self._rotation.current()
        if channel is not self._made_for:
            # A thread that comes between makes the same once more, which does no harm.
            self._callable = getattr(channel, self._kind)(*self._arguments, **self._options)
            self._made_for = channel
        return self._callable

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._now()(*arguments, **options)

    def future(self, *arguments: Any, **options: Any) -> Any:
        return self._now().future(*arguments, **options)

    def with_call(self, *arguments: Any, **options: Any) -> Any:
        return self._now().with_call(*arguments, **options)


class RotatingAioChannel(grpc.aio.Channel):
    """For asyncio."""

    def __init__(self, files: TlsFiles, make: Callable[[Material], grpc.aio.Channel]) -> None:
        self._closing: set[asyncio.Task[None]] = set()
        self._rotation = _Rotation(files, make, self._close_later)

    def unary_unary(self, *arguments: Any, **options: Any) -> Any:
        return _Method(self._rotation, "unary_unary", arguments, options)

    def unary_stream(self, *arguments: Any, **options: Any) -> Any:
        return _Method(self._rotation, "unary_stream", arguments, options)

    def stream_unary(self, *arguments: Any, **options: Any) -> Any:
        return _Method(self._rotation, "stream_unary", arguments, options)

    def stream_stream(self, *arguments: Any, **options: Any) -> Any:
        return _Method(self._rotation, "stream_stream", arguments, options)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._rotation.current().get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._rotation.current().wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._rotation.current().channel_ready()

    async def close(self, grace: float | None = None) -> None:
        for channel in self._rotation.channels:
            await channel.close(grace)
        await asyncio.gather(*self._closing)

    async def __aenter__(self) -> RotatingAioChannel:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def _close_later(self, channel: grpc.aio.Channel) -> None:
        task = asyncio.ensure_future(channel.close(1.0))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


class RotatingChannel(grpc.Channel):
    """For threads."""

    def __init__(self, files: TlsFiles, make: Callable[[Material], grpc.Channel]) -> None:
        self._rotation: _Rotation[grpc.Channel] = _Rotation(files, make, lambda channel: channel.close())

    def unary_unary(self, *arguments: Any, **options: Any) -> Any:
        return _Method(self._rotation, "unary_unary", arguments, options)

    def unary_stream(self, *arguments: Any, **options: Any) -> Any:
        return _Method(self._rotation, "unary_stream", arguments, options)

    def stream_unary(self, *arguments: Any, **options: Any) -> Any:
        return _Method(self._rotation, "stream_unary", arguments, options)

    def stream_stream(self, *arguments: Any, **options: Any) -> Any:
        return _Method(self._rotation, "stream_stream", arguments, options)

    def subscribe(self, callback: Any, try_to_connect: bool = False) -> None:
        self._rotation.current().subscribe(callback, try_to_connect)

    def unsubscribe(self, callback: Any) -> None:
        self._rotation.current().unsubscribe(callback)

    def close(self) -> None:
        for channel in self._rotation.channels:
            channel.close()

    def __enter__(self) -> RotatingChannel:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
