"""The fabric delivers and accepts an address only where the cloud assigned it. Real packets.

one (i-1)  ens5 10.0.0.10, ens6 10.0.0.20 ──┐
                                            ├── router ── outside 203.0.113.2
two (i-2)  ens5 10.0.1.10 ──────────────────┘
"""

from __future__ import annotations

import contextlib
import secrets
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest
import pytest_asyncio

from lab import netns
from lab.fabric import Fabric, Segment
from lab.probe import Pinger
from lab.topology import CloudState, Port

pytestmark = [pytest.mark.root, pytest.mark.tool("ip")]

ONE = Port("eni-0aaa1", "02:00:00:00:00:01", "i-1", 0, "10.0.0.0/24", "10.0.0.0/16", "10.0.0.10", frozenset())
ONE_MORE = Port("eni-0aaa2", "02:00:00:00:00:02", "i-1", 1, "10.0.0.0/24", "10.0.0.0/16", "10.0.0.20", frozenset())
TWO = Port("eni-0bbb1", "02:00:00:00:00:03", "i-2", 0, "10.0.1.0/24", "10.0.0.0/16", "10.0.1.10", frozenset())


def owning(port: Port, *secondary: str) -> Port:
    return replace(port, addresses=frozenset([port.primary_address, *secondary]))


def state(*ports: Port, revision: int = 1) -> CloudState:
    return CloudState(revision, {port.id: port for port in ports})


@pytest.fixture
def lab_names() -> Iterator[dict[str, str]]:
    """Fresh namespaces of two instances, and names for the rest."""
    tag = f"pl{secrets.token_hex(3)}"
    names = {role: f"{tag}-{role}" for role in ("router", "one", "two", "outside")}
    with contextlib.ExitStack() as stack:
        for role in ("one", "two", "outside"):
            netns.create(names[role])
            stack.callback(netns.delete, names[role])
        yield names


@pytest_asyncio.fixture
async def fabric(lab_names: dict[str, str]) -> AsyncIterator[Fabric]:
    async with Fabric(lab_names["router"]) as fabric:
        await fabric.add_instance("i-1", lab_names["one"])
        await fabric.add_instance("i-2", lab_names["two"])
        yield fabric


def in_namespace(name: str, *words: str) -> str:
    """Runs `ip` there, as an administrator of that instance would."""
    return subprocess.run(["ip", "-n", name, *words], check=True, capture_output=True, text=True).stdout


def hold(namespace: str, device: str, address: str) -> None:
    in_namespace(namespace, "address", "add", f"{address}/32", "dev", device)


async def test_the_primary_address_works_as_after_dhcp(fabric: Fabric, lab_names: dict[str, str]) -> None:
    await fabric.apply(state(owning(ONE), owning(TWO)))
    with Pinger(lab_names["one"]) as one:
        assert await one.ping("10.0.1.10")
        assert await one.ping("10.0.0.1"), "the subnet's gateway answers"
    links = in_namespace(lab_names["one"], "link", "show", "ens5")
    assert ONE.mac in links
    assert "mtu 9001" in links


async def test_a_secondary_interface_comes_up_bare(fabric: Fabric, lab_names: dict[str, str]) -> None:
    await fabric.apply(state(owning(ONE), owning(ONE_MORE)))
    assert ONE_MORE.mac in in_namespace(lab_names["one"], "link", "show", "ens6")
    assert "inet " not in in_namespace(lab_names["one"], "address", "show", "ens6")


async def test_an_address_is_delivered_once_assigned_and_no_longer(fabric: Fabric, lab_names: dict[str, str]) -> None:
    await fabric.apply(state(owning(ONE), owning(TWO)))
    hold(lab_names["two"], "ens5", "10.0.1.77")
    with Pinger(lab_names["one"]) as one:
        assert not await one.ping("10.0.1.77", timeout_s=0.2, attempts=1), "nobody assigned it"
        assert (await fabric.drops()).undelivered >= 1

        await fabric.apply(state(owning(ONE), owning(TWO, "10.0.1.77"), revision=2))
        assert await one.ping("10.0.1.77")

        await fabric.apply(state(owning(ONE), owning(TWO), revision=3))
        assert not await one.ping("10.0.1.77", timeout_s=0.2, attempts=1), "it was unassigned"


async def test_a_source_that_the_interface_does_not_own_is_dropped(fabric: Fabric, lab_names: dict[str, str]) -> None:
    await fabric.apply(state(owning(ONE, "10.0.0.50"), owning(TWO)))
    hold(lab_names["one"], "ens5", "10.0.0.50")
    with Pinger(lab_names["one"]) as one:
        assert await one.ping("10.0.1.10", source="10.0.0.50"), "its own second address"
        before = await fabric.drops()
        for stranger in ("10.0.0.51", "10.0.1.10", "192.0.2.1"):
            assert not await one.ping("10.0.1.10", source=stranger, timeout_s=0.2, attempts=1)
        assert (await fabric.drops()).spoofed >= before.spoofed + 3


