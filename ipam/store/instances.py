"""Writes instances with their interfaces and addresses, where no address may ever get a second owner.

An address that moves between interfaces written in one transaction keeps its row, and so its state. Order therefore:
read what is, write instances and interfaces, move and insert addresses, and only then delete what is gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, bindparam, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from ipam.errors import AddressConflict
from ipam.model import AddressState, Instance
from ipam.store import tables
from ipam.store.upsert import chunks, upsert

_interface, _address = tables.interfaces.c, tables.addresses.c

# Built once: these run for every change of every node.
_OF_INSTANCES: Final = (
    select(_interface.id, _address.address, _address.position)
    .select_from(tables.interfaces.outerjoin(tables.addresses))
    .where(_interface.instance_id.in_(bindparam("ids", expanding=True)))
)
_ADDRESSES_OF_INTERFACES: Final = (
    select(_address.address, _interface.id, _interface.instance_id)
    .join_from(tables.addresses, tables.interfaces)
    .where(_interface.id.in_(bindparam("ids", expanding=True)))
)
_OWNERS: Final = select(_address.address, _address.interface_id).where(
    _address.address.in_(bindparam("addresses", expanding=True))
)
_ADD: Final = insert(tables.addresses)
_MOVE: Final = (
    update(tables.addresses)
    .where(_address.address == bindparam("of"))
    .values(interface_id=bindparam("to"), position=bindparam("at"))
)
_SET_STATE: Final = update(tables.addresses).where(_address.address == bindparam("of")).values(state=bindparam("to"))

# Where an address stands: its interface, and its rank among that interface's addresses (ascending, with gaps).
Place = tuple[str, int]


def write_instances(connection: Connection, instances: Sequence[Instance], removed: Sequence[str]) -> None:
    """Makes `instances` what is stored of them, and forgets `removed`. Raises AddressConflict."""
    gone = set(removed)
    written = {instance.id: instance for instance in instances if instance.id not in gone}
    if not written and not gone:
        return
    interfaces = _interface_rows(written)
    before, there = _interfaces_of(connection, [*written, *gone])
    _refuse_foreign(connection, [id for id in interfaces if id not in before], interfaces)
    upsert(connection, tables.instances, tables.rows(tables.instances, written.values()))
    upsert(connection, tables.interfaces, list(interfaces.values()))
    _write_addresses(connection, there, _wanted(written, there))
    _delete(connection, _interface.id, [id for id in before if id not in interfaces])
    _delete(connection, tables.instances.c.id, list(gone))


def write_states(connection: Connection, states: Mapping[str, AddressState]) -> None:
    """Sets the states of addresses; one that no interface has is passed over."""
    if states:
        connection.execute(_SET_STATE, [{"of": address, "to": state} for address, state in states.items()])


def _interface_rows(instances: Mapping[str, Instance]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for instance in instances.values():
        for position, interface in enumerate(instance.interfaces):
            other = found.get(interface.id)
            if other is not None:
                raise _conflict(interface.id, other["instance_id"], instance.id)
            found[interface.id] = tables.row(tables.interfaces, interface, instance_id=instance.id, position=position)
    return found


def _interfaces_of(connection: Connection, instance_ids: Sequence[str]) -> tuple[set[str], dict[str, Place]]:
    """Interfaces of these instances, and where their addresses stand."""
    found: set[str] = set()
    there: dict[str, Place] = {}
    for some in chunks(instance_ids):
        for id, address, position in connection.execute(_OF_INSTANCES, {"ids": some}):
            found.add(id)
            if address is not None:
                there[address] = (id, position)
    return found, there


def _refuse_foreign(connection: Connection, new: Sequence[str], interfaces: Mapping[str, Mapping[str, Any]]) -> None:
    """An interface with addresses comes from an instance written along with it, not from one that still claims it."""
    for some in chunks(new):
        for address, id, instance_id in connection.execute(_ADDRESSES_OF_INTERFACES, {"ids": some}):
            raise _conflict(address, f"{id} of {instance_id}", f"{id} of {interfaces[id]['instance_id']}")


def _wanted(instances: Mapping[str, Instance], there: Mapping[str, Place]) -> dict[str, Place]:
    """Where each address shall stand. One that need not move keeps its rank, so that few rows change."""
    wanted: dict[str, Place] = {}
    for instance in instances.values():
        for interface in instance.interfaces:
            last = -1
            for address in interface.all_addresses:
                if address in wanted:
                    raise _conflict(address, wanted[address][0], interface.id)
                place = there.get(address)
                if place is None or place[0] != interface.id or place[1] <= last:
                    place = (interface.id, last + 1)
                wanted[address] = place
                last = place[1]
    return wanted


def _write_addresses(connection: Connection, there: Mapping[str, Place], wanted: Mapping[str, Place]) -> None:
    _delete(connection, _address.address, [address for address in there if address not in wanted])
    moved = [
        {"of": address, "to": place[0], "at": place[1]}
        for address, place in wanted.items()
        if address in there and there[address] != place
    ]
    if moved:
        connection.execute(_MOVE, moved)
    new: list[dict[str, Any]] = [
        {"address": address, "interface_id": place[0], "position": place[1], "state": AddressState.AVAILABLE}
        for address, place in wanted.items()
        if address not in there
    ]
    if not new:
        return
    try:
        with connection.begin_nested():
            connection.execute(_ADD, new)
    except IntegrityError as error:
        for address, owner in _owners(connection, [one["address"] for one in new]):
            raise _conflict(address, owner, wanted[address][0]) from error
        raise


def _owners(connection: Connection, addresses: Sequence[str]) -> Iterator[tuple[str, str]]:
    for some in chunks(addresses):
        yield from ((address, owner) for address, owner in connection.execute(_OWNERS, {"addresses": some}))


def _delete(connection: Connection, column: Any, values: Sequence[str]) -> None:
    for some in chunks(values):
        connection.execute(delete(column.table).where(column.in_(some)))


def _conflict(what: str, owner: str, claimant: str) -> AddressConflict:
    return AddressConflict(
        f"{what} belongs to {owner} and cannot belong to {claimant} too",
        field=what,
        remedy="resync with the cloud; if it persists, the cloud tells of two owners: look at both there",
    )
