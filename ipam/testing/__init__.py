"""Fakes of IPAM's ports, shipped with it.

clock   FakeClock
store   MemoryStore
cloud   FakeCloud, Fault
"""

from ipam.testing.clock import FakeClock
from ipam.testing.cloud import AWS_LIKE, FakeCloud, Fault
from ipam.testing.store import MemoryStore

__all__ = ["AWS_LIKE", "FakeClock", "FakeCloud", "Fault", "MemoryStore"]
