"""The server over HTTP: the query protocol's edges, and the admin endpoint."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import aiohttp
import pytest

from lab.fake_cloud.server import serve
from lab.fake_ec2.app import Server
from lab.fake_ec2.launch import make_cloud
from lab.fake_ec2.seed import Seed


class Client:
    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session, self._url = session, url

    async def query(self, **fields: str) -> tuple[int, str]:
        """Status, and the error's code if there is one."""
        async with self._session.post(f"{self._url}/", data=fields) as response:
            root = ElementTree.fromstring(await response.text())
            return response.status, root.findtext("Errors/Error/Code", "")

    async def admin(self, method: str, path: str, document: Any = None) -> tuple[int, Any]:
        async with self._session.request(method, f"{self._url}/_admin/{path}", json=document) as response:
            text = await response.text()
            return response.status, json.loads(text) if text else None


@pytest.fixture
async def http_client(tmp_path: Path) -> AsyncIterator[Client]:
    path = tmp_path / "ec2.sock"
    runner, listening = await serve(Server(partial(make_cloud, Seed(), 1)), f"unix:{path}")
    assert listening == f"unix:{path}"
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session:
        yield Client(session, "http://ec2")
    await runner.cleanup()


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({}, 400, "MissingAction"),
        ({"Action": "MakeCoffee"}, 400, "InvalidAction"),
        ({"Action": "DescribeVolumes"}, 400, "InvalidAction"),
        ({"Action": "DeleteNetworkInterface"}, 400, "MissingParameter"),
        ({"Action": "DescribeVpcs", "Colour": "red"}, 400, "UnknownParameter"),
        ({"Action": "DescribeVpcs", "Filter.1.Colour": "red"}, 400, "UnknownParameter"),
        ({"Action": "DescribeVpcs", "Filter.x.Name": "red"}, 400, "UnknownParameter"),
        ({"Action": "DescribeVpcs", "Filter": "1", "Filter.1.Name": "x"}, 400, "InvalidParameterCombination"),
        ({"Action": "DescribeVpcs", "MaxResults": "many"}, 400, "InvalidParameterValue"),
        ({"Action": "DescribeVpcs", "DryRun": "perhaps"}, 400, "InvalidParameterValue"),
        ({"Action": "DescribeVpcs", "DryRun": "true"}, 412, "DryRunOperation"),
        ({"Action": "DescribeSubnets", "SubnetId.1": "subnet-xyz"}, 400, "InvalidSubnetID.Malformed"),
        ({"Action": "DescribeSubnets", "SubnetId.1": "subnet-12345678"}, 400, "InvalidSubnetID.NotFound"),
        ({"Action": "DescribeVpcs", "Version": "2016-11-15"}, 200, ""),
    ],
)
async def test_the_protocol_answers_bad_input_as_ec2_does(
    http_client: Client, fields: dict[str, str], status: int, code: str
) -> None:
    assert await http_client.query(**fields) == (status, code)


async def test_calls_are_counted_and_throttled_ones_apart(http_client: Client) -> None:
    await http_client.admin("PUT", "faults", {"throttle": {"read": {"rate": 0, "burst": 1}}})
    assert await http_client.query(Action="DescribeVpcs") == (200, "")
    assert await http_client.query(Action="DescribeVpcs") == (503, "RequestLimitExceeded")
    await http_client.query(Action="CreateVpc", CidrBlock="10.1.0.0/16")
    _, calls = await http_client.admin("GET", "calls")
    assert (calls["total"], calls["mutating"], calls["throttled"]) == (3, 1, 1)
    assert calls["by_action"] == {"DescribeVpcs": 2, "CreateVpc": 1}
    await http_client.admin("DELETE", "calls")
    assert (await http_client.admin("GET", "calls"))[1]["total"] == 0


async def test_an_instance_is_launched_told_and_terminated(http_client: Client) -> None:
    status, made = await http_client.admin("POST", "instances", {"type": "m5.large", "tags": {"Name": "n1"}})
    assert status == 201
    assert made["interfaces"][0]["device_index"] == 0
    _, told = await http_client.admin("GET", "state")
    (interface,) = told["interfaces"]
    assert interface["addresses"][0] == interface["primary_address"] == made["primary_address"]
    assert (interface["status"], interface["instance_id"]) == ("in-use", made["id"])
    assert interface["subnet_cidr"] == "10.0.0.0/20"
    assert (await http_client.admin("DELETE", f"instances/{made['id']}"))[0] == 204
    assert (await http_client.admin("GET", "state"))[1]["interfaces"] == []


