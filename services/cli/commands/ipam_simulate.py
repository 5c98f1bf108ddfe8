"""plimsoll ipam simulate"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.options import Json

if TYPE_CHECKING:
    from ipam.simulation.engine import Progress
    from ipam.simulation.model import Variant, Workload

EXAMPLES = ("web", "batch", "cron")


def simulate(
    workload: Annotated[
        Path | None, typer.Argument(metavar="WORKLOAD", help="TOML that describes nodes and pods.", show_default=False)
    ] = None,
    example: Annotated[
        str, typer.Option(metavar="NAME", help=f"A workload that comes with it: {', '.join(EXAMPLES)}.")
    ] = "",
    settings: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Settings to try, TOML; may be repeated. Default: fixed marks and demand."),
    ] = None,
    nodes: Annotated[int, typer.Option(min=0, help="Nodes of each group; 0: as the workload says.")] = 0,
    hours: Annotated[float, typer.Option(min=0, help="How long; 0: as the workload says.")] = 0.0,
    seed: Annotated[int | None, typer.Option(min=0, help="Of chance; default: as the workload says.")] = None,
    print_: Annotated[bool, typer.Option("--print", help="Print the example and its settings instead.")] = False,
    json: Json = False,
) -> None:
    """Try settings on a workload in simulated time: calls, idle addresses, time to address. Asks no service."""
    from ipam.errors import InvalidInput
    from ipam.simulation.engine import simulate as run
    from ipam.simulation.report import document, lines
    from services.cli.errors import Usage
    from services.cli.render import Table, lasting, show

    try:
        if print_:
            show(*_texts(example))
            return
        work = _changed(_workload(workload, example), nodes=nodes, hours=hours, seed=seed)
        results = []
        for variant in _variants(settings):
            with _progress(variant.name) as told:
                results.append(run(work, variant, told))
    except InvalidInput as error:
        raise Usage(error.message, remedy=error.remedy, field=error.field) from error
    measured = f", measured from {lasting(work.measure_from_s)} on" if work.measure_from_s else ""
    head = f"{work.name} on {work.cloud.name}: {results[0].nodes} nodes, {lasting(work.duration_s)}{measured}"
    table = Table(("", *(each.variant for each in results)), [*lines(results)], title=head)
    walls = ", ".join(f"{each.variant} {each.wall_s:.1f} s" for each in results)
    show(document(work, results), json, table, f"simulated in: {walls}")


def _workload(path: Path | None, name: str) -> Workload:
    from ipam.simulation.examples import example
    from ipam.simulation.workload import read_workload
    from services.cli.errors import Usage

    if (path is None) == (not name):
        raise Usage(
            "name a workload, or an example" if path is None else "a workload and an example are named",
            remedy=f"plimsoll ipam simulate FILE.toml, or --example with one of {', '.join(EXAMPLES)}",
            field="workload",
        )
    if path is not None:
        return read_workload(path)
    _known(name)
    return example(name)


def _known(name: str) -> None:
    from services.cli.errors import Usage

    if name not in EXAMPLES:
        raise Usage(f"{name!r} is no example", remedy=f"use one of {', '.join(EXAMPLES)}", field="example")


def _texts(name: str) -> tuple[dict[str, str], bool, str]:
    """What `show` takes to print an example."""
    from ipam.simulation.examples import EXAMPLES as WORKLOADS
    from ipam.simulation.examples import SETTINGS
    from services.cli.invocation import this

    _known(name)
    text = WORKLOADS[name]
    commented = "".join(f"# {line}\n" for line in SETTINGS.splitlines())
    return (
        {"workload": text, "settings": SETTINGS},
        this.json,
        f"{text}\n# settings, for a file of their own:\n{commented}",
    )


def _variants(paths: list[Path] | None) -> list[Variant]:
    from ipam.simulation.examples import example_variants
    from ipam.simulation.variants import read_variants
    from services.cli.errors import Usage

    variants = [each for path in paths for each in read_variants(path)] if paths else example_variants()
    names = [each.name for each in variants]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise Usage(f"several settings are called {', '.join(twice)}", remedy="give each a name", field="name")
    return variants


def _changed(work: Workload, *, nodes: int, hours: float, seed: int | None) -> Workload:
    """The workload with what the command line says. Raises Usage where that makes no sense."""
    from dataclasses import replace

    from services.cli.errors import Usage

    if nodes and work.recorded:
        raise Usage("the recording says which nodes there are", remedy="leave --nodes out", field="nodes")
    if nodes:
        work = replace(work, groups=tuple(replace(each, nodes=nodes) for each in work.groups))
    if hours:
        work = replace(work, duration_s=hours * 3600.0)
    if work.measure_from_s >= work.duration_s:
        raise Usage(
            f"measuring begins after {work.measure_from_s / 3600.0:g} hours, which is the end",
            remedy="give --hours more, or lower measure_from_hours",
            field="hours",
        )
    return work if seed is None else replace(work, seed=seed)


@contextmanager
def _progress(name: str) -> Iterator[Progress | None]:
    """A line on a terminal's standard error that grows; nothing where nobody looks."""
    if not sys.stderr.isatty():
        yield None
        return

    def told(part: float) -> None:
        print(f"\r{name}: {100.0 * part:.0f} %", end="", file=sys.stderr, flush=True)

    try:
        yield told
    finally:
        print("\r\033[K", end="", file=sys.stderr, flush=True)
