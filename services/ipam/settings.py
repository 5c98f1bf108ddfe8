"""Settings that every IPAM service has, whatever its cloud: one account and region, and the defaults of its nodes."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import SettingsConfigDict

from ipam.config import IpamConfig
from ipam.model import Limits, NodeSpec, Policy, SubnetPolicy, Watermarks
from ipam.overrides import TARGETS, Override, overridden
from services.runtime.settings import ServiceSettings

REDIS_SCHEMES: Final = ("unix://", "redis://", "rediss://")
_TAG_KEY_LENGTH: Final = 128
_OWN_TYPES: Final = {"watermarks", "policy", "overrides"}


def parse_tags(value: Any) -> Any:
    """Tags as a table, or as "key=value" texts, one or more. Raises ValueError that names the malformed one."""
    if isinstance(value, str):
        value = [each.strip() for each in value.split(",") if each.strip()]
    if isinstance(value, list | tuple):
        pairs = {}
        for each in value:
            key, equals, tag = str(each).partition("=")
            if not equals:
                raise ValueError(f"{each!r} is no tag filter; write key=value")
            pairs[key.strip()] = tag.strip()
        value = pairs
    if isinstance(value, Mapping):
        for key in value:
            if not 1 <= len(str(key)) <= _TAG_KEY_LENGTH:
                raise ValueError(f"{key!r} is no tag key; it has 1 to {_TAG_KEY_LENGTH} characters")
    return value


def check_redis_url(url: str) -> str:
    """Raises ValueError for what is no Redis URL."""
    if not url.startswith(REDIS_SCHEMES) or len(url) <= len("redis://"):
        raise ValueError("write redis://host:port/db, rediss://... with TLS, or unix:///path/of/socket")
    parts = urlsplit(url)
    try:
        placed = parts.path if parts.scheme == "unix" else parts.hostname and (parts.port or True)
    except ValueError:
        placed = None  # its text would repeat what stands where the port should, which may be half of a password
    if not placed or "@" in parts.path:
        raise ValueError("host and port can't be told apart from the password: write / as %2F, @ as %40 and : as %3A")
    return url


def ids_like(pattern: str, example: str) -> BeforeValidator:
    """Has each text of a list, or of "a,b", match `pattern`; says `example` of those that do not."""

    def check(value: Any) -> Any:
        ids = [each.strip() for each in value.split(",") if each.strip()] if isinstance(value, str) else value
        for each in ids if isinstance(ids, list | tuple) else ():
            if not re.fullmatch(pattern, str(each)):
                raise ValueError(f"{each!r} is no id of that kind; it looks like {example}")
        return ids

    return BeforeValidator(check)


Tags = Annotated[dict[str, str], BeforeValidator(parse_tags)]
RedisUrl = Annotated[str, Field(description="Redis of the queue and the budget: redis://host:port/db or unix:///path")]


class WatermarkSettings(BaseModel):
    """Marks of nodes that set none themselves. Counts of addresses."""

    model_config = ConfigDict(extra="forbid")

    pre_allocate: int = Field(default=8, ge=0, le=4096, description="addresses kept free beyond those in use")
    min_allocate: int = Field(default=0, ge=0, le=4096, description="addresses that a node holds at least")
    max_allocate: int = Field(
        default=0, ge=0, le=4096, description="addresses that a node holds at most; 0: what it can"
    )
    max_above_watermark: int = Field(
        default=0, ge=0, le=4096, description="addresses asked for beyond the need, at once"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if 0 < self.max_allocate < self.min_allocate:
            raise ValueError(f"max_allocate ({self.max_allocate}) is below min_allocate ({self.min_allocate})")
        return self


class PolicySettings(BaseModel):
    """How marks come about where they are not plain counts; of nodes that say nothing themselves."""

    model_config = ConfigDict(extra="forbid")

    warm_addresses: int | None = Field(None, ge=0, le=4096, description="free addresses; 0: fetched for each pod")
    warm_prefixes: int | None = Field(None, ge=0, le=256, description="free prefixes")
    warm_interfaces: int | None = Field(None, ge=0, le=15, description="interfaces' worth of free addresses")
    warm_up: int = Field(0, ge=0, le=4096, description="addresses that a node starts with, once")
    follow_demand: bool = Field(False, description="free addresses follow the node's own starts and stops")
    demand_least: int = Field(1, ge=0, le=4096, description="free addresses by demand, at least")
    demand_most: int = Field(32, ge=0, le=4096, description="free addresses by demand, at most")

    @model_validator(mode="after")
    def _one(self) -> Self:
        said = [name for name in TARGETS if getattr(self, name) is not None]
        if len(said) > 1:
            raise ValueError(f"{' and '.join(said)} are set; a node has one target, so leave the others out")
        both = {"demand_least", "demand_most"} <= self.model_fields_set  # else the other one is the service's
        if both and self.demand_least > self.demand_most:
            raise ValueError(f"demand_least ({self.demand_least}) is above demand_most ({self.demand_most})")
        return self


class OverrideSettings(BaseModel):
    """What nodes with all of `match_labels` get; what is not said stays as it is for other nodes."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field("", max_length=63, description="for people; empty: made of the labels")
    match_labels: Tags = Field(description="labels that a node must have, all of them")
    watermarks: WatermarkSettings | None = Field(None, description="marks that differ")
    policy: PolicySettings | None = Field(None, description="policies that differ")
    first_interface_index: int | None = Field(None, ge=0, le=15, description="interfaces below it carry no pods")
    subnet_ids: tuple[str, ...] | None = Field(None, description="subnets of new interfaces")
    subnet_tags: Tags | None = Field(None, description="tags of these subnets")
    subnet_policy: SubnetPolicy | None = Field(None, description="which of several: most-free, ordered or random")
    security_group_ids: tuple[str, ...] | None = Field(None, description="groups of new interfaces")
    security_group_tags: Tags | None = Field(None, description="tags of these groups")
    exclude_interface_tags: Tags | None = Field(None, description="interfaces with all of them are left alone")
    prefix_delegation: bool | None = Field(None, description="whole prefixes instead of single addresses")
    ipv6: bool | None = Field(None, description="pods get an IPv6 address, too")
    use_primary_address: bool | None = Field(None, description="primary addresses carry pods, but for the first one's")
    public_address_tags: Tags | None = Field(None, description="each node gets a public address with these tags")
    release_excess: bool | None = Field(None, description="give addresses back that are above the marks")

    @field_validator("match_labels")
    @classmethod
    def _labels(cls, value: dict[str, str]) -> dict[str, str]:
        if not value:
            raise ValueError("it matches every node; name a label, or change the service's own settings")
        return value

    def override(self) -> Override:
        apart = {"name", "match_labels", "watermarks", "policy"}
        spec = {name: getattr(self, name) for name in self.model_fields_set - apart if getattr(self, name) is not None}
        labels = ",".join(f"{key}={value}" for key, value in self.match_labels.items())
        return Override(
            name=self.name or labels,
            match_labels=self.match_labels,
            watermarks=self.watermarks.model_dump(exclude_unset=True) if self.watermarks else {},
            policy=self.policy.model_dump(exclude_unset=True) if self.policy else {},
            spec=spec,
        )


