"""The C plugin by itself: what it answers when something is wrong, and a scanner that nothing can break."""

from __future__ import annotations

import json
import random
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
SOURCES = ROOT / "services" / "node" / "cni"
pytestmark = pytest.mark.tool("cc", "make")


@pytest.fixture(scope="session")
def plugin_binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("plugin")
    subprocess.run(["make", "-s", "-C", str(SOURCES), f"OUT={out}"], check=True)
    return out / "plimsoll"


Run = Callable[..., tuple[int, dict[str, Any]]]
Behave = Callable[[socket.socket], None]
FakeDaemon = Callable[[Behave], str]


@pytest.fixture
def run_plugin(plugin_binary: Path) -> Run:
    def run(command: str | None, config: bytes | str, **environment: str) -> tuple[int, dict[str, Any]]:
        told = {"CNI_COMMAND": command, **environment} if command is not None else environment
        data = config.encode() if isinstance(config, str) else config
        done = subprocess.run([str(plugin_binary)], input=data, env=told, capture_output=True, timeout=20, check=False)
        return done.returncode, json.loads(done.stdout) if done.stdout else {}

    return run


@pytest.fixture
def fake_daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    """Listens on a socket and does to the first plugin that comes what it is told to. Returns the configuration."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    path = tmp_path / "cni.sock"
    listener.bind(str(path))
    listener.listen()
    listener.settimeout(10)
    threads: list[threading.Thread] = []

    def start(behave: Behave) -> str:
        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                behave(connection)

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        return json.dumps({"cniVersion": "1.0.0", "socket": str(path), "timeout_s": 0.5})

    yield start
    for thread in threads:
        thread.join(10)
    listener.close()


@pytest.mark.parametrize(
    ("story", "command", "config", "code", "says"),
    [
        ("no command", None, "{}", 4, "CNI_COMMAND"),
        ("an empty configuration", "ADD", "", 6, "byte 0"),
        ("a configuration cut short", "ADD", '{"socket": "/x"', 6, "byte 15"),
        ("text behind the object", "ADD", '{"socket": "/x"} x', 6, "byte 17"),
        ("no socket", "ADD", '{"cniVersion": "1.0.0"}', 7, 'no "socket"'),
        ("a socket that is a number", "ADD", '{"socket": 7}', 7, "must be a string"),
        ("a socket with a path too long", "ADD", json.dumps({"socket": "/" + "x" * 108}), 7, "107 bytes"),
        ("a relative path", "ADD", '{"socket": "cni.sock"}', 7, "absolute"),
        ("a time-out of nothing", "ADD", '{"socket": "/x", "timeout_s": 0}', 7, "timeout_s"),
        ("nobody there", "ADD", '{"socket": "/nowhere/cni.sock"}', 11, "cannot be reached"),
        ("nobody there, asked for status", "STATUS", '{"socket": "/nowhere/cni.sock"}', 50, "cannot be reached"),
    ],
)
def test_what_is_wrong_is_said(
    run_plugin: Run, story: str, command: str | None, config: str, code: int, says: str
) -> None:
    exit_code, answer = run_plugin(command, config)
    assert exit_code == 1, story
    assert answer["code"] == code
    assert says in answer["msg"]
    assert answer["details"], "each error has its remedy"
    assert answer["cniVersion"]


def test_version_is_answered_without_a_daemon(run_plugin: Run) -> None:
    exit_code, answer = run_plugin("VERSION", '{"cniVersion": "1.0.0"}')
    assert exit_code == 0
    assert answer == {"cniVersion": "1.0.0", "supportedVersions": ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]}


def _hear(connection: socket.socket) -> tuple[dict[str, str], bytes]:
    with connection.makefile("rb") as stream:
        magic, environment, config = struct.unpack(">4sII", stream.read(12))
        assert magic == b"PLQ1"
        variables = dict(item.decode().split("=", 1) for item in stream.read(environment).split(b"\0") if item)
        return variables, stream.read(config)


def test_a_request_is_relayed_and_its_answer_printed(run_plugin: Run, fake_daemon: FakeDaemon) -> None:
    heard = []

    def answer(connection: socket.socket) -> None:
        heard.append(_hear(connection))
        body = b'{"ips": []}'
        connection.sendall(struct.pack(">4sII", b"PLA1", 0, len(body)) + body)

    config = fake_daemon(answer)
    assert run_plugin("ADD", config, CNI_CONTAINERID="c1", CNI_ARGS="A=B=C", SECRET="x") == (0, {"ips": []})
    assert heard == [({"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_ARGS": "A=B=C"}, config.encode())]


def _die_at_once(connection: socket.socket) -> None:
    pass


def _die_after_the_request(connection: socket.socket) -> None:
    _hear(connection)


def _die_in_the_answer(connection: socket.socket) -> None:
    _hear(connection)
    connection.sendall(struct.pack(">4sII", b"PLA1", 0, 100) + b"half")


def _say_nothing(connection: socket.socket) -> None:
    _hear(connection)
    connection.recv(1)  # returns when the plugin has given up


def _talk_nonsense(connection: socket.socket) -> None:
    _hear(connection)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@pytest.mark.parametrize(
    ("behave", "code"),
    [
        (_die_at_once, 11),
        (_die_after_the_request, 11),
        (_die_in_the_answer, 11),
        (_say_nothing, 11),
        (_talk_nonsense, 5),
    ],
)
def test_a_daemon_that_fails_in_the_middle(run_plugin: Run, fake_daemon: FakeDaemon, behave: Behave, code: int) -> None:
    exit_code, answer = run_plugin("ADD", fake_daemon(behave))
    assert exit_code == 1
    assert answer["code"] == code
    assert answer["cniVersion"] == "1.0.0"


def test_the_daemons_exit_code_is_the_plugins(run_plugin: Run, fake_daemon: FakeDaemon) -> None:
    def refuse(connection: socket.socket) -> None:
        _hear(connection)
        body = b'{"code": 7}'
        connection.sendall(struct.pack(">4sII", b"PLA1", 1, len(body)) + body)

    assert run_plugin("DEL", fake_daemon(refuse)) == (1, {"code": 7})


def _oracle(text: bytes) -> str | None:
    """The socket as Python's JSON reads it; None if this is no configuration that the plugin should take."""

    def constant(name: str) -> None:
        raise ValueError(name)

    try:
        content = json.loads(text.decode("utf-8"), parse_constant=constant)
    except (ValueError, RecursionError):
        return None
    return content.get("socket", "") if isinstance(content, dict) else None


