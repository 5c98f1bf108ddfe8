"""The simulator: a day of 1,000 nodes with the pods of the example `web`, under fixed marks and by demand.

Values are CPU seconds of one process, since it uses one core and waits for nothing. Beside what it takes stands what it
says: idle addresses by demand against fixed marks, at the same p99 time to an address.

    python -m tests.bench simulate -- --nodes 100
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

from ipam.simulation.engine import simulate
from ipam.simulation.examples import example, example_variants
from ipam.simulation.model import Result
from tests.bench.report import Row


def main(argv: list[str]) -> list[Row]:
    parser = argparse.ArgumentParser(prog="simulate", description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--example", default="web")
    options = parser.parse_args(argv)
    work = example(options.example)
    work = replace(work, groups=tuple(replace(each, nodes=options.nodes) for each in work.groups))
    what = f"simulate: {options.nodes} nodes, {work.duration_s / 3600:g} h"
    results: list[Result] = []
    rows: list[Row] = []
    for variant in example_variants():
        began, cpu = time.perf_counter(), time.process_time()
        results.append(simulate(work, variant))
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
        pods = results[-1].pods
        rows.append(Row(f"{what}, {pods:,} pods, {variant.name}: CPU", cpu, "s", target="<= 60"))
        rows.append(Row(f"{what}, {variant.name}: wall", wall, "s"))
    fixed, demand = results
    rows += [
        Row(f"{what}: idle addresses a node by demand, against a fixed mark of 8", demand.idle_mean / demand.nodes,
            "addresses", fixed.idle_mean / fixed.nodes, target="ratio <= 0.5"),
        Row(f"{what}: p99 time to address by demand", demand.time_to_address_s(0.99), "s",
            fixed.time_to_address_s(0.99)),
        Row(f"{what}: mutating calls by demand, against a fixed mark of 8", demand.mutating_calls, "calls",
            fixed.mutating_calls),
    ]  # fmt: skip
    return rows
