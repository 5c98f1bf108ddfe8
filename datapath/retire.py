"""Out of pods' way: a node that is to carry pods by plain routing detaches what a life with the programs left.

Routes and neighbours of this node's pods are there in either mode, so their packets go on. What only the programs could
do ends: masquerading, policy, the tunnel.
"""

from __future__ import annotations

from pathlib import Path

from datapath.acceleration.sockmap import SockmapAcceleration
from datapath.devices.vxlan import KernelOverlay
from datapath.loader import pins
from datapath.loader.pins import Inventory
from datapath.neighbours.kernel import KernelNeighbours
from datapath.routes.nodes import KernelNodeRoutes


def retire(bpf_dir: Path) -> Inventory:
    """Returns what there was of programs, maps, links and filters. Idempotent. Raises KernelRefused, BpfError, OSError.

    Programs first: they would send packets to devices that are gone."""
    SockmapAcceleration(bpf_dir).disable()
    found = pins.remove(bpf_dir)
    KernelNodeRoutes().clear()
    KernelNeighbours().reconcile(())
    KernelOverlay().remove()
    return found


__all__ = ["retire"]
