"""Writes instances with their interfaces and addresses, where no address of a VPC may ever get a second owner.

An address that moves between interfaces written in one transaction keeps its row, and so its state. Order therefore:
read what is, write instances and interfaces, move and insert addresses, and only then delete what is gone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, bindparam, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from ipam.errors import AddressConflict
from ipam.model import AddressKey, AddressState, Instance
from ipam.store import tables
from ipam.store.upsert import chunks, upsert

_interface, _address = tables.interfaces.c, tables.addresses.c

# Built once: these run for every change of every node.
_OF_INSTANCES: Final = (
    select(_interface.id, _address.vpc_id, _address.address, _address.position)
    .select_from(tables.interfaces.outerjoin(tables.addresses))
    .where(_interface.instance_id.in_(bindparam("ids", expanding=True)))
)
_ADDRESSES_OF_INTERFACES: Final = (
    select(_address.vpc_id, _address.address, _interface.id, _interface.instance_id)
    .join_from(tables.addresses, tables.interfaces)
    .where(_interface.id.in_(bindparam("ids", expanding=True)))
)
_SOME: Final = (_address.vpc_id == bindparam("vpc"), _address.address.in_(bindparam("addresses", expanding=True)))
_OWNERS: Final = select(_address.vpc_id, _address.address, _address.interface_id).where(*_SOME)
_FORGET: Final = delete(tables.addresses).where(*_SOME)
_ADD: Final = insert(tables.addresses)
_ONE: Final = (_address.vpc_id == bindparam("vpc"), _address.address == bindparam("of"))
_MOVE: Final = update(tables.addresses).where(*_ONE).values(interface_id=bindparam("to"), position=bindparam("at"))
_SET_STATE: Final = update(tables.addresses).where(*_ONE).values(state=bindparam("to"))

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


def write_states(connection: Connection, states: Mapping[AddressKey, AddressState]) -> None:
    """Sets the states of addresses; one that no interface has is passed over."""
    if states:
        connection.execute(_SET_STATE, [{"vpc": vpc, "of": of, "to": state} for (vpc, of), state in states.items()])


def _interface_rows(instances: Mapping[str, Instance]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for instance in instances.values():
        for position, interface in enumerate(instance.interfaces):
            other = found.get(interface.id)
            if other is not None:
                raise _conflict(interface.id, other["instance_id"], instance.id)
            found[interface.id] = tables.row(tables.interfaces, interface, instance_id=instance.id, position=position)
    return found


def _interfaces_of(connection: Connection, instance_ids: Sequence[str]) -> tuple[set[str], dict[AddressKey, Place]]:
    """Interfaces of these instances, and where their addresses stand."""
    found: set[str] = set()
    there: dict[AddressKey, Place] = {}
    for some in chunks(instance_ids):
        for id, vpc_id, address, position in connection.execute(_OF_INSTANCES, {"ids": some}):
            found.add(id)
            if address is not None:
                there[vpc_id, address] = (id, position)
    return found, there


def _refuse_foreign(connection: Connection, new: Sequence[str], interfaces: Mapping[str, Mapping[str, Any]]) -> None:
    """An interface with addresses comes from an instance written along with it, not from one that still claims it."""
    for some in chunks(new):
        for vpc_id, address, id, instance_id in connection.execute(_ADDRESSES_OF_INTERFACES, {"ids": some}):
            owner, claimant = f"{id} of {instance_id}", f"{id} of {interfaces[id]['instance_id']}"
            raise _taken((vpc_id, address), owner, claimant)


def _wanted(instances: Mapping[str, Instance], there: Mapping[AddressKey, Place]) -> dict[AddressKey, Place]:
    """Where each address shall stand. One that need not move keeps its rank, so that few rows change."""
    wanted: dict[AddressKey, Place] = {}
    for instance in instances.values():
        for interface in instance.interfaces:
            last = -1
            for address in interface.all_addresses:
                key = interface.vpc_id, address
                if key in wanted:
                    raise _taken(key, wanted[key][0], interface.id)
                place = there.get(key)
                if place is None or place[0] != interface.id or place[1] <= last:
                    place = (interface.id, last + 1)
                wanted[key] = place
                last = place[1]
    return wanted


def _write_addresses(
    connection: Connection, there: Mapping[AddressKey, Place], wanted: Mapping[AddressKey, Place]
) -> None:
    for some in _by_vpc([key for key in there if key not in wanted]):
        connection.execute(_FORGET, some)
    moved = [
        {"vpc": key[0], "of": key[1], "to": place[0], "at": place[1]}
        for key, place in wanted.items()
        if key in there and there[key] != place
    ]
    if moved:
        connection.execute(_MOVE, moved)
    new: list[dict[str, Any]] = [
        {
            "vpc_id": key[0], "address": key[1], "interface_id": place[0], "position": place[1],
            "state": AddressState.AVAILABLE,
        }
        for key, place in wanted.items()
        if key not in there
    ]  # fmt: skip
    if not new:
        return
    try:
        with connection.begin_nested():
            connection.execute(_ADD, new)
    except IntegrityError as error:
        for some in _by_vpc([(one["vpc_id"], one["address"]) for one in new]):
            for vpc_id, address, owner in connection.execute(_OWNERS, some):
                raise _taken((vpc_id, address), owner, wanted[vpc_id, address][0]) from error
        raise


def _by_vpc(keys: Sequence[AddressKey]) -> Iterator[dict[str, object]]:
    """Values of _SOME that stand for all of `keys`."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for vpc_id, address in keys:
        found[vpc_id].append(address)
    for vpc_id, addresses in found.items():
        for some in chunks(addresses):
            yield {"vpc": vpc_id, "addresses": some}


def _delete(connection: Connection, column: Any, values: Sequence[str]) -> None:
    for some in chunks(values):
        connection.execute(delete(column.table).where(column.in_(some)))


def _taken(key: AddressKey, owner: str, claimant: str) -> AddressConflict:
    vpc_id, address = key
    return _conflict(f"{address} of {vpc_id}", owner, claimant, field=address)


def _conflict(what: str, owner: str, claimant: str, *, field: str = "") -> AddressConflict:
    return AddressConflict(
        f"{what} belongs to {owner} and cannot belong to {claimant} too",
        field=field or what,
        remedy="resync with the cloud; if it persists, the cloud tells of two owners: look at both there",
    )
