"""Ranges that pods' own addresses are good in, brought into the map `cidrs`: nothing is masqueraded towards them.

They come from the settings, from the ip-masq-agent's file, and from the ranges of the cluster's pods (which the address
book tells of itself). Ranges that the node's own stack must handle (services of kube-proxy) are told the same way.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from ipaddress import ip_network
from typing import Final

from datapath import layout
from datapath.errors import InvalidSetting
from datapath.identities.cidrs import CidrTable
from datapath.layout import Target
from datapath.masquerade.agent_file import AgentFile

# Under this name they are wanted of a CidrTable.
MASQUERADE: Final = "masquerade"


def wanted(
    cluster: Collection[str], stack: Collection[str] = (), file: AgentFile | None = None
) -> Mapping[str, Target]:
    """Entries by range. A range of `stack` is never masqueraded towards: the stack is to see the pod.

    :param cluster, stack: of the settings. Raises InvalidSetting."""
    excluded = Target(layout.TARGET_RANGE, layout.TARGET_CLUSTER, identity=layout.IDENTITY_WORLD)
    handled = Target(layout.TARGET_STACK, layout.TARGET_CLUSTER, identity=layout.IDENTITY_WORLD)
    found = dict.fromkeys((_range(text, "cluster_cidrs") for text in cluster), excluded)
    found |= dict.fromkeys(file.excluded if file is not None else (), excluded)
    return found | dict.fromkeys((_range(text, "stack_cidrs") for text in stack), handled)


class Ranges:
    """Thread-safe.

    :param cluster, stack: see `wanted`; checked at once. Raises InvalidSetting."""

    def __init__(self, table: CidrTable, cluster: Collection[str] = (), stack: Collection[str] = ()) -> None:
        self._table = table
        self._cluster = tuple(cluster)
        self._stack = tuple(stack)
        wanted(self._cluster, self._stack)

    def apply(self, file: AgentFile | None = None) -> bool:
        """Brings settings and file into force. True if a decision made before may be wrong now: raise the generation.

        :param file: None: none is in use. Raises BpfRefused (E2BIG: too many ranges); the next call tries again."""
        return self._table.set(MASQUERADE, wanted(self._cluster, self._stack, file))


def _range(text: str, field: str) -> str:
    try:
        return str(ip_network(text))
    except ValueError as error:
        raise InvalidSetting(
            f"{text!r} is no range: {error}", field=field, remedy="write 10.0.0.0/8 or fd00::/8"
        ) from error
