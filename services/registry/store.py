"""SqlRegistryStore: nodes, endpoints and identities in a relational database, behind ports.RegistryStore."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, Final, TypeVar

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Connection,
    Double,
    ForeignKey,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    bindparam,
    delete,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from services.registry.errors import IdentityTaken, NotFound, StaleLead
from services.registry.identities import digest
from services.registry.model import Endpoint, EndpointKey, Identity, Node, NodeState
from services.registry.ports import Changes, Stored
from services.runtime.store import Database

T = TypeVar("T")

_CHUNK: Final = 500

metadata: Final = MetaData()


def _text(name: str, **options: Any) -> Column[str]:
    return Column(name, String, nullable=False, **options)


leadership = Table("leadership", metadata, _text("name", primary_key=True), Column("fence", BigInteger, nullable=False))

nodes = Table(
    "nodes",
    metadata,
    _text("name", primary_key=True),
    Column("addresses", JSON, nullable=False),
    Column("labels", JSON, nullable=False),
    _text("cloud"),
    _text("instance_id"),
    _text("instance_type"),
    _text("zone"),
    _text("version"),
    _text("state"),
    Column("registered_at", Double, nullable=False),
    Column("heartbeat_at", Double, nullable=False),
    Column("pod_cidrs", JSON, nullable=False, server_default="[]"),
    _text("routing_mode", server_default=""),
    _text("tunnel_address", server_default=""),
)

endpoints = Table(
    "endpoints",
    metadata,
    Column("node", String, ForeignKey("nodes.name", ondelete="CASCADE"), primary_key=True),
    _text("id", primary_key=True),
    _text("pod"),
    Column("addresses", JSON, nullable=False),
    _text("mac"),
    _text("interface_id"),
    Column("labels", JSON, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("identity", BigInteger, nullable=False, server_default="0"),
)

identities = Table(
    "identities",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    _text("digest"),
    Column("labels", JSON, nullable=False),
    UniqueConstraint("digest", name="identities_digest_key"),
)


class SqlRegistryStore:
    """RegistryStore in a database that services.registry.migrations has brought to its newest version."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def lead(self) -> int:
        return await self._database.write(_lead)

    async def load(self) -> Stored:
        return await self._database.read(_load)

    async def apply(self, changes: Changes, *, leader: int) -> None:
        await self._database.write(lambda connection: _apply(connection, changes, leader))


def _lead(connection: Connection) -> int:
    fence = int(connection.execute(select(leadership.c.fence)).scalar_one_or_none() or 0) + 1
    _upsert(connection, leadership, [{"name": "registry", "fence": fence}])
    return fence


def _load(connection: Connection) -> Stored:
    node_rows = connection.execute(select(nodes).order_by(nodes.c.name)).mappings()
    endpoint_rows = connection.execute(select(endpoints).order_by(endpoints.c.node, endpoints.c.id)).mappings()
    identity_rows = connection.execute(select(identities).order_by(identities.c.number))
    return Stored(
        nodes=[
            Node(
                **{
                    **row,
                    "addresses": tuple(row["addresses"]),
                    "pod_cidrs": tuple(row["pod_cidrs"]),
                    "state": NodeState(row["state"]),
                }
            )
            for row in node_rows
        ],
        endpoints=[Endpoint(**{**row, "addresses": tuple(row["addresses"])}) for row in endpoint_rows],
        identities=[Identity(row.number, row.labels) for row in identity_rows],
    )


def _apply(connection: Connection, changes: Changes, leader: int) -> None:
    fence = connection.execute(select(leadership.c.fence)).scalar_one_or_none()
    if fence != leader:
        raise StaleLead(f"leader {leader} was followed by {fence}", remedy="this replica stops; speak to the other one")
    _number(connection, changes)
    for names in _chunks(changes.removed_nodes):
        connection.execute(delete(nodes).where(nodes.c.name.in_(names)))
    _upsert(connection, nodes, [asdict(node) | {"state": str(node.state)} for node in changes.nodes])
    gone = delete(endpoints).where(endpoints.c.node == bindparam("of_node"), endpoints.c.id == bindparam("of_id"))
    if changes.removed_endpoints:
        connection.execute(gone, [_key(key) for key in changes.removed_endpoints])
    try:
        _upsert(connection, endpoints, [asdict(endpoint) for endpoint in changes.endpoints])
    except IntegrityError as error:
        named = ", ".join(sorted({endpoint.node for endpoint in changes.endpoints}))
        raise NotFound(f"endpoints of a node that is not registered: {named}", field="endpoints") from error
    if changes.heartbeats:
        beat = update(nodes).where(nodes.c.name == bindparam("of")).values(heartbeat_at=bindparam("at"))
        connection.execute(beat, [{"of": name, "at": at} for name, at in changes.heartbeats.items()])


def _number(connection: Connection, changes: Changes) -> None:
    if changes.removed_identities:
        gone = delete(identities).where(identities.c.number == bindparam("gone"))
        connection.execute(gone, [{"gone": number} for number in changes.removed_identities])
    rows = [{"number": one.number, "digest": digest(one.labels), "labels": one.labels} for one in changes.identities]
    try:
        _upsert(connection, identities, rows)
    except IntegrityError as error:
        named = ", ".join(str(one.number) for one in changes.identities)
        raise IdentityTaken(f"the labels of one of the identities {named} have another number already") from error


def _key(key: EndpointKey) -> dict[str, str]:
    return {"of_node": key[0], "of_id": key[1]}


def _upsert(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    if not rows:
        return
    insert = postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)
    keys = [column.name for column in table.primary_key]
    values = {name: insert.excluded[name] for name in table.c.keys() if name not in keys}  # noqa: SIM118
    connection.execute(insert.on_conflict_do_update(index_elements=keys, set_=values), rows)


def _chunks(values: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(values), _CHUNK):
        yield list(values[start : start + _CHUNK])
