"""A described workload, out of TOML; docs/simulate.md has the fields with examples."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from ipam.errors import InvalidInput
from ipam.model import Limits, Operation
from ipam.simulation.clouds import CLOUDS
from ipam.simulation.fields import Fields, read_text, read_toml
from ipam.simulation.model import CallRate, CloudRules, Group, PodStream, RecordedPod, SubnetRule, Workload
from ipam.simulation.recorded import read_recorded

HOURS = 24
MOST_NODES = 100_000
MOST_DAYS = 31
NO_TYPE = "add [[type]] with name, interfaces and ipv4_per_interface, or use one of "


def read_workload(path: Path) -> Workload:
    """Of a file: TOML describes it, CSV and JSON lines are recorded pods. Raises InvalidInput."""
    if path.suffix in (".csv", ".jsonl"):
        raise InvalidInput(
            f"{path} tells pods, and nothing of nodes", field="recorded",
            remedy=f'write a TOML file with cloud, recorded = "{path.name}" and a [[group]] with the type of the nodes',
        )  # fmt: skip
    return parse_workload(read_text(path), str(path), folder=path.parent)


def parse_workload(text: str, name: str, *, folder: Path = Path()) -> Workload:
    """:param folder: where the recorded pods that it names lie. Raises InvalidInput."""
    top = Fields(read_toml(text, name))
    cloud = _rules(CLOUDS[top.text("cloud", choices=CLOUDS)], top)
    recorded: tuple[RecordedPod, ...] = ()
    if top.has("recorded"):
        recorded = read_recorded(folder / top.text("recorded"))
    ends_s = max((pod.end_s for pod in recorded), default=0.0)
    hours = top.number("hours", ends_s / 3600.0 if recorded else 24.0, least=1 / 3600, most=24.0 * MOST_DAYS)
    workload = Workload(
        name=top.text("name", name),
        cloud=cloud,
        groups=tuple(_group(each, cloud.types, recorded=bool(recorded)) for each in top.tables("group")),
        duration_s=hours * 3600.0,
        measure_from_s=top.number("measure_from_hours", 0.0, most=24.0 * MOST_DAYS) * 3600.0,
        seed=top.whole("seed", 1, most=1 << 31),
        subnets=tuple(_subnet(each, cloud) for each in top.tables("subnet")),
        recorded=recorded,
    )
    top.end()
    _check(workload)
    return workload


def _rules(cloud: CloudRules, top: Fields) -> CloudRules:
    """`cloud` with what the workload says of the account."""
    types = dict(cloud.types)
    for each in top.tables("type"):
        limits = Limits(
            each.text("name"), each.whole("interfaces", None, least=1, most=64),
            each.whole("ipv4_per_interface", None, least=1, most=1024),
            prefixes=each.flag("prefixes", False),
            addresses_per_instance=each.whole("addresses_per_instance", 0, most=65536),
        )  # fmt: skip
        each.end()
        types[limits.instance_type] = limits
    rules = top.table("rules")
    seconds = dict(cloud.seconds)
    times = rules.table("seconds")
    for operation in Operation:
        if times.has(operation):
            seconds[operation] = times.number(operation, None, most=3600.0)
    times.end()
    throttle = CallRate(
        rules.number("throttle_per_s", cloud.throttle.per_s, least=0.001, most=1e6),
        rules.number("throttle_burst", cloud.throttle.burst, least=1, most=1e6),
    )
    rules.end()
    return replace(cloud, types=types, seconds=seconds, throttle=throttle)


def _subnet(table: Fields, cloud: CloudRules) -> SubnetRule:
    id = table.text("id")
    cidr = table.text("cidr")
    try:
        network = ipaddress.IPv4Network(cidr)
    except ValueError as error:
        raise table.fail("cidr", f"is {cidr!r}: {error}", "write a range such as 10.0.0.0/20") from error
    if not 8 <= network.prefixlen <= 28:
        raise table.fail("cidr", f"is {cidr}", "write a range of 8 to 28 bits")
    size = network.num_addresses - cloud.reserved
    subnet = SubnetRule(id, cidr, table.text("zone", "a"), table.whole("taken", 0, most=size))
    table.end()
    return subnet


def _group(table: Fields, types: Mapping[str, Limits], *, recorded: bool) -> Group:
    name = table.text("name")
    kind = table.text("type")
    if kind not in types:
        raise table.fail("type", f"is {kind!r}, of which nothing is known", NO_TYPE + ", ".join(sorted(types)))
    if recorded:
        group = Group(name, kind, 0, table.texts("zones", ("a",)), names=table.texts("names"),
                      labels=table.labels("labels"))  # fmt: skip
        if table.has("nodes") or table.has("pods"):
            raise table.fail("nodes", "and pods come from the recording", "leave nodes and pods out")
    else:
        group = Group(
            name,
            kind,
            nodes=table.whole("nodes", 1, least=1, most=MOST_NODES),
            zones=table.texts("zones", ("a",)),
            join_over_s=table.number("join_over_s", 0.0, most=86400.0 * MOST_DAYS),
            pods=tuple(_stream(each) for each in table.tables("pods")),
            labels=table.labels("labels"),
        )
    if not group.zones:
        raise table.fail("zones", "is empty", 'write zones = ["a"]')
    table.end()
    return group


def _stream(table: Fields) -> PodStream:
    stream = PodStream(
        name=table.text("name", "pods"),
        standing=table.whole("standing", 0, most=4096),
        per_minute=table.number("per_minute", 0.0, most=6000.0),
        burst_size=table.whole("burst_size", 0, most=4096),
        burst_every_s=table.number("burst_every_s", 3600.0, least=1.0),
        burst_first_s=table.number("burst_first_s", 0.0),
        burst_spread_s=table.number("burst_spread_s", 1.0, most=86400.0),
        together=table.flag("together", False),
        lifetime_s=table.number("lifetime_s", 3600.0, least=0.001),
        lifetime=table.text("lifetime", "exponential", choices=("exponential", "fixed")),
        day=_day(table),
    )
    table.end()
    if not (stream.standing or stream.per_minute or stream.burst_size):
        raise table.fail("per_minute", "is 0, and so are standing and burst_size", "set one of them")
    return stream


def _day(table: Fields) -> tuple[float, ...]:
    """24 factors scaled to an average of 1."""
    factors = table.numbers("day")
    if not factors:
        return ()
    if len(factors) != HOURS:
        raise table.fail("day", f"has {len(factors)} numbers", "write 24, one for each hour from midnight (UTC) on")
    if min(factors) < 0 or not sum(factors):
        raise table.fail("day", "has no hour with pods, or one with fewer than none", "write numbers above 0")
    mean = sum(factors) / HOURS
    return tuple(each / mean for each in factors)


def _check(workload: Workload) -> None:
    """What only shows when all is read."""
    if not workload.groups:
        raise InvalidInput("there are no nodes", field="group", remedy="add [[group]] with name, type and nodes")
    _once("group", (each.name for each in workload.groups))
    _once("subnet", (each.id for each in workload.subnets))
    if workload.measure_from_s >= workload.duration_s:
        raise InvalidInput(
            "measure_from_hours is not before the end", field="measure_from_hours", remedy="write less than hours"
        )
    nodes = sum(each.nodes for each in workload.groups)
    if nodes > MOST_NODES:
        raise InvalidInput(f"{nodes} nodes are too many", field="group", remedy=f"write {MOST_NODES} in all at most")
    networks = [(each.id, ipaddress.IPv4Network(each.cidr)) for each in workload.subnets]
    for place, (id, network) in enumerate(networks):
        for other, held in networks[:place]:
            if network.overlaps(held):
                raise InvalidInput(
                    f"subnets {other} and {id} overlap", field=f"subnet.{id}.cidr", remedy="give each its own range"
                )
    if not workload.subnets:
        return
    zones = {each.zone for each in workload.subnets}
    for group in workload.groups:
        for zone in group.zones:
            if zone not in zones:
                raise InvalidInput(
                    f"group {group.name} has nodes in zone {zone!r}, and no subnet is there",
                    field=f"group.{group.name}.zones",
                    remedy=f"add [[subnet]] with that zone, or use {', '.join(sorted(zones))}",
                )


def _once(field: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InvalidInput(f"{field} {name!r} is there twice", field=f"{field}.{name}", remedy="rename one")
        seen.add(name)
