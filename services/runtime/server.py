"""A gRPC server: mutual TLS on TCP, file permissions on a Unix socket, default deny.

    server = GrpcServer(settings, policy={"/plimsoll.registry.v1.RegistryService/Watch": allow(nodes=True)})
    server.add(add_RegistryServiceServicer_to_server, handlers, "plimsoll.registry.v1.RegistryService")
    await life.enter(server)

Every method that is added gets its rule, its deadline, its metrics, and its errors mapped to google.rpc details.
A streaming handler may yield bytes instead of messages: what is already encoded is sent as it is.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol, Self, cast

import grpc
import structlog
from google.protobuf import descriptor_pool
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from services.runtime import tracing
from services.runtime.addresses import parse_listen
from services.runtime.errors import RuntimeFault
from services.runtime.guard import Guard, Handler, current_identity
from services.runtime.identity import LOCAL, Identity, Rule, allow, identify, require_node
from services.runtime.settings import ServiceSettings
from services.runtime.tls import TlsFiles, server_credentials

__all__ = ["LOCAL", "GrpcServer", "Identity", "Rule", "allow", "identity", "require_node"]

# Larger than the largest snapshot batch or inventory page, small enough to bound what one peer can make us hold.
MAX_MESSAGE_BYTES: Final = 64 << 20
SOCKET_MODE: Final = 0o660

_HEALTH: Final = health.SERVICE_NAME

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Its notes on each connection are for a service that we do not offer.
    ("grpc.enable_channelz", 0),
    # Else a second server binds the same port and takes half of the calls.
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Once a day every peer proves again who it is; a stream that is cut for it resumes where it stood.
    ("grpc.max_connection_age_ms", 24 * 3600 * 1000),
    ("grpc.max_connection_age_grace_ms", 60_000),
    # Clients ping every 20 s, also while idle; the default would cut them off.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
)


class ListenError(RuntimeFault):
    """The server can't listen where it should."""

    def __init__(self, address: str, field: str, why: str) -> None:
        remedy = f"Stop what listens there, or choose another `{field}`."
        super().__init__("precondition", f"can't listen on {address}: {why}", field=field, remedy=remedy)


class AddFunction(Protocol):
    """add_<Service>Servicer_to_server of generated code."""

    def __call__(self, servicer: Any, server: Any, /) -> None: ...


def identity(context: grpc.ServicerContext | grpc.aio.ServicerContext[Any, Any]) -> Identity:
    """Who makes this call. Only inside a handler."""
    found: Identity | None = getattr(context, "plimsoll_identity", None) or current_identity.get(None)
    if found is None:
        raise LookupError("not inside a call")
    return found


