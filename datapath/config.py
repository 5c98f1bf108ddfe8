"""What an operator may set of the datapath, as frozen facts. Times in seconds, sizes in bytes or entries."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from datapath.conntrack.sizing import Sizing
from datapath.errors import InvalidSetting

BPF_DIR: Final = Path("/sys/fs/bpf/plimsoll")
TUNNEL_PORT: Final = 8472
# Below the ports that Linux gives to its own connections (net.ipv4.ip_local_port_range begins at 32768), and below the
# node ports of Kubernetes (from 30000), so that neither side can take what the other uses.
NAT_PORTS: Final = (1024, 29999)


class RoutingMode(StrEnum):
    """How packets reach pods of other nodes."""

    NATIVE = "native"  # the network knows every pod's address, as in a cloud
    TUNNEL = "tunnel"  # VXLAN from node to node
    DIRECT = "direct"  # nodes of one segment are each other's next hops


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long a connection without packets is remembered.

    :ivar tcp_opening_s: until both ends have spoken. :ivar tcp_closing_s: after both have ended, or one has reset.
    :ivar fragment_s: how long later fragments of a datagram are recognised.
    """

    tcp_open_s: float = 21600.0
    tcp_opening_s: float = 60.0
    tcp_closing_s: float = 10.0
    other_open_s: float = 120.0
    other_opening_s: float = 30.0
    fragment_s: float = 30.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not 1 <= getattr(self, name) <= 604800:
                raise InvalidSetting(f"{getattr(self, name)} s is not in 1..604800", field=f"timeouts.{name}")


@dataclass(frozen=True, slots=True)
class DatapathConfig:
    """
    :ivar bpf_dir: on a bpffs; what must outlive the daemon is pinned there.
    :ivar devices: names of external devices, with wildcards; none: found by their routes.
    :ivar endpoint_routes: local pods are reached by the node's routes, so that its own filters see their packets.
    :ivar nat_ports: first and last port that masqueraded packets leave from.
    :ivar cluster_cidrs: ranges that pods are never masqueraded towards.
    :ivar stack_cidrs: ranges that the node's stack must handle, such as those of services of kube-proxy.
    :ivar masquerade_file: of the ip-masq-agent's format; None: `cluster_cidrs` alone.
    :ivar recheck_s: how long a next hop is used without asking the kernel's tables again.
    :ivar trace_every: of so many forwarded packets, one is told of as an event; 0: none.
    :ivar prefilter: drop packets of denied sources in XDP.
    :ivar sockmap_cgroup: local TCP of this cgroup goes from socket to socket.
    :ivar drop_events_per_tick: events of one drop reason that a CPU may send in a jiffy.
    """

    bpf_dir: Path = BPF_DIR
    routing: RoutingMode = RoutingMode.NATIVE
    ipv6: bool = True
    devices: tuple[str, ...] = ()
    endpoint_routes: bool = False
    masquerade4: bool = False
    masquerade6: bool = False
    nat_ports: tuple[int, int] = NAT_PORTS
    cluster_cidrs: tuple[str, ...] = ()
    stack_cidrs: tuple[str, ...] = ()
    masquerade_file: Path | None = None
    tunnel_port: int = TUNNEL_PORT
    recheck_s: float = 1.0
    timeouts: Timeouts = Timeouts()
    sizing: Sizing = field(default_factory=Sizing)
    trace_every: int = 0
    flow_events: bool = False
    verdict_events: bool = False
    prefilter: bool = False
    sockmap_cgroup: Path | None = None
    drop_events_per_tick: int = 10
    icmp_errors_per_tick: int = 10

    def __post_init__(self) -> None:
        low, high = self.nat_ports
        if not 1 <= low <= high <= 65535:
            raise InvalidSetting(
                f"{low}-{high} is no range of ports", field="masquerade.ports", remedy="write 1024-29999"
            )