class IpamSettings(ServiceSettings):
    """A cloud's own settings class adds how its accounts, regions and ids look."""

    model_config = SettingsConfigDict(extra="forbid")

    account: str = Field(description="whose resources: the account's id at the cloud")
    region: str = Field(description="the cloud's region")
    cluster: str = Field(
        "plimsoll", pattern=r"^[A-Za-z0-9._-]{1,63}$", description="put on all we create, and needed to delete it"
    )
    store: str = Field(description="database: sqlite:////path or postgresql://...")
    redis: RedisUrl = "unix:///run/plimsoll/redis.sock"
    replica: str = Field("", description="this replica's name, for leadership; empty: host name and process id")

    watermarks: WatermarkSettings = Field(default_factory=WatermarkSettings, description="default marks of nodes")
    policy: PolicySettings = Field(
        default_factory=lambda: PolicySettings.model_validate({}), description="targets, warm-up and demand"
    )
    overrides: tuple[OverrideSettings, ...] = Field((), description="rules for nodes by their labels, in order")
    first_interface_index: int = Field(0, ge=0, le=15, description="interfaces of a lower index carry no pods")
    subnet_ids: tuple[str, ...] = Field(
        (), description="subnets of new interfaces; empty: by tags, else the node's own"
    )
    subnet_tags: Tags = Field(default_factory=dict, description="tags of the subnets of new interfaces")
    subnet_policy: SubnetPolicy = Field(
        SubnetPolicy.MOST_FREE,
        description="which of several subnets with room: most-free, ordered (as in subnet_ids) or random",
    )
    security_group_ids: tuple[str, ...] = Field((), description="groups of new interfaces; empty: by tags, else eth0's")
    security_group_tags: Tags = Field(default_factory=dict, description="tags of the groups of new interfaces")
    exclude_interface_tags: Tags = Field(default_factory=dict, description="interfaces with all of them are left alone")
    prefix_delegation: bool = Field(False, description="whole prefixes instead of single addresses, if it can be")
    ipv6: bool = Field(False, description="pods get an IPv6 address, too, where the subnet has a range")
    use_primary_address: bool = Field(False, description="primary addresses carry pods, but for the first interface's")
    public_address_tags: Tags = Field(default_factory=dict, description="nodes get a public address with these tags")
    delete_on_termination: bool = Field(True, description="let the cloud delete interfaces with their instance")
    release_excess: bool = Field(True, description="give addresses back that are above the marks")
    release_delay_s: float = Field(180.0, ge=0, le=86400, description="how long an excess lasts before it is released")
    release_batch: int = Field(
        0, ge=0, le=4096, description="addresses of a node given back at once; 0: a call's worth"
    )
    release_interval_s: float = Field(30.0, ge=0, le=86400, description="between two batches of a node, on average")
    release_interfaces: bool = Field(False, description="detach and delete interfaces of which no address is used")
    reclaim: bool = Field(True, description="pods that wait may have what other nodes keep free, if subnets are empty")
    coalesce_s: float = Field(30.0, ge=0, le=3600, description="how long a deficit that is not urgent waits for more")
    urgent_fraction: float = Field(0.75, ge=0, le=1, description="urgent: fewer than this part of pre-allocate is free")
    resync_interval_s: float = Field(60.0, ge=1, le=86400, description="time between two full listings of the cloud")
    collect_interval_s: float = Field(300.0, ge=1, le=86400, description="time between two looks for leaked interfaces")
    leak_age_s: float = Field(300.0, ge=1, le=86400, description="how long an interface is detached before deletion")
    collect_limit: int = Field(25, ge=1, le=1000, description="interfaces deleted in one pass")
    block_s: float = Field(300.0, ge=1, le=86400, description="how long an exhausted subnet is passed over")
    lease_s: float = Field(60.0, ge=1, le=600, description="how long a worker holds an intent")
    retry_base_s: float = Field(1.0, gt=0, le=60, description="first pause between two attempts; doubles")
    retry_cap_s: float = Field(300.0, gt=0, le=3600, description="longest pause between two attempts")
    max_attempts: int = Field(20, ge=0, le=1000, description="attempts before the dead letters; 0: without end")
    sweep_interval_s: float = Field(10.0, gt=0, le=600, description="time between two looks for open intents")
    limits_file: Path | None = Field(
        None, description="TOML or JSON with limits of instance types that win over the cloud's"
    )

    @field_validator("redis")
    @classmethod
    def _redis(cls, value: str) -> str:
        return check_redis_url(value)

    @field_validator("store")
    @classmethod
    def _store(cls, value: str) -> str:
        if not value.startswith(("sqlite:////", "postgresql://")):
            raise ValueError("write sqlite:////path/of/file.db or postgresql://user@host/database")
        return value

    @field_validator("limits_file")
    @classmethod
    def _limits_file(cls, value: Path | None) -> Path | None:
        if value is not None:
            read_limits(value)
        return value

    @model_validator(mode="after")
    def _fit(self) -> Self:
        """The service's own words, and each rule over them: else nodes would be refused one by one."""
        defaults = NodeSpec("", "", watermarks=self.marks(), policy=Policy(**self.policy.model_dump()))
        for rule in (None, *(each.override() for each in self.overrides)):
            spec = defaults if rule is None else overridden(defaults, [rule], rule.match_labels)
            where = f"overrides {rule.name!r} over the service's settings: " if rule is not None else ""
            marks, policy = spec.watermarks, spec.policy
            if 0 < marks.max_allocate < marks.min_allocate:
                raise ValueError(
                    f"{where}max_allocate ({marks.max_allocate}) is below min_allocate ({marks.min_allocate})"
                )
            if policy.demand_least > policy.demand_most:
                raise ValueError(
                    f"{where}demand_least ({policy.demand_least}) is above demand_most ({policy.demand_most})"
                )
        return self

    def marks(self) -> Watermarks:
        return Watermarks(**self.watermarks.model_dump())

    def config(self) -> IpamConfig:
        """The domain's view of these settings; reads the limits file. Raises ValueError if it changed for the worse."""
        same = set(IpamConfig.__dataclass_fields__) & set(type(self).model_fields) - _OWN_TYPES
        return IpamConfig(
            **{name: getattr(self, name) for name in same},
            watermarks=self.marks(),
            policy=Policy(**self.policy.model_dump()),
            overrides=tuple(each.override() for each in self.overrides),
            limits_override={} if self.limits_file is None else read_limits(self.limits_file),
        )

    def node_defaults(self) -> NodeSpec:
        """What a node gets that sets nothing itself."""
        same = set(NodeSpec.__dataclass_fields__) & set(type(self).model_fields) - _OWN_TYPES
        return NodeSpec(
            name="", instance_id="", watermarks=self.marks(), policy=Policy(**self.policy.model_dump()),
            **{name: getattr(self, name) for name in same},
        )  # fmt: skip


