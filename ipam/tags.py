"""Tags on every interface that is created: whose it is, and which step of which intent made it."""

from __future__ import annotations

from typing import Final

CLUSTER_TAG: Final = "plimsoll:cluster"
NODE_TAG: Final = "plimsoll:node"
INTENT_TAG: Final = "plimsoll:intent"
STEP_TAG: Final = "plimsoll:step"
