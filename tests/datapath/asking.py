"""Asking a node daemon of a bed what an administrator asks, by the `plimsoll` command as it is."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.datapath.bed import ROOT, Node

_COMMAND = (sys.executable, "-c", "from services.cli.main import main; main()")


def context_of(node: Node) -> Path:
    """A context file that names this node."""
    path = node.folder / "context.toml"
    path.write_text(f'[nodes]\n{node.name} = "unix:{node.socket}"\n')
    return path


def command(node: Node, *words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PLIMSOLL_CONTEXT": str(context_of(node))}
    return subprocess.Popen(
        [*_COMMAND, *words],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ask(node: Node, *words: str) -> Any:
    """What `plimsoll WORDS --json` prints."""
    out, err = command(node, *words, "--json").communicate(timeout=30)
    assert out, err
    return json.loads(out)


def scraped(path: Path) -> dict[str, float]:
    """Every sample of /metrics behind a Unix socket, by its name with labels."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        connection.sendall(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    lines = [line for line in answer.decode().splitlines() if line and line[0] != "#" and " " in line]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines) if _number(value)}


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def until(condition: Callable[[], object], within_s: float = 10.0) -> float:
    """Seconds until it was so. For what nobody tells of."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < began + within_s, "it did not come to that"
        time.sleep(0.02)
    return time.monotonic() - began
