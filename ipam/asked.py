"""Who waits for what other nodes can spare, and which nodes were asked for it. The books of reclaim.py, no more."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Want:
    """
    :ivar addresses: so many pods wait, and the instance has room for them.
    :ivar reach: ids of the subnets that would do.
    :ivar said_at: monotonic seconds.
    """

    addresses: int
    reach: frozenset[str]
    said_at: float


@dataclass(slots=True)
class Asked:
    """
    :ivar wants: by the name of the pool whose pods wait.
    :ivar givers: names of pools that were asked.
    :ivar looked_at: when all pools were looked through for what they can spare, in monotonic seconds.
    """

    wants: dict[str, Want] = field(default_factory=dict)
    givers: set[str] = field(default_factory=set)
    looked_at: float = -math.inf
