"""What the node daemon does is not forbidden by its own unit: system calls and capabilities it cannot be without."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

# Each with what needs it. The list is of what a filter is likely to lose, not of every call there is.
CALLS = {
    "bpf": "loads programs, reads and writes maps, attaches links",
    "setns": "visits the network namespaces of pods",
    "socket": "netlink, gRPC, the CNI socket",
    "sendmsg": "netlink",
    "recvmsg": "netlink",
    "recvmmsg": "reads many answers at once",
    "epoll_wait": "the event loop, the ring buffer of events",
    "mmap": "the ring buffer, the runtime's settings",
    "eventfd2": "gRPC",
    "clone3": "threads",
    "fdatasync": "the journal of leases",
    "fsync": "the journal of leases",
    "flock": "one daemon for a state_dir",
    "sched_setaffinity": "reads per-CPU clocks by test runs",
    "inotify_add_watch": "certificates that are renewed",
    "statfs": "is the file system of pins there",
}
CAPABILITIES = {
    "CAP_NET_ADMIN": "devices, routes, filters",
    "CAP_SYS_ADMIN": "setns and, with it, bpf() where the kernel asks for CAP_BPF and CAP_PERFMON",
    "CAP_SYS_PTRACE": "opens namespaces by /proc/<pid>/ns/net of other users' processes",
}


@pytest.fixture
def unit(project_root: Path) -> str:
    return (project_root / "deploy" / "systemd" / "plimsoll-node.service").read_text()


def setting(unit: str, name: str) -> list[str]:
    return [word for line in re.findall(rf"^{name}=(.*)$", unit, re.MULTILINE) for word in line.split()]


def expanded(words: list[str]) -> set[str]:
    """System calls that a filter names, by itself or by a group."""
    calls: set[str] = set()
    groups = [word for word in words if word.startswith("@")]
    seen: set[str] = set()
    calls.update(word for word in words if not word.startswith("@"))
    while groups:
        group = groups.pop()
        if group in seen:
            continue
        seen.add(group)
        told = subprocess.run(["systemd-analyze", "syscall-filter", group], capture_output=True, text=True, check=True)
        for line in told.stdout.splitlines()[1:]:
            word = line.strip()
            if word.startswith("@"):
                groups.append(word)
            elif word and not word.startswith("#"):
                calls.add(word)
    return calls


@pytest.mark.tool("systemd-analyze")
def test_no_system_call_that_the_daemon_needs_is_filtered(unit: str) -> None:
    words = setting(unit, "SystemCallFilter")
    assert words
    assert not [word for word in words if word.startswith("~")], "a list of what is allowed, not of what is not"
    allowed = expanded(words)
    assert {call: why for call, why in CALLS.items() if call not in allowed} == {}


def test_the_capabilities_that_the_daemon_needs_are_left_to_it(unit: str) -> None:
    allowed = setting(unit, "CapabilityBoundingSet")
    assert {name: why for name, why in CAPABILITIES.items() if name not in allowed} == {}


def test_pins_and_pods_namespaces_stay_in_sight(unit: str) -> None:
    """A mount namespace of its own without these, and what the daemon pins would end with it."""
    assert "yes" not in setting(unit, "ProtectKernelTunables")
    assert "yes" not in setting(unit, "PrivateMounts")
    assert not setting(unit, "RestrictNamespaces")
    assert {"AF_NETLINK", "AF_UNIX", "AF_INET", "AF_INET6"} <= set(setting(unit, "RestrictAddressFamilies"))