def _inputs(count: int) -> Iterator[bytes]:
    """Configurations, and what cutting, flipping and mixing makes of them."""
    source = random.Random(7)
    seeds = [
        json.dumps({"cniVersion": "1.1.0", "name": "n", "socket": "/run/plimsoll/cni.sock", "x": [1, -2.5e3, None]}),
        json.dumps({"socket": '/run/\u00e9\u20ac\U0001f600"\\\n.sock', "plugins": [{"a": {"b": [True, False]}}]}),
        '{ "socket" : "/a\\u0062\\ud83d\\ude00" , "timeout_s" : 1.5 , "prevResult" : { "ips" : [ ] } }',
        '{"socket": "/' + "x" * 120 + '"}',
        '{"a": ' + "[" * 70 + "]" * 70 + ', "socket": "/deep"}',
    ]
    for _ in range(count):
        data = bytearray(source.choice(seeds).encode())
        for _ in range(source.randrange(4)):
            kind = source.randrange(4)
            at = source.randrange(len(data) + 1)
            if kind == 0:
                del data[at:]
            elif kind == 1 and at < len(data):
                data[at] = source.randrange(256)
            elif kind == 2:
                data[at:at] = source.choice(
                    [b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"0", b" ", b"\\u12", b"\0"]
                )
            else:
                data[at:at] = source.randbytes(source.randrange(6))
        yield bytes(data)


def test_nothing_breaks_the_scanner(tmp_path: Path) -> None:
    harness = tmp_path / "harness"
    build = ["cc", "-g", "-O1", "-fno-sanitize-recover=all", "-fsanitize=address,undefined", f"-I{SOURCES}", "-o"]
    sources = [str(Path(__file__).with_name("scan_harness.c")), str(SOURCES / "scan.c")]
    subprocess.run([*build, str(harness), *sources], check=True)
    inputs = list(_inputs(5000))
    data = b"".join(struct.pack(">I", len(one)) + one for one in inputs)
    done = subprocess.run([str(harness)], input=data, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]
    lines = done.stdout.decode().splitlines()
    assert len(lines) == len(inputs)
    taken = 0
    for one, line in zip(inputs, lines, strict=True):
        result, found, _ = line.split(" ")
        expected = _oracle(one)
        if int(result) == 0:
            taken += 1
            if expected is not None and expected.isprintable() and b"\\u" not in one and one.count(b'"socket"') < 2:
                assert bytes.fromhex(found).decode() == expected, one
        elif expected is not None and int(result) == 1:
            # Python's recursion limit is higher than ours, its floats are more forgiving; nothing else may differ.
            assert one.count(b"[") + one.count(b"{") > 60, one
    assert taken > 500, "the inputs are not all rubbish"


def test_the_plugin_is_one_static_file(plugin_binary: Path) -> None:
    if shutil.which("readelf") is None:
        pytest.skip("needs readelf")
    headers = subprocess.run(["readelf", "-l", str(plugin_binary)], capture_output=True, text=True, check=True).stdout
    assert "INTERP" not in headers
