"""The private Redis: it is reachable by its owner only, keeps nothing, and never outlives its parent."""

from __future__ import annotations

import os
import select
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from services.runtime.redis import RedisServer, RedisServerError

pytestmark = pytest.mark.redis


def test_serves_on_a_socket_that_only_its_owner_can_open(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "r") as server:
        client = redis.Redis.from_url(server.url)
        assert client.set("a", 1)
        assert client.config_get("port") == {"port": "0"}
        assert stat.S_IMODE(server.socket.stat().st_mode) == 0o600
        assert stat.S_IMODE(server.folder.stat().st_mode) == 0o700
        pid = server.pid
        client.close()
    assert not server.socket.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_async_entry_is_ready_when_entered(tmp_path: Path) -> None:
    async with RedisServer(tmp_path) as server:
        with redis.Redis.from_url(server.url) as client:
            assert client.ping()


@pytest.mark.parametrize(("persistent", "left"), [(False, None), (True, b"1")])
def test_keeps_data_over_a_restart_only_when_asked(tmp_path: Path, persistent: bool, left: bytes | None) -> None:
    server = RedisServer(tmp_path, persistent=persistent)
    with server, redis.Redis.from_url(server.url) as client:
        client.set("a", 1)
    with server, redis.Redis.from_url(server.url) as client:
        assert client.get("a") == left


def test_starts_again_after_a_crash_left_its_socket_behind(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    server.start()
    os.kill(server.pid, signal.SIGKILL)
    server.kill()
    (tmp_path / "redis.sock").touch()
    with server, redis.Redis.from_url(server.url) as client:
        assert client.ping()


def test_says_what_redis_said_when_it_cannot_start(tmp_path: Path) -> None:
    (tmp_path / "appendonlydir").write_text("in the way")
    with pytest.raises(RedisServerError, match="ended with code"):
        RedisServer(tmp_path, persistent=True).start()


def test_a_path_too_long_for_a_socket_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(RedisServerError, match="shorter path"):
        RedisServer(tmp_path / ("x" * 100)).start()


def test_a_second_start_is_refused(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server, pytest.raises(RedisServerError, match="already runs"):
        server.start()


PARENT = """
import sys
from pathlib import Path
from services.runtime.redis import RedisServer
server = RedisServer(Path(sys.argv[1]))
server.start()
print(server.pid, flush=True)
sys.stdin.read()
"""


def test_dies_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = os.pidfd_open(int(parent.stdout.readline()))
    try:
        parent.kill()
        parent.wait()
        readable, _, _ = select.select([child], [], [], 5.0)
        assert readable, "redis-server outlived its parent by five seconds"
    finally:
        os.close(child)
        parent.communicate()
