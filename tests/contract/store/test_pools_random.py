"""Random sequences of Changes leave in a store what they leave in dictionaries."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from ipam.errors import AddressConflict
from ipam.model import (
    AddressKey,
    AddressState,
    CloudInterface,
    Instance,
    Intent,
    IntentKind,
    NodeSpec,
    Operation,
    Step,
)
from ipam.ports import Changes, PoolStore, Stored
from ipam.store import SqlPoolStore, tables
from ipam.testing import MemoryStore
from services.runtime.store import migrate, open_database

VPCS = ["vpc-1", "vpc-2"]  # with the same ranges
ADDRESSES = [f"10.0.0.{n}" for n in range(8)]
KEYS = [(vpc, address) for vpc in VPCS for address in ADDRESSES]
INSTANCES = ["i-0", "i-1", "i-2"]
INTENTS = ["intent-0", "intent-1"]
STATES = [AddressState.AVAILABLE, AddressState.MARKED, AddressState.READY, AddressState.RELEASING]


def some(values: list[str], most: int = 3) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(values), unique=True, max_size=most)


@st.composite
def instances(draw: st.DrawFn, id: str) -> Instance:
    ids = draw(some([f"eni-{id}-{n}" for n in range(3)]))
    vpc = draw(st.sampled_from(VPCS))
    owned = [
        CloudInterface(eni, "02:00", "subnet-1", vpc, "a", "10.9.9.9", tuple(draw(some(ADDRESSES))), instance_id=id)
        for eni in ids
    ]
    return Instance(id, draw(st.sampled_from(["m5.large", "c5.large"])), "a", vpc, interfaces=tuple(owned))


@st.composite
def intents(draw: st.DrawFn, id: str) -> Intent:
    numbers = draw(st.lists(st.integers(0, 3), unique=True).map(sorted))
    steps = tuple(Step(number, Operation.ASSIGN_ADDRESSES, "eni", {"count": number}) for number in numbers)
    return Intent(id, IntentKind.ALLOCATE, "node", steps=steps, attempts=draw(st.integers(0, 5)))


@st.composite
def changes(draw: st.DrawFn) -> Changes:
    written = draw(some(INSTANCES))
    opened = draw(some(INTENTS))
    return Changes(
        instances=[draw(instances(id)) for id in written],
        removed_instances=[id for id in draw(some(INSTANCES, 1)) if id not in written],
        address_states=draw(st.dictionaries(st.sampled_from(KEYS), st.sampled_from(STATES), max_size=4)),
        intents=[draw(intents(id)) for id in opened],
        closed_intents=draw(some(INTENTS, 1)),
        nodes=[NodeSpec(name, name) for name in draw(some(["node-0", "node-1"]))],
        removed_nodes=draw(some(["node-0"], 1)),
    )


@dataclasses.dataclass
class Dictionaries:
    """What should be stored."""

    instances: dict[str, Instance] = dataclasses.field(default_factory=dict)
    states: dict[AddressKey, AddressState] = dataclasses.field(default_factory=dict)
    intents: dict[str, Intent] = dataclasses.field(default_factory=dict)
    nodes: dict[str, NodeSpec] = dataclasses.field(default_factory=dict)

    def apply(self, change: Changes) -> bool:
        """False: an address would have two owners, and nothing was written."""
        after = {id: one for id, one in self.instances.items() if id not in change.removed_instances}
        after |= {one.id: one for one in change.instances}
        owned = [(eni.vpc_id, each) for one in after.values() for eni in one.interfaces for each in eni.addresses]
        if len(owned) != len(set(owned)):
            return False
        self.instances = after
        states = {key: state for key, state in {**self.states, **change.address_states}.items() if key in owned}
        self.states = {key: state for key, state in states.items() if state != AddressState.AVAILABLE}
        self.intents |= {one.id: one for one in change.intents}
        self.nodes |= {one.name: one for one in change.nodes}
        for id in change.closed_intents:
            self.intents.pop(id, None)
        for name in change.removed_nodes:
            self.nodes.pop(name, None)
        return True

    def equals(self, stored: Stored) -> None:
        assert {one.id: one for one in stored.instances} == self.instances
        assert dict(stored.address_states) == self.states
        assert {one.id: one for one in stored.intents} == self.intents
        assert {one.name: one for one in stored.nodes} == self.nodes


async def follow(store: PoolStore, sequence: list[Changes]) -> None:
    fence = await store.lead("test", 1000)
    assert fence is not None
    expected = Dictionaries()
    for change in sequence:
        if expected.apply(change):
            await store.apply(change, leader=fence)
        else:
            with pytest.raises(AddressConflict):
                await store.apply(change, leader=fence)
        expected.equals(await store.load())


@asynccontextmanager
async def emptied_store(url: str) -> AsyncIterator[PoolStore]:
    if not url:
        yield MemoryStore()
        return
    async with open_database(url) as database:
        await migrate(database, "ipam.migrations")
        await database.write(_empty)
        yield SqlPoolStore(database)


def _empty(connection: Connection) -> None:
    for table in reversed(tables.metadata.sorted_tables):
        connection.execute(table.delete())


async def run(url: str, sequence: list[Changes]) -> None:
    async with emptied_store(url) as store:
        await follow(store, sequence)


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def random_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a database, or nothing for memory."""
    if request.param == "postgresql":
        url: str = request.getfixturevalue("postgres_url")
        return url
    return f"sqlite:///{tmp_path}/random.db" if request.param == "sqlite" else ""


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sequence=st.lists(changes(), min_size=1, max_size=6))
def test_a_store_equals_dictionaries(random_url: str, sequence: list[Changes]) -> None:
    asyncio.run(run(random_url, sequence))
