"""The simulator: a day of 1,000 nodes with the pods of the example `web`, under fixed marks and by demand.

Values are CPU seconds of one process, since it uses one core and waits for nothing. Beside what it takes stands what it
says: idle addresses and calls by demand against a fixed mark of 8, at the same p99 time to an address. The other
examples follow with 60 nodes each.

    python -m tests.bench simulate -- --nodes 100
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

from ipam.simulation.engine import simulate
from ipam.simulation.examples import EXAMPLES, example, example_variants
from ipam.simulation.model import Result, Workload
from tests.bench.report import Row

TIMED = "web"
IDLE = {TIMED: "ratio <= 0.5", "batch": "ratio <= 1.03"}


def main(argv: list[str]) -> list[Row]:
    parser = argparse.ArgumentParser(prog="simulate", description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--others", type=int, default=60)
    options = parser.parse_args(argv)
    rows: list[Row] = []
    for name in (TIMED, *(each for each in EXAMPLES if each != TIMED)):
        nodes = options.nodes if name == TIMED else options.others
        work = example(name)
        work = replace(work, groups=tuple(replace(each, nodes=nodes) for each in work.groups))
        what = f"simulate {name}: {nodes} nodes, {work.duration_s / 3600:g} h"
        fixed, demand = run(work, what, rows if name == TIMED else [])
        rows += [
            Row(f"{what}: idle addresses a node by demand, against a fixed mark of 8", demand.idle_mean / demand.nodes,
                "addresses", fixed.idle_mean / fixed.nodes, target=IDLE.get(name, "ratio <= 1")),
            Row(f"{what}: p99 time to address by demand", demand.time_to_address_s(0.99), "s",
                fixed.time_to_address_s(0.99)),
            Row(f"{what}: mutating calls by demand, against a fixed mark of 8", demand.mutating_calls, "calls",
                fixed.mutating_calls, target="ratio <= 1.1"),
        ]  # fmt: skip
    return rows


def run(work: Workload, what: str, rows: list[Row]) -> tuple[Result, Result]:
    """Under fixed marks and by demand; `rows` are told how long it took."""
    results = []
    for variant in example_variants():
        began, cpu = time.perf_counter(), time.process_time()
        results.append(simulate(work, variant))
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
        rows.append(Row(f"{what}, {results[-1].pods:,} pods, {variant.name}: CPU", cpu, "s", target="<= 60"))
        rows.append(Row(f"{what}, {variant.name}: wall", wall, "s"))
    fixed, demand = results
    return fixed, demand
