"""What an operator may set for a node; see docs/node.md."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_settings import SettingsConfigDict

from ipam import ranges
from ipam.local import Choice
from services.runtime.addresses import SOCKET_PATH_BYTES, parse_listen
from services.runtime.settings import ServiceSettings


class WatermarkSettings(BaseModel):
    """Overrides of the service's marks, in addresses."""

    model_config = ConfigDict(extra="forbid")

    pre_allocate: int | None = Field(None, ge=0, le=4096, description="addresses kept free beyond those in use")
    min_allocate: int = Field(0, ge=0, le=4096, description="least addresses held")
    max_allocate: int = Field(0, ge=0, le=4096, description="most addresses held; 0: as many as the instance holds")
    max_above_watermark: int = Field(0, ge=0, le=4096, description="surplus that is not released")


class Settings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="PLIMSOLL_NODE_")

    name: str = Field(default_factory=socket.gethostname, min_length=1, description="name of this node")
    instance_id: str = Field("", description="this virtual machine's id at the cloud, such as i-0abc; ipam needs it")
    cloud: Literal["aws", "azure", "alibaba"] = Field("aws", description="whose addresses")
    instance_type: str = Field("", description="told to the registry; IPAM learns it from the cloud")
    zone: str = Field("", description="told to the registry")
    addresses: list[IPv4Address] = Field([], description="this node's own addresses; empty: found in the kernel")
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
        [], description="this node's own ranges for pods, instead of ipam: one of IPv4, one of IPv6, or one of each"
    )

    mtu: int = Field(0, description="MTU of pods in bytes, 576 to 65535; 0: that of the pod's cloud interface")
    cooldown_s: float = Field(30.0, ge=0, le=3600, description="rest of an address between two pods, in seconds")
    choice: Choice = Field(Choice.PACK, description="pack: fill one interface after the other; spread: the emptiest")
    address_wait_s: float = Field(2.0, ge=0, le=60, description="how long an ADD waits for the pool to grow")
    reconcile_interval_s: float = Field(30.0, ge=1, le=3600, description="how often the kernel is compared anyway")
    heartbeat_interval_s: float = Field(10.0, gt=0, le=300, description="how often the registry is told of life")

    watermarks: WatermarkSettings | None = Field(None, description="overrides of the service's watermarks")
    first_interface_index: int | None = Field(None, ge=0, le=255, description="lower device indices carry no pods")
    subnet_ids: list[str] = Field([], description="subnets for new interfaces, by id")
    subnet_tags: dict[str, str] = Field({}, description="subnets for new interfaces, by tags")
    security_group_ids: list[str] = Field([], description="security groups of new interfaces, by id")
    security_group_tags: dict[str, str] = Field({}, description="security groups of new interfaces, by tags")
    exclude_interface_tags: dict[str, str] = Field({}, description="interfaces with these tags are left alone")
    delete_on_termination: bool | None = Field(None, description="delete new interfaces with the instance")
    release_excess: bool | None = Field(None, description="give addresses above the watermark back")

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
        return list(ranges.parse(value, info.data.get("pod_cidr6_size", ranges.DEFAULT_SIZE6)).texts)

    @property
    def pod_ranges(self) -> ranges.PodRanges | None:
        """What pod_cidrs says; None: the pool comes from IPAM."""
        return ranges.parse(self.pod_cidrs, self.pod_cidr6_size) if self.pod_cidrs else None

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