class GrpcServer:
    """One server on `settings.listen` and `settings.socket`. Enter it to bind and start.

    :param policy: rules by "/package.Service/Method" or "/package.Service/*"; what has none is refused.
    :param call_limit_s: a call that is not a stream is ended after this time, whatever deadline its client set.
    :param stop_grace_s: how long calls under way may take when the server stops; streams end at once.
    :param record_bytes: a TLS record of ours at most, 1,024 to 16,384. Each connection keeps a buffer of this size.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        *,
        policy: Mapping[str, Rule],
        call_limit_s: float = 60.0,
        stop_grace_s: float = 1.0,
        record_bytes: int = 16_384,
    ) -> None:
        self.listening: list[str] = []
        self.tcp_port: int | None = None
        self._settings = settings
        self._stop_grace_s = stop_grace_s
        self._policy = policy
        self._options = (*_OPTIONS, ("grpc.tsi.max_frame_size", record_bytes))
        # Whoever has an identity at all may ask whether the server is well and what it offers.
        open_to_all = dict.fromkeys((f"/{_HEALTH}/*", f"/{reflection.SERVICE_NAME}/*"), _anybody)
        self._guard = Guard({**open_to_all, **policy}, self._identify, call_limit_s)
        self._services: list[str] = []
        self._recorder = _Recorder()
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        self._server: grpc.aio.Server | None = None
        self._socket_made: os.stat_result | None = None
        self._log = structlog.get_logger("server")

    def add(self, add_fn: AddFunction, servicer: Any, service: str) -> None:
        """Serves `servicer` through the generated `add_fn`. Before entering only.

        :param service: full name, such as "plimsoll.registry.v1.RegistryService".
        """
        add_fn(servicer, self._recorder)
        if service not in self._recorder.methods:
            raise ValueError(f"{service} is not what was added: {sorted(self._recorder.methods)}")
        self._services.append(service)

    async def set_serving(self, serving: bool = True) -> None:
        """What the health service answers, for the server as a whole and for each of its services."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in ("", *self._services):
            await self._health.set(service, status)

    async def __aenter__(self) -> Self:
        await self.set_serving(False)
        self._check_policy()
        server = self._server = grpc.aio.server(interceptors=tracing.server_interceptors(), options=self._options)
        names = [*self._services, _HEALTH, reflection.SERVICE_NAME]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, cast(Any, self._recorder))
        pool = descriptor_pool.Default()
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(
            reflection.aio.ReflectionServicer(names, pool=pool), self._recorder
        )
        for service, methods in self._recorder.methods.items():
            wrapped = {name: self._guard.wrap(f"/{service}/{name}", handler) for name, handler in methods.items()}
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, wrapped),))
            server.add_registered_method_handlers(service, wrapped)
        try:
            self._bind(server)
            await server.start()
        except BaseException:
            await server.stop(None)
            self._remove_socket()
            raise
        if self.listening:
            self._log.info("listening", on=self.listening)
        else:
            self._log.warning("listening nowhere", remedy="set `listen`, `socket` or both")
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.set_serving(False)
        self._guard.stop()
        if self._server is not None:
            await self._server.stop(self._stop_grace_s)
        self._remove_socket()

    def _identify(self, context: grpc.aio.ServicerContext[Any, Any]) -> Identity | None:
        settings = self._settings
        plain = settings.tls is None and settings.insecure_loopback
        return identify(context, settings.trust_domain, plain_is_local=plain)

    def _check_policy(self) -> None:
        """A rule for what is not served is a typing error that would leave a method without its rule."""
        served = {f"/{service}/{name}" for service, names in self._recorder.methods.items() for name in names}
        served |= {f"/{service}/*" for service in self._recorder.methods}
        unknown = sorted(set(self._policy) - served)
        if unknown:
            raise ValueError(f"the policy names what is not served: {', '.join(unknown)}")

    def _bind(self, server: grpc.aio.Server) -> None:
        settings = self._settings
        if settings.socket is not None:
            self._bind_socket(server, settings.socket)
        if not settings.listen:
            return
        host, _ = cast("tuple[str, int]", parse_listen(settings.listen))
        try:
            if settings.tls is None:
                port = server.add_insecure_port(settings.listen)
            else:
                files = TlsFiles(settings.tls.ca, settings.tls.certificate, settings.tls.key)
                port = server.add_secure_port(settings.listen, server_credentials(files))
        except RuntimeError as exc:
            raise ListenError(settings.listen, "listen", "the address is in use, or is none of this machine's") from exc
        self.tcp_port = port
        self.listening.append(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")

    def _bind_socket(self, server: grpc.aio.Server, path: Path) -> None:
        if _answers(path):
            raise ListenError(str(path), "socket", "another process serves this socket")
        # Without this mask anybody could connect between bind and chmod.
        before = os.umask(0o777 & ~SOCKET_MODE)
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
            server.add_insecure_port(f"unix:{path}")
        except (RuntimeError, OSError) as exc:
            raise ListenError(str(path), "socket", "the folder is missing or not writable") from exc
        finally:
            os.umask(before)
        path.chmod(SOCKET_MODE)
        self._socket_made = path.stat()
        self.listening.append(f"unix:{path}")

    def _remove_socket(self) -> None:
        """Removes our socket, unless somebody has put another one in its place."""
        path, made, self._socket_made = self._settings.socket, self._socket_made, None
        if path is None or made is None:
            return
        with contextlib.suppress(OSError):
            now = path.stat()
            if (now.st_dev, now.st_ino) == (made.st_dev, made.st_ino):
                path.unlink()


class _Recorder:
    """Takes handlers from generated code in place of a server, so that they can be wrapped first."""

    def __init__(self) -> None:
        self.methods: dict[str, Mapping[str, Handler]] = {}

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """The same handlers come again, by name, in the call below."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        self.methods[service] = handlers


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def _anybody(_identity: Identity) -> bool:
    return True
