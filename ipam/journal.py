"""The node's journal: what must survive a crash, in one SQLite file, written and fsynced before anybody is answered.

Tables: `lease` (one row per address that is leased, or was freed and cools), `fence` (addresses promised to the service
for release), `interface` (the pool as the service last told it), `life` (how often this journal was opened).

Concurrent writers share a commit: whoever holds the commit lock writes everything that has queued up meanwhile, so a
burst of leases costs a handful of fsyncs. UNIQUE(address) and UNIQUE(owner) are the last line of safety.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final

import apsw

from ipam.errors import AddressConflict, StoreError
from ipam.model import NO_TAGS, AddressState, PoolInterface

# One entry brings a journal from the version of its index to the next one. Entries are never edited, only added.
_MIGRATIONS = (
    """
    CREATE TABLE life (id INTEGER PRIMARY KEY CHECK (id = 1), generation INTEGER NOT NULL) STRICT;
    INSERT INTO life VALUES (1, 0);
    CREATE TABLE lease (
        address TEXT PRIMARY KEY, owner TEXT UNIQUE, interface_id TEXT NOT NULL, pod TEXT NOT NULL,
        attributes TEXT NOT NULL, created_at REAL NOT NULL,
        freed_monotonic_s REAL, freed_boot_id TEXT,
        CHECK ((owner IS NULL) = (freed_monotonic_s IS NOT NULL))
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE fence (address TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
    CREATE TABLE interface (id TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
    """,
)

# Attribute of a lease: the IPv6 address that its pod has beside the leased one.
ADDRESS6: Final = "address6"

_LEASE = """
    INSERT INTO lease (address, owner, interface_id, pod, attributes, created_at) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (address) DO UPDATE SET owner = excluded.owner, interface_id = excluded.interface_id,
        pod = excluded.pod, attributes = excluded.attributes, created_at = excluded.created_at,
        freed_monotonic_s = NULL, freed_boot_id = NULL
    WHERE lease.owner IS NULL OR lease.owner = excluded.owner
"""
_FREE = """
    UPDATE lease SET owner = NULL, freed_monotonic_s = ?, freed_boot_id = ? WHERE address = ? AND owner = ?
"""

_Statement = tuple[str, tuple[object, ...], int]  # SQL, bindings, least number of rows it must touch


@dataclass(frozen=True, slots=True)
class Owner:
    """Whom an address is leased to: one interface of one container."""

    container_id: str
    interface_name: str

    def __str__(self) -> str:
        return f"{self.container_id}/{self.interface_name}"


@dataclass(frozen=True, slots=True)
class Lease:
    """An address in the hands of an owner. `created_at` is wall-clock seconds, for people only."""

    owner: Owner
    address: str
    interface_id: str
    created_at: float
    pod: str = ""
    attributes: Mapping[str, str] = NO_TAGS


@dataclass(frozen=True, slots=True)
class Cooling:
    """An address freed at `freed_monotonic_s` of the boot named. `attributes` are those of its last lease."""

    address: str
    freed_monotonic_s: float
    freed_boot_id: str
    attributes: Mapping[str, str] = NO_TAGS


@dataclass(frozen=True, slots=True)
class Contents:
    leases: Sequence[Lease]
    cooling: Sequence[Cooling]
    fences: frozenset[str]
    interfaces: Sequence[PoolInterface]


@dataclass(slots=True)
class _Entry:
    statements: Sequence[_Statement]
    done: bool = False
    error: Exception | None = field(default=None)


class Journal:
    """One daemon's journal. Thread-safe; every writing method returns once its rows are on the disk.

    Raises StoreError when the file cannot be opened, is held by another daemon, or the disk refuses.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._queue: list[_Entry] = []
        self._queue_lock = threading.Lock()
        self._commit_lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = apsw.Connection(str(path))
            self._connection.set_busy_timeout(2000)
            # Exclusive: one daemon a journal, and no shared-memory file.
            for pragma, value in (("locking_mode", "exclusive"), ("journal_mode", "wal"), ("synchronous", "full")):
                self._connection.pragma(pragma, value)
            path.chmod(0o600)
            self.generation = self._open()
        except (apsw.Error, OSError) as error:
            busy = isinstance(error, apsw.BusyError)
            raise StoreError(
                f"journal {path} cannot be opened: {error}",
                field="state_dir",
                remedy="stop the other node daemon that uses this folder" if busy else "check the folder and its disk",
            ) from error

    def _open(self) -> int:
        version = self._connection.pragma("user_version")
        if version > len(_MIGRATIONS):
            raise StoreError(
                f"journal {self._path} is of version {version}, this release knows {len(_MIGRATIONS)}",
                field="state_dir",
                remedy="run the release that wrote it, or a newer one",
            )
        with self._connection:
            for script in _MIGRATIONS[version:]:
                self._connection.execute(script)
            self._connection.pragma("user_version", len(_MIGRATIONS))
            self._connection.execute("UPDATE life SET generation = generation + 1")
        return int(self._connection.execute("SELECT generation FROM life").get)

    def close(self) -> None:
        with self._commit_lock:
            self._connection.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def load(self) -> Contents:
        """Everything the journal holds."""
        leases: list[Lease] = []
        cooling: list[Cooling] = []
        for address, owner, interface_id, pod, attributes, created_at, freed_s, boot_id in self._connection.execute(
            "SELECT address, owner, interface_id, pod, attributes, created_at, freed_monotonic_s, freed_boot_id "
            "FROM lease ORDER BY freed_monotonic_s"
        ):
            known = json.loads(attributes)
            if owner is None:
                cooling.append(Cooling(address, freed_s, boot_id, known))
            else:
                container_id, _, interface_name = owner.rpartition("/")
                leases.append(Lease(Owner(container_id, interface_name), address, interface_id, created_at, pod, known))
        fences = frozenset(row[0] for row in self._connection.execute("SELECT address FROM fence"))
        interfaces = [_interface(row[0]) for row in self._connection.execute("SELECT body FROM interface ORDER BY id")]
        return Contents(leases, cooling, fences, interfaces)

    def lease(self, lease: Lease) -> None:
        """Writes a lease, or its new attributes. Raises AddressConflict if address or owner belong to another lease."""
        owner, attributes = str(lease.owner), json.dumps(dict(lease.attributes), separators=(",", ":"))
        values = (lease.address, owner, lease.interface_id, lease.pod, attributes, lease.created_at)
        self._write([(_LEASE, values, 1)])

    def free(self, lease: Lease, *, freed_monotonic_s: float, boot_id: str) -> None:
        """The lease ends and its address cools from now on."""
        self._write([(_FREE, (freed_monotonic_s, boot_id, lease.address, str(lease.owner)), 1)])

    def cancel(self, lease: Lease) -> None:
        """The lease never came to be used: the address is as before."""
        self._write([("DELETE FROM lease WHERE address = ? AND owner = ?", (lease.address, str(lease.owner)), 1)])

    def forget(self, addresses: Iterable[str]) -> None:
        """Drops addresses that have cooled down; those leased again meanwhile stay."""
        sql = "DELETE FROM lease WHERE address = ? AND owner IS NULL"
        statements: list[_Statement] = [(sql, (address,), 0) for address in addresses]
        if statements:
            self._write(statements)

    def pool(
        self,
        *,
        upserts: Iterable[PoolInterface] = (),
        deletes: Iterable[str] = (),
        fenced: Iterable[str] = (),
        lifted: Iterable[str] = (),
    ) -> None:
        """Writes a change of the pool and of the fences as one transaction."""
        statements: list[_Statement] = [
            ("INSERT OR REPLACE INTO interface VALUES (?, ?)", (interface.id, _body(interface)), 1)
            for interface in upserts
        ]
        statements += [("DELETE FROM interface WHERE id = ?", (gone,), 0) for gone in deletes]
        statements += [("INSERT OR IGNORE INTO fence VALUES (?)", (address,), 0) for address in fenced]
        statements += [("DELETE FROM fence WHERE address = ?", (address,), 0) for address in lifted]
        if statements:
            self._write(statements)

    def _write(self, statements: Sequence[_Statement]) -> None:
        entry = _Entry(statements)
        with self._queue_lock:
            self._queue.append(entry)
        with self._commit_lock:
            if not entry.done:
                with self._queue_lock:
                    batch, self._queue = self._queue, []
                try:
                    self._commit_batch(batch)
                except BaseException as error:
                    # Nobody in the batch may take silence for success.
                    for one in batch:
                        one.done, one.error = True, one.error or StoreError(f"journal {self._path}: {error!r}")
                    raise
        if entry.error is not None:
            raise entry.error

    def _commit_batch(self, batch: Sequence[_Entry]) -> None:
        try:
            self._commit([statement for entry in batch for statement in entry.statements])
        except (apsw.Error, AddressConflict) as error:
            if len(batch) == 1:
                batch[0].error = self._explained(error)
            else:
                # One bad entry must not take its neighbours down with it.
                for entry in batch:
                    self._commit_batch([entry])
        for entry in batch:
            entry.done = True

    def _commit(self, statements: Sequence[_Statement]) -> None:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            for sql, values, least in statements:
                connection.execute(sql, values)
                if least and connection.changes() < least:
                    raise AddressConflict(f"{values[0]} or its owner belongs to another lease", field="address")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _explained(self, error: Exception) -> Exception:
        if isinstance(error, AddressConflict):
            return error
        if isinstance(error, apsw.ConstraintError):
            return AddressConflict(f"the journal refuses a second lease: {error}", field="address")
        return StoreError(
            f"journal {self._path} did not take it: {error}", remedy="check free space and health of its disk"
        )


def _body(interface: PoolInterface) -> str:
    fields = {name: getattr(interface, name) for name in PoolInterface.__slots__}
    tables = {"addresses": dict(interface.addresses), "instance_tags": dict(interface.instance_tags)}
    return json.dumps({**fields, **tables}, separators=(",", ":"))


def _interface(body: str) -> PoolInterface:
    fields = json.loads(body)
    fields["addresses"] = {address: AddressState(state) for address, state in fields["addresses"].items()}
    for name in ("vpc_cidrs", "security_group_ids", "prefixes", "ipv6_addresses", "ipv6_prefixes"):
        fields[name] = tuple(fields.get(name, ()))  # earlier releases wrote no prefixes and no IPv6
    return PoolInterface(**fields)
