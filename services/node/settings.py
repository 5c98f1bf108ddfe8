"""What an operator may set for a node; see docs/node.md."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    IPvAnyAddress,
    IPvAnyNetwork,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import SettingsConfigDict

from datapath.config import BPF_DIR, RoutingMode
from datapath.conntrack.sizing import Sizing
from datapath.errors import InvalidSetting
from ipam import ranges
from ipam.local import Choice
from ipam.overrides import TARGETS
from ipam.validation import DEFAULT_POOL, POOL_NAME_REMEDY, is_pool_name
from services.runtime.addresses import SOCKET_PATH_BYTES, parse_listen
from services.runtime.settings import ServiceSettings


class WatermarkSettings(BaseModel):
    """Overrides of the service's marks, in addresses."""

    model_config = ConfigDict(extra="forbid")

    pre_allocate: int | None = Field(None, ge=0, le=4096, description="addresses kept free beyond those in use")
    min_allocate: int = Field(0, ge=0, le=4096, description="least addresses held")
    max_allocate: int = Field(0, ge=0, le=4096, description="most addresses held; 0: as many as the instance holds")
    max_above_watermark: int = Field(0, ge=0, le=4096, description="surplus that is not released")


class TimeoutSettings(BaseModel):
    """How long connections without packets are remembered, in seconds."""

    model_config = ConfigDict(extra="forbid")

    tcp_open_s: float = Field(21600, ge=1, le=604800, description="TCP, both ends have spoken")
    tcp_opening_s: float = Field(60, ge=1, le=604800, description="TCP, one end has spoken")
    tcp_closing_s: float = Field(10, ge=1, le=604800, description="TCP, both ends have ended, or one has reset")
    other_open_s: float = Field(120, ge=1, le=604800, description="other protocols, both ends have spoken")
    other_opening_s: float = Field(30, ge=1, le=604800, description="other protocols, one end has spoken")
    fragment_s: float = Field(30, ge=1, le=604800, description="ports of a datagram in pieces")


class DatapathSettings(BaseModel):
    """What carries pods' packets."""

    model_config = ConfigDict(extra="forbid")

    mode: Literal["ebpf", "kernel"] = Field("ebpf", description="ebpf: our programs; kernel: its plain routing alone")
    bpf_dir: Path = Field(BPF_DIR, description="on a bpffs; what outlives the daemon is pinned there")
    routing: RoutingMode = Field(RoutingMode.NATIVE, description="how pods of other nodes are reached")
    ipv6: bool = Field(True, description="let IPv6 packets of pods pass")
    devices: list[str] = Field([], description="external devices, wildcards allowed; empty: found by their routes")
    endpoint_routes: bool = Field(False, description="reach local pods by the node's routes, through its own filters")
    masquerade: bool = Field(False, description="give IPv4 packets that leave the cluster the node's address")
    masquerade6: bool = Field(False, description="the same for IPv6")
    masquerade_ports: str = Field("1024-29999", description="ports that masqueraded packets leave from")
    masquerade_file: Path | None = Field(None, description="ranges not to masquerade to, as of the ip-masq-agent")
    cluster_cidrs: list[IPvAnyNetwork] = Field([], description="ranges that are never masqueraded to")
    stack_cidrs: list[IPvAnyNetwork] = Field([], description="ranges that the node's stack handles, as of services")
    tunnel_port: int = Field(8472, ge=1, le=65535, description="UDP port of the overlay")
    recheck_s: float = Field(1.0, gt=0, le=60, description="how long a next hop is used without asking the kernel")
    map_ratio: float = Field(0.0025, gt=0, le=0.2, description="part of memory that connections may take")
    map_entries: dict[str, int] = Field({}, description="sizes of the maps flows, nat, fragments; else from memory")
    timeouts: TimeoutSettings = Field(
        default_factory=lambda: TimeoutSettings.model_validate({}), description="of connections"
    )
    trace_every: int = Field(0, ge=0, description="tell of one in so many forwarded packets; 0: none")
    flow_events: bool = Field(False, description="tell of connections that begin and end")
    verdict_events: bool = Field(False, description="tell of every verdict of a policy")
    prefilter: bool = Field(False, description="attach the XDP prefilter to external devices")
    sockmap_cgroup: Path | None = Field(None, description="speed up local TCP of this cgroup; unset: off")

    @field_validator("masquerade_ports")
    @classmethod
    def _ports(cls, value: str) -> str:
        low, _, high = value.partition("-")
        if not (low.isdecimal() and high.isdecimal() and 1 <= int(low) <= int(high) <= 65535):
            raise ValueError("expected FIRST-LAST, such as 1024-29999")
        return value

    @field_validator("map_entries")
    @classmethod
    def _map_entries(cls, value: dict[str, int]) -> dict[str, int]:
        try:
            Sizing(entries=value)
        except InvalidSetting as error:
            name = error.field.partition(".")[2]
            raise ValueError(f"{name}: {error.message}" if name else error.message) from error
        return value

    @field_validator("bpf_dir", "masquerade_file", "sockmap_cgroup")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_absolute():
            raise ValueError("expected an absolute path")
        return value


