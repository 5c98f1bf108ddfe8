"""Databases of every released version come up to the newest, whoever starts first.

released/<package>.<version>.<database>.sql is what that release left behind: its tables, and a row of each kind.
A new version adds its own, made of a filled database by `python -m apsw FILE .dump` and `pg_dump --inserts --no-owner`,
without comments and SET lines.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import apsw
import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, MetaData, text

from ipam.model import AddressState
from ipam.store import SqlPoolStore
from ipam.store import tables as pool_tables
from services.registry import store as registry_store
from services.registry.model import Identity, NodeState
from services.registry.store import SqlRegistryStore
from services.runtime.migrate import migrate_apart, newest, version_table
from services.runtime.migrations import current, scripts
from services.runtime.store import Database, StoreError, migrate, open_database

RELEASED = Path(__file__).parent / "released"
PACKAGES: dict[str, MetaData] = {
    "ipam.migrations": pool_tables.metadata,
    "services.registry.migrations": registry_store.metadata,
}


def versions(package: str) -> list[str]:
    return sorted(script.revision for script in scripts(package).walk_revisions())


def restore(url: str, package: str, version: str) -> None:
    """Makes the empty database at `url` what that version left behind."""
    sqlite = url.startswith("sqlite")
    dump = (RELEASED / f"{package}.{version}.{'sqlite' if sqlite else 'postgresql'}.sql").read_text()
    if sqlite:
        database = apsw.Connection(url.removeprefix("sqlite:///"))
        database.execute(dump)
        database.close()
        return
    with psycopg.connect(url) as connection:
        connection.execute(dump)


@pytest.mark.parametrize("package", PACKAGES)
async def test_migrations_lead_to_the_tables_of_the_code(store_database: Database, package: str) -> None:
    await migrate(store_database, package)

    def differences(connection: Connection) -> list[object]:
        options = {"version_table": version_table(package), "compare_type": True}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), PACKAGES[package]))

    assert await store_database.read(differences) == []


@pytest.mark.parametrize(("package", "version"), [(package, one) for package in PACKAGES for one in versions(package)])
async def test_every_version_comes_up(store_url: str, package: str, version: str) -> None:
    restore(store_url, package, version)
    async with open_database(store_url) as database:
        await migrate(database, package)
        assert await database.read(lambda connection: current(connection, package)) == versions(package)[-1]
        if package == "ipam.migrations":
            await pools_are_as_they_were(database, version)
        else:
            await nodes_are_as_they_were(database, version)


async def pools_are_as_they_were(database: Database, version: str) -> None:
    store = SqlPoolStore(database)
    stored = await store.load()
    assert [node.name for node in stored.nodes] == ["node-1"]
    assert stored.nodes[0].watermarks.pre_allocate == 8
    instance, *more = stored.instances
    assert [one.addresses for one in instance.interfaces] == [(), ("10.0.0.7", "10.0.0.1")]
    overlapping = {("vpc-2", "10.0.0.7"): AddressState.RELEASING} if version >= "0005" else {}
    assert stored.address_states == {("vpc-1", "10.0.0.7"): AddressState.MARKED, **overlapping}
    assert [(one.vpc_id, eni.addresses) for one in more for eni in one.interfaces] == [
        (vpc_id, (address,)) for vpc_id, address in overlapping
    ]
    (intent,) = stored.intents
    assert [step.result for step in intent.steps] == [{"addresses": ["10.0.0.7"], "interface": {"id": "eni-1"}}, None]
    assert stored.dead_letters[0].intent == intent
    assert [one.instance_type for one in stored.limits] == ["m5.large"]
    assert (stored.subnets[0].id, stored.security_groups[0].id, stored.blocks[0].subnet_id) == (
        "subnet-1",
        "sg-1",
        "subnet-2",
    )
    newer = version >= "0002"
    assert [one.prefixes for one in instance.interfaces] == [("10.0.1.16/28",) if newer else (), ()]
    assert (stored.nodes[0].prefix_delegation, stored.nodes[0].policy.warm_up) == ((True, 4) if newer else (False, 0))
    assert (stored.subnets[0].ipv6_cidr, stored.subnets[0].free_prefixes) == (
        ("fd00:1::/64", 3) if newer else ("", None)
    )
    assert stored.limits[0].card_interfaces == ((2, 1) if newer else ())
    assert stored.memos.get("level", {}).get("why") == ("moving" if version >= "0003" else None)
    assert stored.nodes[0].subnet_policy == ("ordered" if version >= "0004" else "most-free")
    assert await store.lead("another", 10) == 2


async def nodes_are_as_they_were(database: Database, version: str) -> None:
    stored = await SqlRegistryStore(database).load()
    assert [(node.name, node.state, node.labels) for node in stored.nodes] == [
        ("node-1", NodeState.LOST, {"rack": "7"})
    ]
    assert [(one.node, one.id, one.addresses) for one in stored.endpoints] == [("node-1", "c1/eth0", ("10.0.0.7",))]
    if version >= "0002":
        assert stored.nodes[0].pod_cidrs == ("10.1.0.0/24", "fd00:1::/64")
        assert (stored.endpoints[0].identity, list(stored.identities)) == (256, [Identity(256, {"app": "web"})])
        return
    assert (stored.nodes[0].pod_cidrs, stored.nodes[0].routing_mode) == ((), "")
    assert (stored.endpoints[0].identity, list(stored.identities)) == (0, [])


@pytest.mark.parametrize("package", PACKAGES)
async def test_replicas_that_start_at_once_do_not_meet(store_url: str, package: str) -> None:
    async with (
        open_database(store_url) as one,
        open_database(store_url) as two,
        open_database(store_url) as three,
    ):
        await asyncio.gather(*(migrate(database, package) for database in (one, two, three)))
        assert await one.read(lambda connection: current(connection, package)) == versions(package)[-1]


@pytest.mark.parametrize("package", PACKAGES)
async def test_migrations_may_run_in_a_process_of_their_own(store_database: Database, package: str) -> None:
    assert newest(package) == versions(package)[-1], "modules are named after their versions"
    for _ in range(2):  # the second time there is nothing to do
        await migrate_apart(store_database, package)
        assert await store_database.read(lambda connection: current(connection, package)) == newest(package)


async def test_what_a_process_of_their_own_cannot_do_is_told_here(store_database: Database) -> None:
    await migrate_apart(store_database, "ipam.migrations")
    await store_database.write(lambda c: c.execute(text("UPDATE ipam_version SET version_num = '9999'")))
    with pytest.raises(StoreError, match="has version 9999") as raised:
        await migrate_apart(store_database, "ipam.migrations")
    assert (raised.value.kind, raised.value.field) == ("precondition", "store")
    assert raised.value.remedy.startswith("start the newer release")


async def test_packages_share_a_database(store_database: Database) -> None:
    await store_database.write(lambda connection: connection.execute(text("CREATE TABLE of_somebody_else (a INTEGER)")))
    await migrate(store_database, "ipam.migrations")
    newest = versions("ipam.migrations")[-1]
    assert await store_database.read(lambda c: current(c, "ipam.migrations")) == newest
    assert await store_database.read(lambda c: current(c, "services.registry.migrations")) is None


@pytest.mark.parametrize("package", PACKAGES)
async def test_a_database_of_a_newer_release_is_refused_and_left_alone(store_database: Database, package: str) -> None:
    await migrate(store_database, package)
    newer = text(f"UPDATE {version_table(package)} SET version_num = '9999'")
    await store_database.write(lambda connection: connection.execute(newer))
    with pytest.raises(StoreError, match="9999") as refused:
        await migrate(store_database, package)
    assert refused.value.kind == "precondition"
    assert "newer release" in refused.value.remedy
    assert await store_database.read(lambda connection: current(connection, package)) == "9999"
