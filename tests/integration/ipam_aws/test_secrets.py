"""What a site must not tell: passwords and keys, in no log at any level, no process list, no answer."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from lab.site import ACCOUNT, AWS, REGION, Site, eventually
from lab.site.site import to_toml
from services.api.ipam.v1 import ipam_pb2 as pb

pytestmark = [pytest.mark.redis, pytest.mark.tool("setpriv")]

PASSWORD, CLOUD_KEY = "hunter2", "hunter4"
SECRETS = (PASSWORD, CLOUD_KEY, "PRIVATE KEY")
_REFUSED = re.compile(r"invalid username-password pair|WRONGPASS")


def seen_by_all(site: Site) -> str:
    """Logs and command lines of the site's processes."""
    commands = []
    for child in psutil.Process().children(recursive=True):
        commands += child.cmdline()
    return "\n".join([*commands, *(log.read_text(errors="replace") for log in site.folder.glob("**/*.log"))])


async def logged(site: Site, words: str) -> bool:
    return words in seen_by_all(site)


async def test_no_secret_shows_while_all_is_well_nor_when_redis_refuses_the_password(
    make_site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(AWS, "AWS_SECRET_ACCESS_KEY", CLOUD_KEY)
    site: Site = await make_site(ipam={"log_level": "debug"}, worker={"log_level": "debug"})
    admin = redis.Redis.from_url(site.redis.url)
    admin.config_set("requirepass", PASSWORD)
    await site.kill_ipam()
    await site.workers["worker"].kill()
    await site.start_worker("worker", redis=f"unix://:{PASSWORD}@{site.redis.socket}")
    await site.start_ipam(redis=f"{site.redis.url}?password={PASSWORD}")

    instance = await site.ec2.launch("m5.large")
    async with site.node("n1", instance, watermarks=pb.Watermarks(pre_allocate=4)) as node:
        await node.until(lambda: len(node.addresses) == 4)
        await eventually(partial(logged, site, "intent done"), "the worker could use the password")
        assert "services.worker" in seen_by_all(site)

        admin.config_set("requirepass", "another")
        admin.client_kill_filter(_type="normal", skipme=True)
        await node.use(3)

        async def refused() -> bool:
            logs = (site.folder / f"{name}.log" for name in ("ipam-aws", "worker"))
            return all(_REFUSED.search(log.read_text()) for log in logs)

        await eventually(refused, "the services log that Redis takes their password no more")
        answers = str(await site.local.GetStatus(pb.GetStatusRequest())) + await site.explain("n1")
        answers += await site.metrics() + await site.metrics("worker")
    admin.close()
    seen = seen_by_all(site) + answers
    assert [secret for secret in SECRETS if secret in seen] == []


@pytest.mark.parametrize("where", ["file", "query"])
def test_a_store_that_cannot_be_reached_is_named_without_its_password(tmp_path: Path, where: str) -> None:
    store = f"postgresql://plimsoll:{PASSWORD}@127.0.0.1:1/x"
    if where == "query":
        store = f"postgresql://127.0.0.1:1/x?user=plimsoll&password={PASSWORD}"
    config = tmp_path / "ipam-aws.toml"
    settings = {
        "account": ACCOUNT, "region": REGION, "store": store, "log_level": "debug",
        "redis": f"unix://{tmp_path}/redis.sock", "socket": tmp_path / "ipam.sock",
    }  # fmt: skip
    config.write_text(to_toml(settings))
    command = [sys.executable, "-m", "services.ipam_aws", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "127.0.0.1" in done.stderr
    assert PASSWORD not in done.stdout + done.stderr