class _TypeLimits(BaseModel):
    model_config = ConfigDict(extra="forbid")

    interfaces: int = Field(ge=1, le=64)
    ipv4_per_interface: int = Field(ge=1, le=256)
    ipv6_per_interface: int = Field(0, ge=0, le=256)
    prefixes: bool = False
    network_cards: int = Field(1, ge=1, le=32)
    addresses_per_instance: int = Field(0, ge=0, le=4096)
    card_interfaces: tuple[int, ...] = ()


def read_limits(path: Path) -> dict[str, Limits]:
    """Limits by instance type from a file such as

        ["m9x.large"]
        interfaces = 3
        ipv4_per_interface = 10     # the primary address included

    or the same as JSON (by its suffix). Raises ValueError that names the type, the field and what is accepted.
    """
    try:
        text = path.read_text(encoding="utf-8")
        types = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not {'JSON' if path.suffix == '.json' else 'TOML'}: {error}") from error
    if not isinstance(types, dict):
        raise ValueError(f"{path} holds no table of instance types")
    limits, wrong = {}, []
    for name, fields in types.items():
        try:
            limits[name] = Limits(instance_type=name, **_TypeLimits.model_validate(fields).model_dump())
        except ValidationError as error:
            for each in error.errors():
                where = ".".join([name, *map(str, each["loc"])])
                wrong.append(f"{where}: {each['msg']}, not {each['input']!r}")
    if wrong:
        raise ValueError(f"{path}: " + "; ".join(wrong))
    return limits
