"""What every test may ask for: rights and tools by mark, private servers by fixture.

A test marked `root`, `redis`, `postgres` or `tool("ping", ...)` skips with its reason where the machine lacks it. In
continuous integration (CI=true) the same lack fails: there, a skipped test is a test that nobody runs.
"""

from __future__ import annotations

import functools
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import hypothesis
import psycopg
import pytest

from services.runtime.redis import RedisServer
from tests.parallel import Shared

_database_numbers = itertools.count(1)

# How long an example takes says what else the machine does; this keeps all else of the profile in force, such as CI's.
hypothesis.settings.register_profile("patient", hypothesis.settings(), deadline=None)
hypothesis.settings.load_profile("patient")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "tool(*names): needs these programs")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Shared | None:
    return Shared(config, log) if config.getoption("dist") == "load" else None


def pytest_runtest_setup(item: pytest.Item) -> None:
    lacking = [reason for mark in item.iter_markers() for reason in _lacks(mark)]
    if lacking:
        _lack("; ".join(dict.fromkeys(lacking)))


def _lacks(mark: pytest.Mark) -> list[str]:
    if mark.name == "root" and os.geteuid() != 0:
        return ["needs root"]
    if mark.name == "redis" and shutil.which("redis-server") is None:
        return ["needs redis-server (Debian: redis-server)"]
    if mark.name == "postgres" and postgres_bin() is None:
        return ["needs PostgreSQL's server (Debian: postgresql)"]
    if mark.name == "tool":
        return [f"needs {name}" for name in mark.args if shutil.which(name) is None]
    return []


def _lack(reason: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}, and CI must not skip", pytrace=False)
    pytest.skip(reason)


@functools.cache
def postgres_bin() -> Path | None:
    """Folder with initdb and postgres of the newest version installed, None if there is none."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if found:
        return max(found, key=lambda folder: float(folder.parent.name))
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


@pytest.fixture
def redis_server() -> Iterator[str]:
    """URL of a private, empty redis-server on a Unix socket."""
    if shutil.which("redis-server") is None:
        _lack("needs redis-server (Debian: redis-server)")
    folder = Path(tempfile.mkdtemp(prefix="plimsoll-redis-", dir="/tmp"))  # short: a socket's path is limited
    try:
        with RedisServer(folder) as server:
            yield server.url
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[str]:
    """URL of a private PostgreSQL without a database of ours yet; its durability settings are the real ones."""
    programs = postgres_bin()
    if programs is None:
        _lack("needs PostgreSQL's server (Debian: postgresql)")
    owner = _unprivileged()
    uid, gid = owner.pw_uid, owner.pw_gid
    folder = Path(tempfile.mkdtemp(prefix="plimsoll-postgres-", dir="/tmp"))
    os.chown(folder, uid, gid)
    data = folder / "data"
    # setpriv: the server refuses root, and has to end with the tests, however they end.
    become = ["setpriv", "--pdeathsig", "TERM"]
    if os.geteuid() == 0:
        become += ["--reuid", str(uid), "--regid", str(gid), "--clear-groups"]
    initdb = [
        str(programs / "initdb"),
        "-D",
        str(data),
        "-U",
        "plimsoll",
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--no-locale",
        "-N",
    ]
    serve = [str(programs / "postgres"), "-D", str(data), "-k", str(folder), "-c", "listen_addresses="]
    server: subprocess.Popen[bytes] | None = None
    try:
        subprocess.run([*become, *initdb], check=True, stdout=subprocess.DEVNULL, cwd=folder)
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen([*become, *serve], stdout=log, stderr=log, cwd=folder)
        url = f"postgresql://plimsoll@/postgres?host={folder}"
        _await_connection(url, server)
        yield url
    finally:
        if server is not None:
            server.send_signal(signal.SIGINT)  # its fast shutdown: cuts connections and ends cleanly
            server.wait()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_cluster: str) -> Iterator[str]:
    """URL of a fresh database in the private PostgreSQL."""
    name = f"test_{next(_database_numbers)}"
    with psycopg.connect(postgres_cluster, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        yield postgres_cluster.replace("/postgres?", f"/{name}?")
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _unprivileged() -> pwd.struct_passwd:
    """Whom PostgreSQL runs as: it refuses root."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid())
    users = {entry.pw_name: entry for entry in pwd.getpwall()}
    return users.get("postgres") or users["nobody"]


def _await_connection(url: str, server: subprocess.Popen[bytes], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            psycopg.connect(url).close()
            return
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


_HOME = os.readlink("/proc/thread-self/ns/net")


@pytest.fixture(scope="module", autouse=True)
def at_home() -> None:
    """What a file of tests finds depends on no other: none may leave the thread in a network of its own."""
    assert os.readlink("/proc/thread-self/ns/net") == _HOME, "a test before stayed in another network namespace"
