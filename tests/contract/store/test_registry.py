"""What a RegistryStore promises: in memory, on SQLite, on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from services.registry.errors import IdentityTaken, NotFound, StaleLead
from services.registry.model import Endpoint, Identity, Node, NodeState
from services.registry.ports import Changes, RegistryStore
from services.registry.store import SqlRegistryStore
from services.registry.testing import MemoryStore
from services.runtime.store import migrate, open_database

NODE = Node(
    "node-1",
    ("10.0.0.10", "10.0.0.11"),
    {"rack": "7"},
    "aws",
    "i-1",
    "m5.large",
    "a",
    "0.1.0",
    NodeState.LOST,
    registered_at=1000.125,
    heartbeat_at=1001.5,
    pod_cidrs=("10.1.0.0/24", "fd00:1::/64"),
    routing_mode="tunnel",
    tunnel_address="10.0.0.11",
)
POD = Endpoint("node-1", "c1/eth0", "default/web", ("10.0.0.7",), "02:00", "eni-1", {"app": "web"}, 1000.25, 256)
WEB = Identity(256, {"app": "web", "io.kubernetes.pod.namespace": "shop"})


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
async def registry_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RegistryStore]:
    if request.param == "memory":
        yield MemoryStore()
        return
    url = f"sqlite:///{tmp_path}/r.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    async with open_database(url) as database:
        await migrate(database, "services.registry.migrations")
        yield SqlRegistryStore(database)


async def write(store: RegistryStore, changes: Changes) -> None:
    await store.apply(changes, leader=await store.lead())


async def test_who_led_before_is_refused(registry_store: RegistryStore) -> None:
    before = await registry_store.lead()
    after = await registry_store.lead()
    assert after > before
    with pytest.raises(StaleLead):
        await registry_store.apply(Changes(nodes=[NODE]), leader=before)
    assert list((await registry_store.load()).nodes) == []
    await registry_store.apply(Changes(nodes=[NODE]), leader=after)


async def test_everything_comes_back_in_order(registry_store: RegistryStore) -> None:
    other = replace(POD, id="b/eth0", pod="")
    await write(registry_store, Changes(nodes=[NODE, Node("node-0")], endpoints=[POD, other]))
    stored = await registry_store.load()
    assert list(stored.nodes) == [Node("node-0"), NODE]
    assert list(stored.endpoints) == [other, POD]


async def test_what_is_written_again_is_replaced(registry_store: RegistryStore) -> None:
    await write(registry_store, Changes(nodes=[NODE], endpoints=[POD]))
    node, pod = replace(NODE, state=NodeState.READY, labels={}), replace(POD, addresses=("10.0.0.8",))
    await write(registry_store, Changes(nodes=[node], endpoints=[pod]))
    stored = await registry_store.load()
    assert (list(stored.nodes), list(stored.endpoints)) == ([node], [pod])


async def test_the_same_id_on_two_nodes_is_two_endpoints(registry_store: RegistryStore) -> None:
    elsewhere = replace(POD, node="node-2")
    await write(registry_store, Changes(nodes=[NODE, Node("node-2")], endpoints=[POD, elsewhere]))
    await write(registry_store, Changes(removed_endpoints=[POD.key, ("node-1", "never/there")]))
    assert list((await registry_store.load()).endpoints) == [elsewhere]


async def test_a_removed_node_takes_its_endpoints_along(registry_store: RegistryStore) -> None:
    await write(registry_store, Changes(nodes=[NODE, Node("node-2")], endpoints=[POD, replace(POD, node="node-2")]))
    await write(registry_store, Changes(removed_nodes=["node-1", "never-there"]))
    stored = await registry_store.load()
    assert [node.name for node in stored.nodes] == ["node-2"]
    assert [endpoint.node for endpoint in stored.endpoints] == ["node-2"]


async def test_an_endpoint_of_nobody_is_refused_with_all_that_came_along(registry_store: RegistryStore) -> None:
    with pytest.raises(NotFound):
        await write(registry_store, Changes(nodes=[Node("node-2")], endpoints=[POD]))
    assert list((await registry_store.load()).nodes) == []


async def test_heartbeats_touch_nothing_else_and_make_no_node(registry_store: RegistryStore) -> None:
    await write(registry_store, Changes(nodes=[NODE]))
    await write(registry_store, Changes(heartbeats={"node-1": 2000.5, "never-there": 1.0}))
    assert list((await registry_store.load()).nodes) == [replace(NODE, heartbeat_at=2000.5)]


async def test_identities_come_back_in_the_order_of_their_numbers(registry_store: RegistryStore) -> None:
    # Text order would be another one, and the text is longer than an index takes.
    none, long = Identity(0xFFFFFF, {}), Identity(1000, {f"label-{n}": "v" * 500 for n in range(256)})
    await write(registry_store, Changes(identities=[long, none, WEB]))
    assert list((await registry_store.load()).identities) == [WEB, long, none]
    await write(registry_store, Changes(identities=[WEB]))
    await write(registry_store, Changes(removed_identities=[1000, 77]))
    assert list((await registry_store.load()).identities) == [WEB, none]


async def test_a_set_of_labels_has_one_number(registry_store: RegistryStore) -> None:
    await write(registry_store, Changes(identities=[WEB]))
    again = Identity(300, dict(reversed(list(WEB.labels.items()))))
    with pytest.raises(IdentityTaken):
        await write(registry_store, Changes(nodes=[NODE], identities=[again]))
    stored = await registry_store.load()
    assert (list(stored.nodes), list(stored.identities)) == ([], [WEB])
    await write(registry_store, Changes(removed_identities=[256], identities=[again]))
    assert list((await registry_store.load()).identities) == [again]


async def test_a_number_that_is_free_goes_to_other_labels(registry_store: RegistryStore) -> None:
    await write(registry_store, Changes(identities=[WEB]))
    other = Identity(256, {"app": "db"})
    await write(registry_store, Changes(removed_identities=[256], identities=[other]))
    assert list((await registry_store.load()).identities) == [other]
