"""What happens around every gRPC handler: identity, rule, deadline, metrics, error details, an end when we stop."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any, Final, TypeAlias, cast

import grpc
import structlog
from google.rpc import status_pb2

from services.runtime import metrics
from services.runtime.errors import DETAILS_KEY, DomainError, RuntimeFault, to_rpc_status
from services.runtime.identity import Identity, NotAllowed, Rule

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

current_identity: ContextVar[Identity] = ContextVar("plimsoll_identity")

_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


class Stopping(RuntimeFault):
    """The server ends a stream because it stops; the client should connect again, perhaps elsewhere."""

    def __init__(self) -> None:
        super().__init__("unavailable", "the server is stopping", retry_after_s=1.0)


class Guard:
    """Wraps handlers. `identify` returns None for a caller that can't be told who it is."""

    def __init__(
        self,
        policy: Mapping[str, Rule],
        identify: Callable[[Context], Identity | None],
        call_limit_s: float,
    ) -> None:
        self._policy = policy
        self._identify = identify
        self._call_limit_s = call_limit_s
        self._streams: set[asyncio.Task[Any]] = set()
        self._stopping = False
        self._log = structlog.get_logger("server")

    def wrap(self, method: str, handler: Handler) -> Handler:
        """:param method: "/package.Service/Method"."""
        rule = self._policy.get(method) or self._policy.get(method.rpartition("/")[0] + "/*") or _nobody
        behaviour = _behaviour(handler)
        if inspect.isasyncgenfunction(behaviour):
            wrapped: Callable[..., Any] = self._generator(method, rule, behaviour)
        elif inspect.iscoroutinefunction(behaviour):
            wrapped = self._coroutine(method, rule, behaviour, streams=bool(handler.response_streaming))
        elif behaviour.__module__.endswith("_pb2_grpc"):
            wrapped = self._coroutine(method, rule, _unimplemented, streams=False)
        else:
            raise TypeError(f"{method}: handlers are `async def`, this one is {behaviour!r}")
        make = _MAKERS[bool(handler.request_streaming), bool(handler.response_streaming)]
        return cast(
            Handler,
            make(
                wrapped,
                request_deserializer=handler.request_deserializer,
                response_serializer=_passing_bytes(handler.response_serializer),
            ),
        )

    def stop(self) -> None:
        """Ends every open stream with UNAVAILABLE; calls under way are left to finish."""
        self._stopping = True
        for task in self._streams:
            task.cancel()

    def _coroutine(
        self, method: str, rule: Rule, behaviour: Callable[..., Awaitable[Any]], *, streams: bool
    ) -> Callable[..., Awaitable[Any]]:
        async def call(request: Any, context: Context) -> Any:
            async with _Observed(self, method, context, streams):
                self._admit(rule, method, context)
                if streams:
                    return await behaviour(request, context)
                async with asyncio.timeout(self._call_limit_s):
                    return await behaviour(request, context)

        return call

    def _generator(
        self, method: str, rule: Rule, behaviour: Callable[..., AsyncIterator[Any]]
    ) -> Callable[..., AsyncIterator[Any]]:
        async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
            async with _Observed(self, method, context, True):
                self._admit(rule, method, context)
                async with aclosing(cast(Any, behaviour(request, context))) as messages:
                    async for message in messages:
                        yield message

        return stream

    def _admit(self, rule: Rule, method: str, context: Context) -> None:
        identity = self._identify(context)
        if identity is None:
            self._log.warning("refused a caller without a name in our trust domain", method=method, peer=context.peer())
            raise NotAllowed("the certificate names no service or node of this trust domain")
        if not rule(identity):
            self._log.warning("refused a call", method=method, caller=str(identity))
            raise NotAllowed(f"{identity} may not call {method.rpartition('/')[2]}")
        current_identity.set(identity)


class _Observed:
    """Around one call: counts it, and turns what it raises into a status."""

    __slots__ = ("_began", "_context", "_guard", "_method", "_streams", "_task")

    def __init__(self, guard: Guard, method: str, context: Context, streams: bool) -> None:
        self._guard = guard
        self._method = method
        self._context = context
        self._streams = streams
        self._began = 0.0
        self._task: asyncio.Task[Any] | None = None

    async def __aenter__(self) -> None:
        self._began = time.perf_counter()
        if self._streams:
            self._task = asyncio.current_task()
            if self._task is not None:
                self._guard._streams.add(self._task)
            metrics.GRPC_STREAMS.labels(self._method).inc()

    async def __aexit__(self, kind: object, exc: BaseException | None, traceback: object) -> bool:
        guard = self._guard
        if self._streams:
            if self._task is not None:
                guard._streams.discard(self._task)
            metrics.GRPC_STREAMS.labels(self._method).dec()
        if exc is None:
            code = _CODES.get(_number(self._context.code()), grpc.StatusCode.OK)
        elif isinstance(exc, grpc.aio.AbortError):
            code = _CODES.get(_number(self._context.code()), grpc.StatusCode.UNKNOWN)
        elif isinstance(exc, asyncio.CancelledError | GeneratorExit) and not (self._streams and guard._stopping):
            code = grpc.StatusCode.CANCELLED
        else:
            if isinstance(exc, asyncio.CancelledError | GeneratorExit):
                if self._task is not None:
                    self._task.uncancel()
                exc = Stopping()
            status = to_rpc_status(exc)
            code = _CODES[status.code]
            self._observe(code)
            if not isinstance(exc, DomainError | TimeoutError | grpc.RpcError | NotImplementedError):
                guard._log.error("handler failed", method=self._method, exc_info=exc)
            await self._context.abort(code, status.message, trailing_metadata(exc, status))
        self._observe(code)
        return False

    def _observe(self, code: grpc.StatusCode) -> None:
        metrics.GRPC_CALLS.labels(self._method, code.name).inc()
        if not self._streams:
            metrics.GRPC_SECONDS.labels(self._method).observe(time.perf_counter() - self._began)


def trailing_metadata(exc: BaseException, status: status_pb2.Status) -> tuple[tuple[str, str | bytes], ...]:
    """Trailers that carry the details. They also tell the client's transport not to repeat a call that we answered:
    only the caller knows what to make of the answer."""
    details = ((DETAILS_KEY, status.SerializeToString()),)
    if isinstance(exc, Stopping):
        return details
    return (*details, ("grpc-retry-pushback-ms", "-1"))


_MAKERS: Final[Mapping[tuple[bool, bool], Callable[..., Any]]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def _behaviour(handler: Handler) -> Callable[..., Any]:
    found = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    if found is None:
        raise TypeError("a method handler without behaviour")
    return found


def _passing_bytes(serialize: Callable[[Any], bytes] | None) -> Callable[[Any], bytes] | None:
    if serialize is None:
        return None
    return lambda message: message if type(message) is bytes else serialize(message)


def _number(code: Any) -> int:
    if isinstance(code, grpc.StatusCode):
        return int(code.value[0])
    return int(code or 0)


async def _unimplemented(_request: Any, _context: Context) -> None:
    # Raised, not aborted here: a call is counted before its answer leaves, so that who hears it finds it counted.
    raise NotImplementedError("this server does not offer the call")


def _nobody(_identity: Identity) -> bool:
    return False