async def test_a_long_poll_ends_with_the_next_change(http_client: Client) -> None:
    _, told = await http_client.admin("GET", "state")
    poll = asyncio.create_task(http_client.admin("GET", f"state?revision={told['revision']}&wait_s=20"))
    await asyncio.sleep(0)
    await http_client.admin("POST", "instances", {})
    async with asyncio.timeout(5):
        _, later = await poll
    assert later["revision"] > told["revision"]
    assert later["instances"]


async def test_a_transition_ends_a_long_poll_by_itself(http_client: Client) -> None:
    await http_client.admin("PUT", "faults", {"boot_s": 0.05})
    _, made = await http_client.admin("POST", "instances", {})
    assert made["state"] == "pending"
    async with asyncio.timeout(5):
        told: Any = {"instances": [made], "revision": 0}
        while told["instances"][0]["state"] != "running":
            _, told = await http_client.admin("GET", f"state?revision={told['revision']}&wait_s=5")


@pytest.mark.parametrize(
    ("path", "document", "words"),
    [
        ("faults", {"latency": 1}, "latency: no such field"),
        ("faults", {"latency_s": -1}, "latency_s: must be a number"),
        ("faults", {"error_rate": 2}, "error_rate: must lie between 0 and 1"),
        ("faults", {"throttle": {"read": {"rate": 1}}}, "throttle:"),
        ("faults", {"fail": [{"code": "cut"}]}, "fail:"),
        ("faults", [1], "must be an object"),
    ],
)
async def test_faults_that_cannot_be_name_the_field(http_client: Client, path: str, document: Any, words: str) -> None:
    status, told = await http_client.admin("PUT", path, document)
    assert status == 400
    assert words in told["message"]


async def test_faults_are_replaced_by_put_and_merged_by_patch(http_client: Client) -> None:
    await http_client.admin("PUT", "faults", {"latency_s": 0.01})
    _, merged = await http_client.admin("PATCH", "faults", {"fail": [{"action": "*", "code": "cut"}]})
    assert (merged["latency_s"], len(merged["fail"])) == (0.01, 1)
    _, replaced = await http_client.admin("PUT", "faults", {})
    assert (replaced["latency_s"], replaced["fail"]) == (0.0, [])


async def test_a_cut_call_took_effect(http_client: Client) -> None:
    await http_client.admin("PUT", "faults", {"fail": [{"action": "CreateVpc", "code": "cut", "after_effect": True}]})
    with pytest.raises(aiohttp.ClientError):
        await http_client.query(Action="CreateVpc", CidrBlock="10.1.0.0/16")
    assert len((await http_client.admin("GET", "state"))[1]["vpcs"]) == 2


async def test_a_bad_launch_says_why(http_client: Client) -> None:
    status, told = await http_client.admin("POST", "instances", {"type": "m5.gigantic"})
    assert (status, told["code"]) == (400, "InvalidInstanceType")
    assert (await http_client.admin("POST", "instances", {"colour": "red"}))[0] == 400


async def test_a_reset_begins_anew_and_revisions_go_on(http_client: Client) -> None:
    await http_client.admin("POST", "instances", {})
    _, before = await http_client.admin("GET", "state")
    await http_client.admin("POST", "reset")
    _, after = await http_client.admin("GET", "state")
    assert after["instances"] == []
    assert after["revision"] > before["revision"]


def run(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "lab.fake_ec2", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_program_tells_where_it_listens_and_ends_cleanly(tmp_path: Path) -> None:
    start = tmp_path / "start.toml"
    start.write_text('region = "us-west-2"\n[[vpc]]\ncidr = "10.8.0.0/16"\n'
                     'subnets = [{ zone = "b", cidr = "10.8.1.0/24" }]\n')  # fmt: skip
    with run("--listen", "127.0.0.1:0", "--start", str(start)) as program:
        assert program.stdout is not None
        told = json.loads(program.stdout.readline())
        program.terminate()
        assert program.wait(10) == 0
    assert told["ready"]
    assert told["region"] == "us-west-2"
    assert [(each["zone"], each["cidr"], each["free"]) for each in told["subnets"]] == [
        ("us-west-2b", "10.8.1.0/24", 251)
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--subnet", "10.0.0.0/24"], "must be ZONE=CIDR"),
        (["--subnet", "a=10.9.0.0/24"], "10.9.0.0/24"),
        (["--vpc-cidr", "10.0.0.0/40"], "10.0.0.0/40"),
        (["--start", "/nonexistent.toml"], "/nonexistent.toml"),
    ],
)
def test_the_program_refuses_what_cannot_be(arguments: list[str], words: str) -> None:
    with run("--port", "0", *arguments) as program:
        assert program.stderr is not None
        text = program.stderr.read()
        assert program.wait(10) == 2
    assert words in text
