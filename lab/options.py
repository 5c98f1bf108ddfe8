"""What a lab can be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from lab.clouds import Choice
from lab.state import DEFAULT_NAME, DEFAULT_ROOT

CNI_PLUGIN: Final = Path(__file__).parent.parent / "build" / "cni" / "plimsoll"
# Where a machine keeps plugins: the lab of an installed Plimsoll has no tree to build one in.
INSTALLED_PLUGIN: Final = Path("/opt/cni/bin/plimsoll")


def _plugin() -> Path:
    return INSTALLED_PLUGIN if not CNI_PLUGIN.exists() and INSTALLED_PLUGIN.exists() else CNI_PLUGIN


@dataclass(frozen=True, slots=True)
class LabOptions:
    """Settings of one lab. Times are shorter than a site's defaults, so that one can watch things happen.

    :param cloud: whose fake it runs on; "all": each cloud has its share of the nodes, under one registry.
    :param instance_type: of the nodes; empty: a small one of their cloud.
    :param pre_allocate: and the other three marks: defaults of every node, given to the IPAM service.
    :param pod_timeout_s: how long a pod's ADD is repeated while the plugin says "try again later".
    :param datapath: "ebpf" or "kernel": what carries pods' packets.
    :param masquerade: give packets to the outside their node's address.
    :param settings: more settings by service ("ipam-aws", "worker", "registry", "node"), over the lab's own. "worker"
        means that of every cloud.
    :param fake_ec2: arguments for the fake EC2, over the lab's own.
    """

    name: str = DEFAULT_NAME
    root: Path = DEFAULT_ROOT
    nodes: int = 3
    pods: int = 6
    cloud: Choice = "aws"
    instance_type: str = ""
    pre_allocate: int = 8
    min_allocate: int = 0
    max_allocate: int = 0
    max_above_watermark: int = 0
    cooldown_s: float = 3.0
    release_delay_s: float = 2.0
    resync_interval_s: float = 30.0
    pod_timeout_s: float = 30.0
    datapath: str = "ebpf"
    masquerade: bool = False
    keep_logs: bool = False
    log_level: str = "info"
    plugin: Path = field(default_factory=_plugin)
    settings: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    fake_ec2: tuple[str, ...] = ()
