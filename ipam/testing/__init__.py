"""Fakes of IPAM's ports, shipped with it.

clock   FakeClock
store   MemoryStore
cloud   FakeCloud; rules: what it can and holds; space: the addresses of its subnets; faults: how its calls fail, Fault
bridge  DirectQueue, FreeBudget, LocalJournal
site    IpamSite, all of them together
"""

from ipam.testing.bridge import DirectQueue, FreeBudget, LocalJournal, on_loop
from ipam.testing.clock import FakeClock
from ipam.testing.cloud import FakeCloud
from ipam.testing.faults import Fault
from ipam.testing.rules import AWS_LIKE
from ipam.testing.site import IpamSite
from ipam.testing.store import MemoryStore

__all__ = [
    "AWS_LIKE",
    "DirectQueue",
    "FakeClock",
    "FakeCloud",
    "Fault",
    "FreeBudget",
    "IpamSite",
    "LocalJournal",
    "MemoryStore",
    "on_loop",
]
