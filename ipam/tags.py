"""Tags on every interface that is created: whose it is, and which step of which intent made it."""

from __future__ import annotations

from typing import Final

CLUSTER_TAG: Final = "plimsoll:cluster"
NODE_TAG: Final = "plimsoll:node"
POOL_TAG: Final = "plimsoll:pool"  # of an interface of a named pool; without it, it is of its node's default pool
INTENT_TAG: Final = "plimsoll:intent"
STEP_TAG: Final = "plimsoll:step"
