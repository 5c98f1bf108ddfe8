"""The daemon's end of the plugin's protocol: whatever a client does, the next one is served."""

from __future__ import annotations

import json
import socket
import stat
import struct
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.node.cni import CniServer


class EchoHandler:
    """Answers what it was asked, once `gate` is open."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.inside = threading.Semaphore(0)

    def handle(self, environment: bytes, config: bytes) -> tuple[int, bytes]:
        self.inside.release()
        self.gate.wait(10)
        return 0, json.dumps([environment.decode(), config.decode()]).encode()


@pytest.fixture
def echo_handler() -> EchoHandler:
    return EchoHandler()


@pytest.fixture
def echo_socket(echo_handler: EchoHandler) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        path = Path(folder) / "run" / "cni.sock"
        with CniServer(path, echo_handler, threads=4):  # type: ignore[arg-type]
            yield path
        assert not path.exists()


def _send(path: Path, data: bytes) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(10)
    connection.connect(str(path))
    connection.sendall(data)
    return connection


def _request(environment: bytes, config: bytes) -> bytes:
    return struct.pack(">4sII", b"PLQ1", len(environment), len(config)) + environment + config


def _answer(connection: socket.socket) -> tuple[int, object]:
    with connection, connection.makefile("rb") as stream:
        magic, code, length = struct.unpack(">4sII", stream.read(12))
        assert magic == b"PLA1"
        return code, json.loads(stream.read(length))


def test_only_its_owner_may_open_the_socket(echo_socket: Path) -> None:
    assert stat.S_IMODE(echo_socket.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("story", "data"),
    [
        ("nothing at all", b""),
        ("half a head", b"PLQ1\0\0"),
        ("a body that never comes", struct.pack(">4sII", b"PLQ1", 10, 10) + b"x"),
        ("another protocol", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("lengths beyond reason", struct.pack(">4sII", b"PLQ1", 1 << 31, 1 << 31)),
    ],
)
def test_whatever_a_client_sends_the_next_is_served(echo_socket: Path, story: str, data: bytes) -> None:
    for _ in range(8):  # more of them than there are threads
        _send(echo_socket, data).close()
    assert _answer(_send(echo_socket, _request(b"A=1\0", b"{}"))) == (0, ["A=1\0", "{}"]), story


def test_a_stranger_is_told_what_is_wrong(echo_socket: Path) -> None:
    code, answer = _answer(_send(echo_socket, b"GET / HTTP/1.1\r\n\r\n"))
    assert code == 1
    assert "not a request" in answer["msg"]  # type: ignore[index]


def test_more_at_once_than_threads(echo_socket: Path) -> None:
    with ThreadPoolExecutor(32) as threads:
        configs = [f"{number:03}" * 1000 for number in range(200)]
        answers = threads.map(lambda config: _answer(_send(echo_socket, _request(b"", config.encode()))), configs)
        assert [answer[1][1] for answer in answers] == configs  # type: ignore[index]


def test_a_stop_waits_for_requests_under_way(echo_handler: EchoHandler) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        path = Path(folder) / "cni.sock"
        echo_handler.gate.clear()
        with ThreadPoolExecutor(1) as threads:
            with CniServer(path, echo_handler, threads=2):  # type: ignore[arg-type]
                asked = threads.submit(lambda: _answer(_send(path, _request(b"", b"{}"))))
                assert echo_handler.inside.acquire(timeout=5)
                threading.Timer(0.05, echo_handler.gate.set).start()
            assert asked.result(5) == (0, ["", "{}"])


def test_a_socket_left_behind_by_a_killed_daemon_is_replaced(echo_handler: EchoHandler) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        path = Path(folder) / "cni.sock"
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        with CniServer(path, echo_handler, threads=1):  # type: ignore[arg-type]
            assert _answer(_send(path, _request(b"", b"x")))[0] == 0
