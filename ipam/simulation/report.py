"""Results side by side: plain values under stable keys for programs, and the same as lines for people."""

from __future__ import annotations

from collections.abc import Sequence

from ipam.simulation.model import DAY_S, Result, Workload

View = dict[str, object]
PARTS = {"p50": 0.5, "p99": 0.99, "p999": 0.999, "max": 1.0}


def view(result: Result) -> View:
    """One variant's result. Seconds, counts of addresses, calls."""
    nodes = max(result.nodes, 1)
    return {
        "variant": result.variant,
        "nodes": result.nodes,
        "pods": result.pods,
        "pods_waited": len(result.waits_s),
        "pods_unserved": result.unserved,
        "time_to_address_s": {name: round(result.time_to_address_s(part), 6) for name, part in PARTS.items()},
        "calls": dict(result.calls),
        "mutating_calls": result.mutating_calls,
        "throttled": result.throttled,
        "held_mean": round(result.held_mean, 3),
        "idle_mean": round(result.idle_mean, 3),
        "idle_mean_a_node": round(result.idle_mean / nodes, 3),
        "idle_peak": result.idle_peak,
        "idle_address_hours": round(result.idle_address_hours, 3),
        "nodes_at_capacity": result.at_capacity,
        "subnets": [
            {
                "id": each.id,
                "size": each.size,
                "least_free": each.least_free,
                "exhausted_at_s": each.exhausted_at_s,
                "refusals": each.refusals,
            }
            for each in result.subnets
        ],
        "wall_s": round(result.wall_s, 3),
    }


def document(workload: Workload, results: Sequence[Result]) -> View:
    """All that one call of the command found."""
    return {
        "workload": workload.name,
        "cloud": workload.cloud.name,
        "duration_s": workload.duration_s,
        "measured_from_s": workload.measure_from_s,
        "seed": workload.seed,
        "variants": [view(result) for result in results],
    }


def lines(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """One row a figure, one column a variant; the first cell says what it is."""
    rows: list[tuple[str, ...]] = []

    def add(what: str, values: Sequence[str]) -> None:
        rows.append((what, *values))

    add("pods", [f"{each.pods:,}" for each in results])
    add("pods that waited", [_share(len(each.waits_s), each.pods) for each in results])
    if any(each.unserved for each in results):
        add("pods that ended without an address", [_share(each.unserved, each.pods) for each in results])
    for name, part in PARTS.items():
        label = {"p999": "p99.9", "max": "longest"}.get(name, name)
        add(f"time to address, {label}", [f"{each.time_to_address_s(part):.2f} s" for each in results])
    add("idle addresses a node, mean", [f"{each.idle_mean / max(each.nodes, 1):.2f}" for each in results])
    add("idle addresses, mean", [f"{each.idle_mean:,.0f}" for each in results])
    add("idle addresses, peak", [f"{each.idle_peak:,}" for each in results])
    add("idle address-hours", [f"{each.idle_address_hours:,.0f}" for each in results])
    add("addresses held, mean", [f"{each.held_mean:,.0f}" for each in results])
    add("mutating calls", [f"{each.mutating_calls:,}" for each in results])
    for name in sorted({name for each in results for name in each.calls}):
        add(f"  {name}", [f"{each.calls.get(name, 0):,}" for each in results])
    add("calls throttled", [f"{each.throttled:,}" for each in results])
    add("nodes at capacity at some time", [f"{each.at_capacity:,}" for each in results])
    for place, subnet in enumerate(results[0].subnets if results else ()):
        add(
            f"subnet {subnet.id}, least free of {subnet.size:,}",
            [f"{each.subnets[place].least_free:,}" for each in results],
        )
        add(f"subnet {subnet.id}, exhausted", [_moment(each.subnets[place].exhausted_at_s) for each in results])
    return rows


def _share(count: int, of: int) -> str:
    return f"{count:,} ({100.0 * count / of:.2f} %)" if of else f"{count:,}"


def _moment(at_s: float | None) -> str:
    """As hours and minutes since the beginning."""
    if at_s is None:
        return "never"
    days, rest = divmod(at_s, DAY_S)
    clock = f"{int(rest // 3600):02}:{int(rest % 3600 // 60):02}"
    return f"day {int(days) + 1}, {clock}" if days else clock
