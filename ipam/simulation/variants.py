"""Settings to compare, out of TOML: the names of an IPAM service's settings, and of workers and nodes beside them.

A file is one variant, called by its name; or it has several [[variant]] tables, whose own fields go over those at the
top of the file. A service's settings file can be used as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ipam.config import IpamConfig
from ipam.errors import InvalidInput
from ipam.model import Policy, Watermarks
from ipam.overrides import Override
from ipam.simulation.fields import Fields, read_text, read_toml
from ipam.simulation.model import CallRate, Variant

MOST_ADDRESSES = 4096
TARGETS = {"warm_addresses": MOST_ADDRESSES, "warm_prefixes": 256, "warm_interfaces": 15}
# What a rule for nodes by their labels may hold and what changes nothing here, as at the top.
BESIDE_RULES = frozenset({
    "subnet_ids", "subnet_tags", "subnet_policy", "security_group_ids", "security_group_tags",
    "exclude_interface_tags", "ipv6", "public_address_tags",
})  # fmt: skip
# What a service's settings file may hold and what changes nothing here.
BESIDE = frozenset(each.name for each in fields(IpamConfig)) | {
    "store", "redis", "replica", "limits_file", "ipv6", "public_address_tags", "listen", "tls", "log", "metrics",
    "listen_address", "metrics_address", "log_level", "log_format", "cloud", "endpoint_url",
}  # fmt: skip


def read_variants(path: Path) -> list[Variant]:
    """Raises InvalidInput."""
    return parse_variants(read_text(path), path.stem, str(path))


def parse_variants(text: str, name: str, where: str = "settings") -> list[Variant]:
    """:param name: of the variant, if the text is only one. Raises InvalidInput."""
    top = read_toml(text, where)
    several = top.pop("variant", None)
    if several is None:
        return [_variant(Fields(top), name)]
    if not isinstance(several, list) or not all(isinstance(each, dict) for each in several) or not several:
        raise InvalidInput("variant is no list of tables", field="variant", remedy="write [[variant]] above each")
    return [
        _variant(Fields(_over(top, each), f"variant.{each.get('name') or number}"), f"{name}-{number}")
        for number, each in enumerate(several, 1)
    ]


def _over(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """`own` over `base`, table by table."""
    merged = dict(base)
    for key, value in own.items():
        before = merged.get(key)
        merged[key] = _over(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return merged


def _variant(table: Fields, name: str) -> Variant:
    plain = Variant(name, IpamConfig("simulated", "simulated"))
    base = plain.config
    config = replace(
        base,
        watermarks=_marks(table.table("watermarks"), base.watermarks),
        policy=_policy(table.table("policy"), base.policy),
        overrides=tuple(_override(each) for each in table.tables("overrides")),
        first_interface_index=table.whole("first_interface_index", base.first_interface_index, most=15),
        release_excess=table.flag("release_excess", base.release_excess),
        release_delay_s=table.number("release_delay_s", base.release_delay_s, most=86400.0),
        release_batch=table.whole("release_batch", base.release_batch, most=MOST_ADDRESSES),
        release_interval_s=table.number("release_interval_s", base.release_interval_s, most=86400.0),
        release_interfaces=table.flag("release_interfaces", base.release_interfaces),
        delete_on_termination=table.flag("delete_on_termination", base.delete_on_termination),
        coalesce_s=table.number("coalesce_s", base.coalesce_s, most=3600.0),
        urgent_fraction=table.number("urgent_fraction", base.urgent_fraction, most=1.0),
        resync_interval_s=table.number("resync_interval_s", base.resync_interval_s, least=1.0, most=86400.0),
        block_s=table.number("block_s", base.block_s, least=1.0, most=86400.0),
        retry_base_s=table.number("retry_base_s", base.retry_base_s, least=0.01, most=60.0),
        retry_cap_s=table.number("retry_cap_s", base.retry_cap_s, least=0.01, most=3600.0),
    )
    budget = table.table("budget")
    allowed = CallRate(
        budget.number("mutate_per_s", plain.budget.per_s, least=0.001, most=10_000.0),
        budget.number("mutate_burst", plain.budget.burst, least=1.0, most=10_000.0),
    )
    fifo = budget.flag("fifo", plain.fifo)
    budget.drop({
        "read_per_s", "read_burst", "total_per_s", "total_burst", "cut_factor", "cut_interval_s", "growth_share",
        "fallback_share",
    })  # fmt: skip
    budget.end()
    variant = Variant(
        name=table.text("name", name),
        config=config,
        prefix_delegation=table.flag("prefix_delegation", False),
        use_primary_address=table.flag("use_primary_address", False),
        budget=allowed,
        fifo=fifo,
        workers=table.whole("workers", plain.workers, least=1, most=10_000),
        cooldown_s=table.number("cooldown_s", plain.cooldown_s, most=86400.0),
        reaction_s=table.number("reaction_s", plain.reaction_s, most=60.0),
    )
    table.drop(BESIDE)
    table.end()
    return variant


def _override(table: Fields) -> Override:
    """A rule: only what it says goes over the settings at the top."""
    labels = table.labels("match_labels")
    if not labels:
        raise table.fail("match_labels", "names no label", "name one that groups have, or change the settings above")
    marks, policy = table.table("watermarks"), table.table("policy")
    said_marks = [each.name for each in fields(Watermarks) if marks.has(each.name)]
    said_policy = [each.name for each in fields(Policy) if policy.has(each.name)]
    new_marks, new_policy = _marks(marks, Watermarks()), _policy(policy, Policy())
    spec: dict[str, Any] = {
        name: table.flag(name, False)
        for name in ("prefix_delegation", "use_primary_address", "release_excess")
        if table.has(name)
    }
    if table.has("first_interface_index"):
        spec["first_interface_index"] = table.whole("first_interface_index", 0, most=15)
    rule = Override(
        name=table.text("name", ",".join(f"{key}={value}" for key, value in labels.items())),
        match_labels=labels,
        watermarks={name: getattr(new_marks, name) for name in said_marks},
        policy={name: getattr(new_policy, name) for name in said_policy},
        spec=spec,
    )
    table.drop(BESIDE_RULES)
    table.end()
    return rule


def _marks(table: Fields, base: Watermarks) -> Watermarks:
    marks = Watermarks(**{
        each.name: table.whole(each.name, getattr(base, each.name), most=MOST_ADDRESSES) for each in fields(Watermarks)
    })  # fmt: skip
    table.end()
    if 0 < marks.max_allocate < marks.min_allocate:
        raise table.fail("max_allocate", f"is below min_allocate ({marks.min_allocate})", "exchange the two")
    return marks


def _policy(table: Fields, base: Policy) -> Policy:
    said = [name for name in TARGETS if table.has(name)]
    if len(said) > 1:
        raise table.fail(said[1], f"is set beside {said[0]}", "a node has one target, so leave the others out")
    warm = {name: table.whole(name, None, most=most) for name, most in TARGETS.items() if table.has(name)}
    policy = Policy(
        **warm,
        warm_up=table.whole("warm_up", base.warm_up, most=MOST_ADDRESSES),
        follow_demand=table.flag("follow_demand", base.follow_demand),
        demand_least=table.whole("demand_least", base.demand_least, most=MOST_ADDRESSES),
        demand_most=table.whole("demand_most", base.demand_most, most=MOST_ADDRESSES),
    )
    table.drop(TARGETS)
    table.end()
    if policy.demand_least > policy.demand_most:
        raise table.fail("demand_least", f"is above demand_most ({policy.demand_most})", "exchange the two")
    return policy
