"""SqlPoolStore: the tables of one IPAM service, behind ipam.ports.PoolStore."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import msgspec
from sqlalchemy import Connection, Table, bindparam, delete, insert, select, text, update
from sqlalchemy.exc import SQLAlchemyError

from ipam.errors import StaleFence, StoreError
from ipam.model import (
    AddressKey,
    AddressState,
    CloudInterface,
    DeadLetter,
    Instance,
    Intent,
    Limits,
    NodeSpec,
    Policy,
    SecurityGroup,
    Step,
    Subnet,
    Watermarks,
    members,
)
from ipam.ports import Block, Changes, Clock, Stored
from ipam.store import tables
from ipam.store.instances import write_instances, write_states
from ipam.store.upsert import chunks, upsert

T = TypeVar("T")

_POOL: Final = "pool"
_FENCE: Final = select(tables.leadership.c.fence)
_FORGET_STEPS: Final = delete(tables.steps).where(tables.steps.c.intent_id.in_(bindparam("ids", expanding=True)))
_ADD_STEPS: Final = insert(tables.steps)
_WATERMARKS: Final = ("pre_allocate", "min_allocate", "max_allocate", "max_above_watermark")


class Database(Protocol):
    """What the store needs of its database. Raises SQLAlchemyError, or what the work raises."""

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Runs `work` in a transaction that sees one state throughout."""

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Runs `work` in a serialisable transaction; durable when it returns. `work` may run more than once."""


class SqlPoolStore:
    """PoolStore in a database that ipam.migrations has brought to its newest version.

    :param clock: judges leadership. None, as it should be in production: the database's own clock, which all replicas
        share.
    """

    def __init__(self, database: Database, clock: Clock | None = None) -> None:
        self._database = database
        self._clock = clock

    async def load(self) -> Stored:
        with _store_errors():
            return await self._database.read(_load)

    async def apply(self, changes: Changes, *, leader: int) -> None:
        with _store_errors():
            await self._database.write(lambda connection: _apply(connection, changes, leader))

    async def lead(self, holder: str, ttl_s: float) -> int | None:
        with _store_errors():
            return await self._database.write(partial(self._lead, holder=holder, ttl_s=ttl_s))

    async def resign(self, holder: str) -> None:
        ours = tables.leadership.c.holder == holder
        resigned = update(tables.leadership).where(ours).values(holder="", until_at=0.0)
        with _store_errors():
            await self._database.write(lambda connection: connection.execute(resigned))

    def _lead(self, connection: Connection, holder: str, ttl_s: float) -> int | None:
        table = tables.leadership
        now = self._now(connection)
        leader = connection.execute(select(table).where(table.c.pool == _POOL)).one_or_none()
        if leader is None:
            connection.execute(insert(table).values(pool=_POOL, holder=holder, fence=1, until_at=now + ttl_s))
            return 1
        if leader.holder not in ("", holder) and now < leader.until_at:
            return None
        fence: int = leader.fence + (leader.holder != holder)
        connection.execute(update(table).values(holder=holder, fence=fence, until_at=now + ttl_s))
        return fence

    def _now(self, connection: Connection) -> float:
        if self._clock is not None:
            return self._clock.now()
        if connection.dialect.name == "postgresql":
            return float(connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())
        return time.time()  # SQLite has no clock but its host's


@contextmanager
def _store_errors() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        raise StoreError(
            getattr(error, "message", "") or str(error),
            field=getattr(error, "field", ""),
            remedy=getattr(error, "remedy", "") or "see the service's log",
            retry_after_s=getattr(error, "retry_after_s", None),
        ) from error


def _apply(connection: Connection, changes: Changes, leader: int) -> None:
    current = connection.execute(_FENCE).scalar_one_or_none()
    if current != leader:
        raise StaleFence(
            f"leadership {leader} was followed by {current or 'none'}", remedy="lead again and load before writing"
        )
    write_instances(connection, changes.instances, changes.removed_instances)
    write_states(connection, changes.address_states)
    upsert(connection, tables.nodes, [_node_row(node) for node in changes.nodes])
    _write_intents(connection, {intent.id: intent for intent in changes.intents}, set(changes.closed_intents))
    upsert(connection, tables.dead_letters, [_dead_letter_row(letter) for letter in changes.dead_letters])
    for table, facts in (
        (tables.limits, changes.limits),
        (tables.subnets, changes.subnets),
        (tables.security_groups, changes.security_groups),
        (tables.blocks, changes.blocks),
    ):
        upsert(connection, table, tables.rows(table, facts))
    _remove(connection, tables.nodes, changes.removed_nodes)
    _remove(connection, tables.intents, changes.closed_intents)
    _remove(connection, tables.dead_letters, changes.removed_dead_letters)
    _remove(connection, tables.blocks, changes.removed_blocks)
    upsert(connection, tables.memos, [{"name": name, "body": body} for name, body in changes.memos.items()])
    _remove(connection, tables.memos, changes.removed_memos)


def _remove(connection: Connection, table: Table, keys: Sequence[str]) -> None:
    (key,) = table.primary_key
    for some in chunks(keys):
        connection.execute(delete(table).where(key.in_(some)))


def _write_intents(connection: Connection, intents: dict[str, Intent], closed: set[str]) -> None:
    open_ = [intent for id, intent in intents.items() if id not in closed]
    upsert(connection, tables.intents, tables.rows(tables.intents, open_))
    for some in chunks([intent.id for intent in open_]):
        connection.execute(_FORGET_STEPS, {"ids": some})
    written = [tables.row(tables.steps, step, intent_id=intent.id) for intent in open_ for step in intent.steps]
    if written:
        connection.execute(_ADD_STEPS, written)


def _node_row(node: NodeSpec) -> dict[str, Any]:
    marks = {name: getattr(node.watermarks, name) for name in _WATERMARKS}
    return tables.row(tables.nodes, node, policy=msgspec.to_builtins(node.policy), **marks)


def _dead_letter_row(letter: DeadLetter) -> dict[str, Any]:
    return tables.row(tables.dead_letters, letter, intent=msgspec.to_builtins(letter.intent, enc_hook=dict))


def _load(connection: Connection) -> Stored:
    column = tables.addresses.c
    marked = select(column.vpc_id, column.address, column.state).where(column.state != AddressState.AVAILABLE)
    states: dict[AddressKey, AddressState] = {(of[0], of[1]): of[2] for of in connection.execute(marked)}
    return Stored(
        nodes=[_node(row) for row in _rows(connection, tables.nodes)],
        instances=_instances(connection),
        address_states=states,
        intents=_intents(connection),
        dead_letters=[
            DeadLetter(**{**row, "intent": msgspec.convert(row["intent"], Intent)})
            for row in _rows(connection, tables.dead_letters)
        ],
        limits=[Limits(**row) for row in _rows(connection, tables.limits)],
        subnets=[Subnet(**row) for row in _rows(connection, tables.subnets)],
        security_groups=[SecurityGroup(**row) for row in _rows(connection, tables.security_groups)],
        blocks=[Block(**row) for row in _rows(connection, tables.blocks)],
        memos={row["name"]: row["body"] for row in _rows(connection, tables.memos)},
    )


def _rows(connection: Connection, table: Table, *order: str) -> list[dict[str, Any]]:
    ordered = select(table).order_by(*(table.c[name] for name in order or (table.primary_key.columns.keys()[0],)))
    return [dict(row._mapping) for row in connection.execute(ordered)]


def _node(row: dict[str, Any]) -> NodeSpec:
    watermarks = Watermarks(**{name: row.pop(name) for name in _WATERMARKS})
    return NodeSpec(watermarks=watermarks, policy=Policy(**row.pop("policy")), **row)


def _instances(connection: Connection) -> list[Instance]:
    addresses: dict[str, list[str]] = defaultdict(list)
    column = tables.addresses.c
    ranked = select(column.address, column.interface_id).order_by(column.interface_id, column.position)
    for address, interface_id in connection.execute(ranked):
        addresses[interface_id].append(address)
    interfaces: dict[str, list[CloudInterface]] = defaultdict(list)
    for row in _rows(connection, tables.interfaces, "instance_id", "position"):
        del row["position"]
        of_prefixes = {address for prefix in row["prefixes"] for address in members(prefix)}
        owned = tuple(address for address in addresses.get(row["id"], ()) if address not in of_prefixes)
        interfaces[row["instance_id"]].append(CloudInterface(addresses=owned, **row))
    return [
        Instance(interfaces=tuple(interfaces.get(row["id"], ())), **row) for row in _rows(connection, tables.instances)
    ]


def _intents(connection: Connection) -> list[Intent]:
    steps: dict[str, list[Step]] = defaultdict(list)
    for row in _rows(connection, tables.steps, "intent_id", "number"):
        steps[row.pop("intent_id")].append(Step(**row))
    return [
        Intent(steps=tuple(steps.get(row["id"], ())), **row)
        for row in _rows(connection, tables.intents, "created_at", "id")
    ]