async def test_an_address_of_one_interface_may_not_leave_by_another(fabric: Fabric, lab_names: dict[str, str]) -> None:
    await fabric.apply(state(owning(ONE), owning(ONE_MORE), owning(TWO)))
    hold(lab_names["one"], "ens6", "10.0.0.20")
    in_namespace(lab_names["one"], "link", "set", "ens6", "up")
    with Pinger(lab_names["one"]) as one:
        assert not await one.ping("10.0.1.10", source="10.0.0.20", timeout_s=0.2, attempts=1), "it leaves by ens5"
        in_namespace(lab_names["one"], "rule", "add", "from", "10.0.0.20", "table", "106")
        in_namespace(lab_names["one"], "route", "add", "10.0.0.1", "dev", "ens6", "table", "106")
        in_namespace(lab_names["one"], "route", "add", "default", "via", "10.0.0.1", "dev", "ens6", "table", "106")
        assert await one.ping("10.0.1.10", source="10.0.0.20"), "a table of its own sends it out by ens6"


async def test_an_address_that_moves_takes_its_traffic_along(fabric: Fabric, lab_names: dict[str, str]) -> None:
    await fabric.apply(state(owning(ONE, "10.0.0.60"), owning(TWO)))
    for name in ("one", "two"):
        hold(lab_names[name], "ens5", "10.0.0.60")

    with Pinger(lab_names["outside"]) as outside:
        await fabric.attach_segment(Segment("outside", lab_names["outside"], "203.0.113.0/24"))
        assert await outside.ping("10.0.0.60")
        await fabric.apply(state(owning(ONE), owning(TWO, "10.0.0.60"), revision=2))
        in_namespace(lab_names["one"], "address", "delete", "10.0.0.60/32", "dev", "ens5")
        assert await outside.ping("10.0.0.60"), "only the second instance holds it now"


async def test_detaching_takes_the_device_away_and_attaching_brings_it_back(
    fabric: Fabric, lab_names: dict[str, str]
) -> None:
    await fabric.apply(state(owning(ONE), owning(ONE_MORE)))
    await fabric.apply(state(owning(ONE), revision=2))
    assert "ens6" not in in_namespace(lab_names["one"], "link")
    moved = replace(owning(ONE_MORE, "10.0.0.21"), instance_id="i-2", device_index=2)
    await fabric.apply(state(owning(ONE), moved, revision=3))
    assert ONE_MORE.mac in in_namespace(lab_names["two"], "link", "show", "ens7")


async def test_the_same_state_again_changes_nothing(fabric: Fabric) -> None:
    whole = state(owning(ONE, "10.0.0.11", "10.0.0.12"), owning(TWO))
    assert await fabric.apply(whole)
    assert not await fabric.apply(whole)


async def test_after_damage_the_next_state_repairs(fabric: Fabric, lab_names: dict[str, str]) -> None:
    await fabric.apply(state(owning(ONE, "10.0.0.11"), owning(TWO)))
    in_namespace(lab_names["router"], "link", "delete", ONE.router_device)
    with pytest.raises(OSError, match="no device"):
        await fabric.apply(state(owning(ONE, "10.0.0.11", "10.0.0.12"), owning(TWO), revision=2))
    await fabric.apply(state(owning(ONE, "10.0.0.11", "10.0.0.12"), owning(TWO), revision=2))
    with Pinger(lab_names["one"]) as one:
        assert await one.ping("10.0.1.10")


async def test_two_hundred_addresses_are_quick(fabric: Fabric) -> None:
    many = [f"10.0.0.{n}" for n in range(30, 230)]
    await fabric.apply(state(owning(ONE), owning(TWO)))
    done = await fabric.apply(state(owning(ONE, *many), owning(TWO), revision=2))
    assert len(done.route) == 200
    await fabric.wait_applied(2)


async def test_clouds_come_and_change_without_each_other(fabric: Fabric, lab_names: dict[str, str]) -> None:
    other = replace(
        TWO, subnet_cidr="10.1.1.0/24", vpc_cidr="10.1.0.0/16", primary_address="10.1.1.10", addresses=frozenset()
    )
    await fabric.apply(state(owning(ONE)), "aws")
    await fabric.apply(state(owning(other)), "azure")
    with Pinger(lab_names["one"]) as one:
        assert await one.ping("10.1.1.10")
        await fabric.apply(state(owning(ONE, "10.0.0.11"), revision=9), "aws")
        await fabric.wait_applied(9, "aws")
        assert await one.ping("10.1.1.10"), "one cloud's change leaves the other's ports alone"


async def test_a_delegated_prefix_is_delivered_as_a_whole(fabric: Fabric, lab_names: dict[str, str]) -> None:
    await fabric.apply(state(owning(ONE, "10.0.0.32/28"), owning(TWO)))
    hold(lab_names["one"], "ens5", "10.0.0.33")
    hold(lab_names["one"], "ens5", "10.0.0.47")
    hold(lab_names["one"], "ens5", "10.0.0.48")
    with Pinger(lab_names["two"]) as two:
        assert await two.ping("10.0.0.33")
        assert await two.ping("10.0.0.47")
        assert not await two.ping("10.0.0.48", attempts=1), "the next prefix is nobody's"
        await fabric.apply(state(owning(ONE), owning(TWO), revision=2))
        assert not await two.ping("10.0.0.33", attempts=1)
