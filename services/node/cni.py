"""The socket that the CNI plugin asks. Threads, not the event loop: a request is a chain of short blocking calls.

Every thread waits in accept() itself, so a request is begun by the thread that the kernel wakes, with no hand-over.
Wire format: docs/cni.md.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Final

import msgspec
import structlog

from datapath.errors import DatapathError, DeviceTaken, InvalidEndpoint, NamespaceGone, NotWired
from ipam.errors import IpamError, NotFound, PoolEmpty, StoreError
from ipam.local import LocalPool
from services.node import cni_request, cni_result
from services.node.cni_request import SUPPORTED, CniError, CniRequest
from services.node.metrics import CNI_SECONDS
from services.node.pods import Pods

_HEAD: Final = struct.Struct(">4sII")
_REQUEST, _ANSWER = b"PLQ1", b"PLA1"
_ENVIRONMENT_MAX: Final = 64 << 10
_CONFIG_MAX: Final = 1 << 20
_HEARD_WITHIN_S: Final = 5.0
_BACKLOG: Final = 1024

_log = structlog.get_logger("cni")


class CniHandler:
    """Performs requests. Never raises for what a request says: a mistake is an answer."""

    def __init__(self, pods: Pods, pool: LocalPool) -> None:
        self._pods = pods
        self._pool = pool

    def handle(self, environment: bytes, config: bytes) -> tuple[int, bytes]:
        """Exit code and standard output of the plugin."""
        began = time.perf_counter()
        command, version = "unknown", SUPPORTED[-1]
        try:
            request = cni_request.parse(environment, config)
            command, version = request.command, request.version
            answer = self._perform(request)
            CNI_SECONDS.labels(command, "ok").observe(time.perf_counter() - began)
            return 0, answer
        except CniError as error:
            failure = error
        except (IpamError, DatapathError) as error:
            failure = CniError(_code(error), error.message, error.remedy, version=version)
            _log.warning("request failed", command=command, code=failure.code, error=error.message)
        except Exception as error:  # noqa: BLE001  one request's bug must not end the daemon
            _log.exception("request failed", command=command)
            message = f"the node daemon failed: {type(error).__name__}"
            failure = CniError(cni_request.INTERNAL, message, "look at the node daemon's log", version=version)
        CNI_SECONDS.labels(command, str(failure.code)).observe(time.perf_counter() - began)
        return 1, failure.encode()

    def _perform(self, request: CniRequest) -> bytes:
        if request.command == "VERSION":
            return msgspec.json.encode({"cniVersion": request.version, "supportedVersions": SUPPORTED}) + b"\n"
        if request.command == "STATUS":
            return self._status(request)
        if request.command == "GC":
            self._pods.collect(request.valid, network=request.network)
            return b""
        assert request.owner is not None
        if request.command == "ADD":
            attached = self._pods.add(
                request.owner, netns=request.netns, pod=request.pod, network=request.network, labels=request.labels
            )
            _log.debug("pod added", owner=str(request.owner), pod=request.pod, address=attached.lease.address)
            return cni_result.result(attached, request.version, request.previous)
        if request.command == "DEL":
            lease = self._pods.remove(request.owner)
            _log.debug("pod removed", owner=str(request.owner), address=lease.address if lease else "")
            return b""
        attached = self._pods.check(request.owner, netns=request.netns)
        cni_result.compare(attached, request.previous or {})
        return b""

    def _status(self, request: CniRequest) -> bytes:
        counts = self._pool.counts()
        if any(not one.unusable for one in counts):
            return b""
        why = "; ".join(f"{one.interface.id}: {one.unusable}" for one in counts) or "IPAM has not told of any"
        raise CniError(
            cni_request.NOT_AVAILABLE,
            f"no interface can carry pods ({why})",
            "see `plimsoll ipam explain` for this node",
            version=request.version,
        )


class CniServer:
    """Listens on `path` from entering to leaving; leaving waits for requests under way.

    :param threads: requests at once. Those that wait for an address hold one each.
    """

    def __init__(self, path: Path, handler: CniHandler, *, threads: int = 64) -> None:
        self._path = path
        self._handler = handler
        self._threads = [threading.Thread(target=self._serve, name=f"cni-{n}", daemon=True) for n in range(threads)]
        self._listener: socket.socket | None = None

    def __enter__(self) -> CniServer:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        fresh.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        listener.bind(str(fresh))
        fresh.chmod(0o600)
        listener.listen(_BACKLOG)
        # In one step: a plugin finds the old daemon, or this one listening, never a file without a listener.
        fresh.rename(self._path)
        self._listener = listener
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._listener is not None
        self._path.unlink(missing_ok=True)
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes those who wait in accept()
        for thread in self._threads:
            thread.join(timeout=10)
        self._listener.close()

    def _serve(self) -> None:
        assert self._listener is not None
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):  # the plugin gave up: nobody is left to be told
                connection.settimeout(_HEARD_WITHIN_S)
                self._converse(connection)

    def _converse(self, connection: socket.socket) -> None:
        magic, environment_length, config_length = _HEAD.unpack(_receive(connection, _HEAD.size))
        if magic != _REQUEST or environment_length > _ENVIRONMENT_MAX or config_length > _CONFIG_MAX:
            error = CniError(
                cni_request.IO_FAILURE, "not a request of this plugin", "install plugin and daemon together"
            )
            code, body = 1, error.encode()
        else:
            content = _receive(connection, environment_length + config_length)
            code, body = self._handler.handle(content[:environment_length], content[environment_length:])
        connection.sendall(_HEAD.pack(_ANSWER, code, len(body)) + body)


def _receive(connection: socket.socket, length: int) -> bytes:
    parts, missing = [], length
    while missing:
        part = connection.recv(min(missing, 1 << 16))
        if not part:
            raise ConnectionError("the plugin hung up")
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def _code(error: IpamError | DatapathError) -> int:
    match error:
        case PoolEmpty() | StoreError():
            return cni_request.TRY_LATER
        case NotFound():
            return cni_request.UNKNOWN_CONTAINER
        case NamespaceGone() | DeviceTaken() | InvalidEndpoint():
            return cni_request.BAD_ENVIRONMENT
        case NotWired():
            return cni_request.CHECK_FAILED
        case DatapathError():
            return cni_request.KERNEL_FAILED
        case _:
            return cni_request.INTERNAL
