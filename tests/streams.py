"""Reading streams of gRPC."""

from __future__ import annotations

from typing import Any, TypeVar

import grpc

Message = TypeVar("Message")


async def read(
    call: grpc.aio.UnaryStreamCall[Any, Message] | grpc.aio.StreamStreamCall[Any, Message], kind: type[Message]
) -> Message:
    """The next message of a stream, which must not have ended."""
    message = await call.read()
    assert isinstance(message, kind), f"the stream ended: {message}"
    return message
