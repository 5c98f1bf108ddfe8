"""What a lab leaves on the machine while it runs, and how the next one finds and removes it.

    /run/plimsoll-lab/<name>/
        lock          held by the running lab; who and since when
        journal       one JSON line for each namespace and process, written before, or right when, it comes to be
        context.toml  where the CLI finds the services
        bpf/          a file system of eBPF pins, a folder for each node
        ...           sockets, certificates, databases, logs

The lock falls when the lab dies, however it dies; the journal stays. So a folder without a holder is a lab that was
killed: its processes are ended, each only if it is still the one that was written down (same start time), then its
namespaces, with every device in them, then the folder. A lab of another name is never touched.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import select
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from datapath.loader import bpffs
from lab import netns

DEFAULT_ROOT: Final = Path("/run/plimsoll-lab")
DEFAULT_NAME: Final = "default"
PINS: Final = "bpf"
# Names become part of socket paths, which the kernel limits to 107 bytes, and of namespace names.
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,23}")
_KILL_TIMEOUT_S: Final = 5.0


class LabError(Exception):
    """The lab cannot go on; the text says why, `remedy` what to do."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class AlreadyRunning(LabError):
    """Another process holds the lab of this name."""


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that runs a lab."""

    pid: int
    since_at: float


class LabState:
    """The folder of one lab, held by this process. Use as a context manager; leaving it removes everything.

    Entering cleans up what an earlier lab of this name left. Raises AlreadyRunning if one is running.

    :param keep: entries of the folder that stay when it ends.
    """

    def __init__(self, name: str = DEFAULT_NAME, root: Path = DEFAULT_ROOT, *, keep: Sequence[str] = ()) -> None:
        check_name(name)
        self.name = name
        self.folder = root / name
        self._keep = frozenset(keep)

    def __enter__(self) -> Self:
        self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._lock = _take_lock(self.folder, self.name)
        try:
            _clean(self.folder)
            self._journal = (self.folder / "journal").open("a", buffering=1, encoding="utf-8")
        except BaseException:
            os.close(self._lock)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._journal.close()
        try:
            _remove_recorded(self.folder)
            _remove_entries(self.folder, self._keep | {"lock"})
            if not self._keep:
                shutil.rmtree(self.folder)
        finally:
            os.close(self._lock)

    def namespace(self, role: str) -> str:
        """Creates the lab's namespace for `role` and returns its name."""
        name = self.namespace_name(role)
        netns.create(name)
        return name

    def namespace_name(self, role: str) -> str:
        """Name of the lab's namespace for `role`, written down so that it is removed if somebody creates it."""
        name = f"pl-{self.name}-{role}"
        self._write({"namespace": name})
        return name

    def drop_namespace(self, name: str) -> None:
        netns.delete(name)
        self._write({"namespace-gone": name})

    def pins(self) -> Path:
        """A file system for what nodes pin of their eBPF; it goes with the lab."""
        path = self.folder / PINS
        bpffs.mount(path)
        return path

    def process(self, name: str, pid: int) -> None:
        """Writes down a child that was just started."""
        self._write({"process": name, "pid": pid, "started": start_time(pid), "boot": _boot_id()})

    def _write(self, record: dict[str, Any]) -> None:
        self._journal.write(json.dumps(record) + "\n")


def check_name(name: str) -> None:
    """Raises LabError unless `name` can name a lab."""
    if not _NAME.fullmatch(name):
        raise LabError(
            f"{name!r} cannot name a lab", "use 1 to 24 lower-case letters, digits and hyphens, not a hyphen first"
        )


def holder(folder: Path) -> Holder | None:
    """Who runs the lab of this folder; None if nobody does."""
    try:
        descriptor = os.open(folder / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read_holder(descriptor)
    finally:
        os.close(descriptor)
    return None


def labs(root: Path = DEFAULT_ROOT) -> dict[str, Holder | None]:
    """Every lab with a folder, with its holder; one without was killed, or kept its logs."""
    if not root.is_dir():
        return {}
    return {folder.name: holder(folder) for folder in sorted(root.iterdir()) if folder.is_dir()}


def clean(name: str, root: Path = DEFAULT_ROOT) -> bool:
    """Removes what a dead lab left; False if there was nothing. Raises AlreadyRunning."""
    check_name(name)
    if not (root / name).is_dir():
        return False
    with LabState(name, root):
        return True


def start_time(pid: int) -> int | None:
    """When the process began, in clock ticks since boot; None if there is none. With the pid it names one process."""
    try:
        stat = Path("/proc", str(pid), "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command's name may hold blanks and brackets; fields are counted from behind it. 22nd field of proc(5).
    return int(stat[stat.rindex(")") + 2 :].split()[19])


def _take_lock(folder: Path, name: str) -> int:
    path = folder / "lock"
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "since": time.time()}).encode(), 0)
                return descriptor
        except BlockingIOError:
            running = _read_holder(descriptor)
            os.close(descriptor)
            raise AlreadyRunning(
                f"the lab {name!r} is running already, as process {running.pid}",
                f"end it with Ctrl-C, or with `kill {running.pid}`, or start another with --name",
            ) from None
        except FileNotFoundError:  # its last holder removed it
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _read_holder(descriptor: int) -> Holder:
    with contextlib.suppress(ValueError, KeyError):
        record = json.loads(os.pread(descriptor, 4096, 0))
        return Holder(record["pid"], record["since"])
    return Holder(0, 0.0)  # it took the lock a moment ago and has not signed it


def _clean(folder: Path) -> None:
    """Removes everything of an earlier lab but the lock."""
    _remove_recorded(folder)
    _remove_entries(folder, frozenset({"lock"}))


def _remove_entries(folder: Path, keep: frozenset[str]) -> None:
    for entry in folder.iterdir():
        if entry.name in keep:
            continue
        if entry.name == PINS and os.path.ismount(entry):
            bpffs.unmount(entry)
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _remove_recorded(folder: Path) -> None:
    records = list(_read_journal(folder / "journal"))
    _kill([record for record in records if "process" in record])
    gone = {record["namespace-gone"] for record in records if "namespace-gone" in record}
    for name in dict.fromkeys(record["namespace"] for record in records if "namespace" in record):
        if name not in gone or netns.exists(name):
            netns.delete(name)


def _read_journal(path: Path) -> Iterator[dict[str, Any]]:
    with contextlib.suppress(FileNotFoundError), path.open(encoding="utf-8") as lines:
        for line in lines:
            with contextlib.suppress(ValueError):  # the last line of a lab killed while it wrote
                yield json.loads(line)


def _kill(records: list[dict[str, Any]]) -> None:
    """Ends those processes that are still the ones written down, and waits for their end."""
    boot = _boot_id()
    descriptors = []
    for record in records:
        if record["boot"] != boot or record["started"] is None:
            continue
        try:
            descriptor = os.pidfd_open(record["pid"])
        except OSError as err:
            if err.errno in (errno.ESRCH, errno.EINVAL):
                continue
            raise
        # Checked after the descriptor pinned the process: from here on the pid cannot come to mean another.
        if start_time(record["pid"]) != record["started"]:
            os.close(descriptor)
            continue
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        descriptors.append(descriptor)
    for descriptor in descriptors:
        select.select([descriptor], [], [], _KILL_TIMEOUT_S)
        os.close(descriptor)


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
