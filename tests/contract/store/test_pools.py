"""What a PoolStore promises: in memory, on SQLite, on PostgreSQL."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ipam.errors import AddressConflict, StaleFence
from ipam.model import (
    AddressState,
    CloudInterface,
    DeadLetter,
    Instance,
    Intent,
    IntentKind,
    Limits,
    NodeSpec,
    Operation,
    SecurityGroup,
    Step,
    Subnet,
    Watermarks,
)
from ipam.ports import Block, Changes, PoolStore, Stored
from ipam.store import SqlPoolStore
from ipam.testing import FakeClock, MemoryStore
from services.runtime.store import migrate, open_database

STORES = ["memory", "sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]


@dataclasses.dataclass
class Replica:
    """A store led by one replica, and the clock that judges its lease."""

    store: PoolStore
    clock: FakeClock
    fence: int = 0

    async def apply(self, **changes: object) -> None:
        await self.store.apply(Changes(**changes), leader=self.fence)  # type: ignore[arg-type]

    async def load(self) -> Stored:
        return await self.store.load()


@pytest.fixture(params=STORES)
async def pools(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Replica]:
    clock = FakeClock()
    if request.param == "memory":
        replica = Replica(MemoryStore(clock), clock)
        replica.fence = await replica.store.lead("first", 10) or 0
        yield replica
        return
    url = f"sqlite:///{tmp_path}/p.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    async with open_database(url) as database:
        await migrate(database, "ipam.migrations")
        replica = Replica(SqlPoolStore(database, clock), clock)
        replica.fence = await replica.store.lead("first", 10) or 0
        yield replica


def interface(id: str, *addresses: str, **more: object) -> CloudInterface:
    facts = {"mac": "02:00:00:00:00:01", "subnet_id": "subnet-1", "vpc_id": "vpc-1", "zone": "a", "device_index": 1}
    return CloudInterface(id=id, primary_address="10.0.9.9", addresses=addresses, **(facts | more))  # type: ignore[arg-type]


def instance(id: str, *interfaces: CloudInterface) -> Instance:
    owned = tuple(dataclasses.replace(interface, instance_id=id) for interface in interfaces)
    return Instance(id=id, type="m5.large", zone="a", vpc_id="vpc-1", interfaces=owned)


def one_of_each(**more: object) -> Changes:
    step = Step(1, Operation.ASSIGN_ADDRESSES, "eni-1", {"count": 4}, client_token="t-1")
    done = dataclasses.replace(step, number=0, result={"addresses": ["10.0.0.7"], "interface": {"id": "eni-1"}})
    intent = Intent(
        "intent-1",
        IntentKind.ALLOCATE,
        "node-1",
        want=4,
        addresses=("10.0.0.1",),
        steps=(done, step),
        attempts=2,
        created_at=1000.25,
        not_before_at=1001.5,
        last_error="throttled",
        holder="worker-1",
        fence=7,
        lease_until_at=1060.0,
    )
    spec = NodeSpec(
        "node-1",
        "i-1",
        watermarks=Watermarks(8, 4, 20, 2),
        subnet_ids=("subnet-1",),
        subnet_tags={"tier": "pods"},
        exclude_interface_tags={"own": "no"},
        delete_on_termination=False,
        labels={"rack": "7"},
    )
    owned = interface("eni-1", "10.0.0.7", "10.0.0.1", tags={"plimsoll": "yes"}, created_at=999.125)
    facts: dict[str, object] = {
        "nodes": [spec],
        "instances": [instance("i-1", interface("eni-0"), owned)],
        "address_states": {("vpc-1", "10.0.0.7"): AddressState.MARKED},
        "intents": [intent],
        "dead_letters": [DeadLetter("dead-1", intent, "subnet full", 1002.5, 1)],
        "limits": [Limits("m5.large", 3, 10, 10, True, 1)],
        "subnets": [Subnet("subnet-1", "10.0.0.0/24", "a", "vpc-1", 200, {"tier": "pods"}, ("10.0.0.0/16",))],
        "security_groups": [SecurityGroup("sg-1", "vpc-1", {"a": "b"})],
        "blocks": [Block("subnet-2", 1300.5, "full")],
    }
    return Changes(**(facts | more))  # type: ignore[arg-type]


async def test_an_empty_store_holds_nothing(pools: Replica) -> None:
    stored = await pools.load()
    assert all(not getattr(stored, field.name) for field in dataclasses.fields(stored))


async def test_everything_comes_back_as_it_was_written(pools: Replica) -> None:
    changes = one_of_each()
    await pools.store.apply(changes, leader=pools.fence)
    stored = await pools.load()
    for field in dataclasses.fields(stored):
        assert _plain(getattr(stored, field.name)) == _plain(getattr(changes, field.name)), field.name


async def test_writing_the_same_again_changes_nothing(pools: Replica) -> None:
    await pools.store.apply(one_of_each(), leader=pools.fence)
    before = await pools.load()
    await pools.store.apply(one_of_each(), leader=pools.fence)
    assert await pools.load() == before


async def test_what_is_removed_is_gone(pools: Replica) -> None:
    await pools.store.apply(one_of_each(), leader=pools.fence)
    await pools.apply(
        removed_nodes=["node-1", "never-there"],
        removed_instances=["i-1", "never-there"],
        closed_intents=["intent-1", "never-there"],
        removed_dead_letters=["dead-1"],
        removed_blocks=["subnet-2"],
    )
    stored = await pools.load()
    left = {field.name for field in dataclasses.fields(stored) if getattr(stored, field.name)}
    assert left == {"subnets", "security_groups", "limits"}


async def test_steps_are_those_of_the_newest_writing(pools: Replica) -> None:
    (intent,) = one_of_each().intents
    await pools.apply(intents=[intent])
    await pools.apply(intents=[dataclasses.replace(intent, steps=intent.steps[:1])])
    assert [step.number for step in (await pools.load()).intents[0].steps] == [0]


async def test_an_address_of_another_interface_is_refused_and_nothing_of_the_rest_is_kept(pools: Replica) -> None:
    await pools.apply(instances=[instance("i-1", interface("eni-1", "10.0.0.1", "10.0.0.2"))])
    before = await pools.load()
    with pytest.raises(AddressConflict) as refused:
        await pools.apply(
            nodes=[NodeSpec("node-2", "i-2")],
            instances=[instance("i-2", interface("eni-2", "10.0.0.3", "10.0.0.2"))],
            intents=[Intent("intent-2", IntentKind.RESYNC, "")],
            limits=[Limits("m5.large", 3, 10)],
        )
    assert refused.value.field == "10.0.0.2"
    assert await pools.load() == before


async def test_an_address_twice_in_one_writing_is_refused(pools: Replica) -> None:
    with pytest.raises(AddressConflict) as refused:
        await pools.apply(instances=[instance("i-1", interface("eni-1", "10.0.0.1"), interface("eni-2", "10.0.0.1"))])
    assert refused.value.field == "10.0.0.1"
    assert not (await pools.load()).instances


async def test_an_interface_with_addresses_is_not_taken_from_an_instance_that_still_has_it(pools: Replica) -> None:
    await pools.apply(instances=[instance("i-1", interface("eni-1", "10.0.0.1"))])
    with pytest.raises(AddressConflict):
        await pools.apply(instances=[instance("i-2", interface("eni-1", "10.0.0.1"))])
    assert [one.id for one in (await pools.load()).instances] == ["i-1"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(
            [instance("i-1", interface("eni-1", "10.0.0.1"), interface("eni-2", "10.0.0.2"))],
            [instance("i-1", interface("eni-1", "10.0.0.2"), interface("eni-2", "10.0.0.1"))],
            id="two interfaces swap their addresses",
        ),
        pytest.param(
            [instance("i-1", interface("eni-1", "10.0.0.1")), instance("i-2")],
            [instance("i-1"), instance("i-2", interface("eni-2", "10.0.0.1"))],
            id="node-2 gets node-1's former address",
        ),
        pytest.param(
            [instance("i-1", interface("eni-1", "10.0.0.1")), instance("i-2")],
            [instance("i-2", interface("eni-1", "10.0.0.1")), instance("i-1")],
            id="an interface moves from node-1 to node-2",
        ),
        pytest.param(
            [instance("i-1", interface("eni-1", "10.0.0.1", "10.0.0.2", "10.0.0.3"))],
            [instance("i-1", interface("eni-1", "10.0.0.3", "10.0.0.4", "10.0.0.1"))],
            id="an interface loses, gains and reorders addresses",
        ),
    ],
)
async def test_addresses_move_within_one_writing(pools: Replica, before: list[Instance], after: list[Instance]) -> None:
    await pools.apply(instances=before)
    await pools.apply(instances=after)
    assert _plain((await pools.load()).instances) == _plain(after)


async def test_an_address_moves_from_a_removed_instance(pools: Replica) -> None:
    await pools.apply(instances=[instance("i-1", interface("eni-1", "10.0.0.1"))])
    await pools.apply(removed_instances=["i-1"], instances=[instance("i-2", interface("eni-2", "10.0.0.1"))])
    assert [one.id for one in (await pools.load()).instances] == ["i-2"]


async def test_a_state_stays_while_its_instance_is_written_again(pools: Replica) -> None:
    owned = instance("i-1", interface("eni-1", "10.0.0.1", "10.0.0.2"))
    await pools.apply(instances=[owned], address_states={("vpc-1", "10.0.0.1"): AddressState.RELEASING})
    await pools.apply(instances=[owned])
    assert (await pools.load()).address_states == {("vpc-1", "10.0.0.1"): AddressState.RELEASING}


async def test_a_state_goes_with_its_address(pools: Replica) -> None:
    await pools.apply(
        instances=[instance("i-1", interface("eni-1", "10.0.0.1"))],
        address_states={("vpc-1", "10.0.0.1"): AddressState.READY},
    )
    await pools.apply(instances=[instance("i-1", interface("eni-1"))])
    await pools.apply(instances=[instance("i-1", interface("eni-1", "10.0.0.1"))])
    assert (await pools.load()).address_states == {}


async def test_available_is_no_state_to_remember(pools: Replica) -> None:
    await pools.apply(
        instances=[instance("i-1", interface("eni-1", "10.0.0.1"))],
        address_states={("vpc-1", "10.0.0.1"): AddressState.MARKED},
    )
    marked = AddressState.MARKED
    await pools.apply(
        address_states={
            ("vpc-1", "10.0.0.1"): AddressState.AVAILABLE, ("vpc-1", "10.7.7.7"): marked, ("vpc-2", "10.0.0.1"): marked,
        }
    )  # fmt: skip
    assert (await pools.load()).address_states == {}


async def test_vpcs_with_the_same_ranges_share_no_address(pools: Replica) -> None:
    theirs = instance("i-2", interface("eni-2", "10.0.0.1", "10.0.0.2", vpc_id="vpc-2"))
    await pools.apply(
        instances=[instance("i-1", interface("eni-1", "10.0.0.1", "10.0.0.2")), theirs],
        address_states={
            ("vpc-1", "10.0.0.1"): AddressState.RELEASING, ("vpc-2", "10.0.0.1"): AddressState.MARKED,
            ("vpc-2", "10.0.0.2"): AddressState.READY,
        },
    )  # fmt: skip
    await pools.apply(instances=[instance("i-1", interface("eni-1", "10.0.0.2"))])
    stored = await pools.load()
    assert {one.id: one.interfaces[0].addresses for one in stored.instances} == {
        "i-1": ("10.0.0.2",), "i-2": ("10.0.0.1", "10.0.0.2"),
    }  # fmt: skip
    assert stored.address_states == {
        ("vpc-2", "10.0.0.1"): AddressState.MARKED, ("vpc-2", "10.0.0.2"): AddressState.READY,
    }  # fmt: skip


async def test_an_address_is_refused_to_a_second_interface_of_its_vpc_alone(pools: Replica) -> None:
    await pools.apply(instances=[instance("i-1", interface("eni-1", "10.0.0.1"))])
    await pools.apply(instances=[instance("i-2", interface("eni-2", "10.0.0.1", vpc_id="vpc-2"))])
    with pytest.raises(AddressConflict, match=r"10\.0\.0\.1 of vpc-2") as refused:
        await pools.apply(instances=[instance("i-3", interface("eni-3", "10.0.0.1", vpc_id="vpc-2"))])
    assert refused.value.field == "10.0.0.1"
    await pools.apply(removed_instances=["i-2"])
    assert [one.id for one in (await pools.load()).instances] == ["i-1"]


async def test_one_leads_and_renews(pools: Replica) -> None:
    assert await pools.store.lead("first", 10) == pools.fence
    assert await pools.store.lead("second", 10) is None
    pools.clock.advance(9)
    assert await pools.store.lead("first", 10) == pools.fence
    pools.clock.advance(9)
    assert await pools.store.lead("second", 10) is None


async def test_an_expired_lease_is_taken_over_and_its_holder_refused(pools: Replica) -> None:
    pools.clock.advance(11)
    fence = await pools.store.lead("second", 10)
    assert fence is not None
    assert fence > pools.fence
    with pytest.raises(StaleFence):
        await pools.apply(nodes=[NodeSpec("node-1", "i-1")])
    assert not (await pools.load()).nodes
    await pools.store.apply(Changes(nodes=[NodeSpec("node-1", "i-1")]), leader=fence)
    assert await pools.store.lead("first", 10) is None


async def test_who_resigns_is_followed_at_once(pools: Replica) -> None:
    await pools.store.resign("nobody")
    assert await pools.store.lead("second", 10) is None
    await pools.store.resign("first")
    fence = await pools.store.lead("second", 10)
    assert fence is not None
    assert fence > pools.fence


async def test_who_comes_back_has_a_new_fence(pools: Replica) -> None:
    await pools.store.resign("first")
    fence = await pools.store.lead("first", 10)
    assert fence is not None
    assert fence > pools.fence


def _plain(facts: object) -> object:
    """Comparable, whatever order and whatever kinds of mappings and sequences a store gives."""
    if isinstance(facts, dict):
        return {key: str(value) for key, value in facts.items()}
    return sorted(map(repr, map(_dictionaries, facts)))  # type: ignore[call-overload]


def _dictionaries(fact: object) -> object:
    if dataclasses.is_dataclass(fact):
        return {field.name: _dictionaries(getattr(fact, field.name)) for field in dataclasses.fields(fact)}
    if isinstance(fact, tuple | list):
        return [_dictionaries(item) for item in fact]
    return dict(fact) if hasattr(fact, "keys") else fact  # type: ignore[call-overload]


async def test_memos_are_kept_changed_and_forgotten(pools: Replica) -> None:
    await pools.apply(memos={"level": {"level": "frozen", "until_at": 12.5}, "warmed/node-1": {}})
    await pools.apply(memos={"level": {"level": "no-release", "until_at": 0.0}}, removed_memos=["warmed/node-1"])
    assert (await pools.load()).memos == {"level": {"level": "no-release", "until_at": 0.0}}
