"""What operators see: figures that are right, and pages that name all of them."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest

from lab.site import Site, eventually
from services.api.ipam.v1 import ipam_pb2 as pb

pytestmark = [pytest.mark.redis, pytest.mark.tool("setpriv")]

DOCS = Path(__file__).parents[3] / "docs"
FOUR = {"watermarks": pb.Watermarks(pre_allocate=4)}
SHARED = pytest.mark.asyncio(loop_scope="module")


async def _nothing_open(site: Site) -> bool:
    return not (await site.local.ListIntents(pb.ListIntentsRequest())).intents


async def test_operators_see_pools_and_budgets_in_metrics(ipam_site: Site) -> None:
    instance = await ipam_site.ec2.launch("m5.large")
    async with ipam_site.node("n1", instance, **FOUR) as node:
        await node.until(lambda: len(node.addresses) == 4)
        await node.use(1)
        await node.until(lambda: len(node.addresses) == 5)
        await node.use(0)
        await node.until(lambda: len(node.addresses) == 4)
        await eventually(partial(_nothing_open, ipam_site), "the release is over")
        text = await ipam_site.metrics()
        for line in (
            r'plimsoll_ipam_addresses\{node="n1",state="in-use"\} 0.0',
            r'plimsoll_ipam_addresses\{node="n1",state="available"\} 4.0',
            r'plimsoll_ipam_addresses_needed\{node="n1"\} 0.0',
            r'plimsoll_ipam_interface_slots_empty\{node="n1"\} 2.0',
            r'plimsoll_ipam_nodes\{category="total"\} 1.0',
            r'plimsoll_ipam_subnet_free\{subnet="subnet-\w+",zone="[\w-]+"\} \d+',
            r'plimsoll_ipam_intent_duration_seconds_count\{kind="allocate",outcome="done"\} \d',
        ):
            assert re.search(line, text), line
        text = await ipam_site.metrics("worker")
        assigned, subnet = 'operation="assign-addresses"', r'subnet="subnet-\w+"'
        for line in (
            r'plimsoll_cloud_api_duration_seconds_count\{operation="[\w-]+",outcome="ok"\} \d',
            r'plimsoll_budget_wait_seconds_count\{operation_class="mutate",outcome="granted"\} \d',
            r'plimsoll_budget_rate\{operation_class="mutate"\} 200.0',
            "plimsoll_budget_shared 1.0",
            rf'plimsoll_worker_operation_duration_seconds_count\{{{assigned},outcome="ok",{subnet}\}} 2',
            rf"plimsoll_worker_addresses_total\{{{assigned},{subnet}\}} 5.0",
            rf'plimsoll_worker_addresses_total\{{operation="unassign-addresses",{subnet}\}} 1.0',
        ):
            assert re.search(line, text), line


async def test_a_full_subnet_shows_in_the_operations(ipam_site: Site) -> None:
    await ipam_site.ec2.faults(
        fail=[{"action": "AssignPrivateIpAddresses", "code": "InsufficientFreeAddressesInSubnet", "count": 1}]
    )
    instance = await ipam_site.ec2.launch("m5.large")
    full = r'plimsoll_worker_operation_duration_seconds_count\{.*outcome="subnet-exhausted",subnet="subnet-\w+"\} 1'

    async def counted() -> bool:
        return re.search(full, await ipam_site.metrics("worker")) is not None

    async with ipam_site.node("n1", instance, **FOUR):
        await eventually(counted, "the worker counts it under its subnet")


@SHARED
@pytest.mark.parametrize(
    ("process", "page", "prefixes"),
    [("ipam", "ipam-aws.md", "plimsoll_ipam_"), ("worker", "worker.md", "plimsoll_(worker|budget|cloud)_")],
)
async def test_the_page_names_every_metric_with_its_labels(
    shared_site: Site, process: str, page: str, prefixes: str
) -> None:
    instance = await shared_site.ec2.launch("m5.large")
    async with shared_site.node(f"of-{process}", instance, **FOUR) as node:
        await node.until(lambda: len(node.addresses) == 4)
        text = await shared_site.metrics(process)
    exported = {name for name in re.findall(r"^# TYPE (\w+)", text, re.M) if re.match(prefixes, name)}
    section = (DOCS / page).read_text().split("## Metrics")[1].split("\n## ")[0]
    documented = dict(re.findall(r"`(plimsoll_\w+)(?:\{([\w,]+)\})?`", section))
    assert {name for name in exported if not name.endswith("_created")} == documented.keys()
    for name, labels in re.findall(r"^(\w+?)(?:_count|_bucket|_sum)?\{(.*)\}", text, re.M):
        if name in documented:
            found = set(re.findall(r'(\w+)="', labels)) - {"le"}
            assert found == set(filter(None, documented[name].split(","))), name