class PolicySettings(BaseModel):
    """This node's own words on how its marks come about; what is unset is the service's to decide."""

    model_config = ConfigDict(extra="forbid")

    warm_addresses: int | None = Field(None, ge=0, le=4096, description="free addresses; 0: fetched for each pod")
    warm_prefixes: int | None = Field(None, ge=0, le=256, description="free prefixes")
    warm_interfaces: int | None = Field(None, ge=0, le=15, description="interfaces' worth of free addresses")
    warm_up: int | None = Field(None, ge=0, le=4096, description="addresses that the node starts with, once")
    follow_demand: bool | None = Field(None, description="free addresses follow the node's own starts and stops")
    demand_least: int | None = Field(None, ge=0, le=4096, description="free addresses by demand, at least")
    demand_most: int | None = Field(None, ge=0, le=4096, description="free addresses by demand, at most")

    @model_validator(mode="after")
    def _one(self) -> Self:
        said = [name for name in TARGETS if getattr(self, name) is not None]
        if len(said) > 1:
            raise ValueError(f"{' and '.join(said)} are set; a node has one target, so leave the others out")
        return self


class PoolSettings(BaseModel):
    """A pool beside the node's default one: interfaces of its own, for pods that its labels choose."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(description="1 to 31 lower-case letters, digits and '-'; interfaces have it in plimsoll:pool")
    match_labels: dict[str, str] = Field(description="labels that a pod must have, all of them")
    subnet_ids: list[str] = Field([], description="subnets of its interfaces, by id")
    subnet_tags: dict[str, str] = Field({}, description="subnets of its interfaces, by tags")
    security_group_ids: list[str] = Field([], description="security groups of its interfaces, by id")
    security_group_tags: dict[str, str] = Field({}, description="security groups of its interfaces, by tags")
    watermarks: WatermarkSettings | None = Field(None, description="its marks; else the service's")
    policy: PolicySettings | None = Field(None, description="its targets, warm-up and demand; else the service's")

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not is_pool_name(value):
            raise ValueError(f"{POOL_NAME_REMEDY}; '{DEFAULT_POOL}' is the name of the pool that is always there")
        return value

    @field_validator("match_labels")
    @classmethod
    def _labels(cls, value: dict[str, str]) -> dict[str, str]:
        if not value:
            raise ValueError("it would take every pod; name a label, or set the node's own pool")
        return value


CLUSTER = "cluster"


class Settings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="PLIMSOLL_NODE_")

    name: str = Field(default_factory=socket.gethostname, min_length=1, description="name of this node")
    instance_id: str = Field("", description="this virtual machine's id at the cloud, such as i-0abc; ipam needs it")
    cloud: Literal["aws", "azure", "alibaba"] = Field("aws", description="whose addresses")
    instance_type: str = Field("", description="told to the registry; IPAM learns it from the cloud")
    zone: str = Field("", description="told to the registry")
    addresses: list[IPvAnyAddress] = Field([], description="this node's own addresses; empty: found in the kernel")
    labels: dict[str, str] = Field({}, description="labels of this node")

    state_dir: Path = Field(Path("/var/lib/plimsoll"), description="folder of the journal")
    cni_socket: Path = Field(Path("/run/plimsoll/cni.sock"), description="Unix socket of the CNI plugin, mode 0600")
    socket: Path | None = Field(Path("/run/plimsoll/node.sock"), description="Unix socket of NodeService, mode 0660")
    registry: str = Field("", description="host:port or unix:/path of the registry; empty: do without")
    ipam: str = Field("", description="host:port or unix:/path of the IPAM service; empty: do without")
    pod_cidr6_size: int = Field(
        ranges.DEFAULT_SIZE6, ge=1, le=61440, description="addresses leased from an IPv6 range that stands alone"
    )
    pod_cidrs: list[str] = Field(
        [], description="own ranges for pods, instead of ipam: one of each family at most; or cluster: of the registry"
    )

    datapath: DatapathSettings = Field(
        default_factory=lambda: DatapathSettings.model_validate({}), description="what carries pods' packets"
    )
    mtu: int = Field(0, description="MTU of pods in bytes, 576 to 65535; 0: what their way allows")
    cooldown_s: float = Field(30.0, ge=0, le=3600, description="rest of an address between two pods, in seconds")
    choice: Choice = Field(Choice.PACK, description="pack: fill one interface after the other; spread: the emptiest")
    address_wait_s: float = Field(2.0, ge=0, le=60, description="how long an ADD waits for the pool to grow")
    reconcile_interval_s: float = Field(30.0, ge=1, le=3600, description="how often the kernel is compared anyway")
    heartbeat_interval_s: float = Field(10.0, gt=0, le=300, description="how often the registry is told of life")

    policy: PolicySettings | None = Field(None, description="targets, warm-up and demand that win over the service's")
    watermarks: WatermarkSettings | None = Field(None, description="overrides of the service's watermarks")
    first_interface_index: int | None = Field(None, ge=0, le=255, description="lower device indices carry no pods")
    subnet_ids: list[str] = Field([], description="subnets for new interfaces, by id")
    subnet_tags: dict[str, str] = Field({}, description="subnets for new interfaces, by tags")
    security_group_ids: list[str] = Field([], description="security groups of new interfaces, by id")
    security_group_tags: dict[str, str] = Field({}, description="security groups of new interfaces, by tags")
    exclude_interface_tags: dict[str, str] = Field({}, description="interfaces with these tags are left alone")
    prefix_delegation: bool | None = Field(None, description="whole prefixes instead of single addresses")
    ipv6: bool | None = Field(None, description="pods of cloud interfaces get an IPv6 address, too")
    use_primary_address: bool | None = Field(None, description="primary addresses carry pods, but for the first one's")
    public_address_tags: dict[str, str] = Field({}, description="this node gets a public address with these tags")
    delete_on_termination: bool | None = Field(None, description="delete new interfaces with the instance")
    release_excess: bool | None = Field(None, description="give addresses above the watermark back")

    pools: tuple[PoolSettings, ...] = Field(
        (), description="more pools, for pods by their labels; the first match wins"
    )

    @field_validator("pools")
    @classmethod
    def _pools(cls, value: tuple[PoolSettings, ...], info: ValidationInfo) -> tuple[PoolSettings, ...]:
        if value and not info.data.get("ipam"):
            raise ValueError("pools are interfaces of a cloud: set ipam")
        names = [each.name for each in value]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two pools are called {name!r}; give each a name of its own")
        for each in value if info.data.get("cloud") == "azure" else ():
            if each.subnet_ids or each.subnet_tags or each.security_group_ids or each.security_group_tags:
                raise ValueError(
                    f"{each.name}: interfaces of Azure come with the machine; tag those of the pool plimsoll:pool="
                    f"{each.name}, and leave subnets and groups out"
                )
        return value

    def pool_of(self, labels: Mapping[str, str]) -> str:
        """The pool for a pod with these labels; empty: the default one."""
        for each in self.pools:
            if each.match_labels.items() <= labels.items():
                return each.name
        return ""

    @field_validator("registry", "ipam")
    @classmethod
    def _target(cls, value: str, info: ValidationInfo) -> str:
        if value:
            parse_listen(value)
            if info.field_name == "ipam" and not info.data.get("instance_id"):
                raise ValueError("ipam needs instance_id, this virtual machine's id at the cloud")
        return value

    @field_validator("pod_cidrs")
    @classmethod
    def _pod_cidrs(cls, value: list[str], info: ValidationInfo) -> list[str]:
        if not value:
            return value
        if info.data.get("ipam"):
            raise ValueError("addresses come from ipam or from pod_cidrs, not from both; leave one empty")
        if value == [CLUSTER]:
            if not info.data.get("registry"):
                raise ValueError("the cluster's ranges come from the registry: set registry, or ranges of this node")
            return value
        return list(ranges.parse(value, info.data.get("pod_cidr6_size", ranges.DEFAULT_SIZE6)).texts)

    @property
    def pod_ranges(self) -> ranges.PodRanges | None:
        """What pod_cidrs says; None: the pool comes from IPAM, or the ranges are not known yet."""
        if not self.pod_cidrs or self.of_cluster:
            return None
        return ranges.parse(self.pod_cidrs, self.pod_cidr6_size)

    @property
    def of_cluster(self) -> bool:
        """Whether the registry gives the ranges, and has not been asked yet."""
        return self.pod_cidrs == [CLUSTER]

    @field_validator("cni_socket")
    @classmethod
    def _cni_socket(cls, value: Path) -> Path:
        if not value.is_absolute() or len(str(value).encode()) > SOCKET_PATH_BYTES:
            raise ValueError(f"expected an absolute path of at most {SOCKET_PATH_BYTES} bytes")
        return value

    @field_validator("mtu")
    @classmethod
    def _mtu(cls, value: int) -> int:
        if value and not 576 <= value <= 65535:
            raise ValueError("expected 0, or 576 to 65535 bytes")
        return value
