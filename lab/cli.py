"""`plimsoll lab ...` and `python -m lab`: run a lab, clean up after a killed one, list labs, serve the fake EC2."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NoReturn

import typer

from lab.clouds import CLOUDS, Choice
from lab.options import LabOptions
from lab.state import DEFAULT_NAME, DEFAULT_ROOT, LabError, check_name

app = typer.Typer(
    help="A whole Plimsoll on this machine: fake cloud, fabric, services, nodes and pods.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _named(name: str) -> str:
    try:
        check_name(name)
    except LabError as err:
        raise typer.BadParameter(f"{err.message}: {err.remedy}") from None
    return name


_DEFAULTS = LabOptions()
Datapath = Literal["ebpf", "kernel"]
LogLevel = Literal["debug", "info", "warning", "error"]
Name = Annotated[str, typer.Option("--name", help="Name of the lab; others run beside it.", callback=_named)]


@app.command()
def run(
    nodes: Annotated[int, typer.Option(min=1, max=100, help="Nodes, a network namespace each.")] = _DEFAULTS.nodes,
    pods: Annotated[int, typer.Option(min=0, max=2000, help="Pods, spread over the nodes.")] = _DEFAULTS.pods,
    once: Annotated[bool, typer.Option("--once", help="Run, check, print a summary and end.")] = False,
    name: Name = DEFAULT_NAME,
    cloud: Annotated[
        Choice, typer.Option(help="Whose fake the nodes are of; all: three accounts side by side under one registry.")
    ] = "aws",
    instance_type: Annotated[
        str, typer.Option(help="Instance type of the nodes, if they are of one cloud; a small one if it is not given.")
    ] = "",
    pre_allocate: Annotated[int, typer.Option(min=0, help="Free addresses a node keeps.")] = _DEFAULTS.pre_allocate,
    min_allocate: Annotated[int, typer.Option(min=0, help="Addresses a node holds at least.")] = 0,
    max_allocate: Annotated[int, typer.Option(min=0, help="Addresses a node holds at most; 0: all it can.")] = 0,
    max_above_watermark: Annotated[int, typer.Option(min=0, help="Addresses asked for beyond the need.")] = 0,
    cooldown_s: Annotated[float, typer.Option(min=0, help="Rest of an address between two pods.")] = (
        _DEFAULTS.cooldown_s
    ),
    release_delay_s: Annotated[float, typer.Option(min=0, help="How long an excess lasts before release.")] = (
        _DEFAULTS.release_delay_s
    ),
    pod_timeout_s: Annotated[float, typer.Option(min=0, help="How long a pod may wait for its address.")] = (
        _DEFAULTS.pod_timeout_s
    ),
    datapath: Annotated[Datapath, typer.Option(help="What carries pods' packets.")] = "ebpf",
    masquerade: Annotated[bool, typer.Option("--masquerade", help="Outside, pods have their node's address.")] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SERVICE.NAME=VALUE", help="A setting of a service, in TOML; repeat for more."),
    ] = None,
    log_level: Annotated[LogLevel, typer.Option(help="Log level of the services.")] = "info",
    keep_logs: Annotated[bool, typer.Option("--keep-logs", help="Leave the lab's folder behind.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary of --once as JSON.")] = False,
) -> None:
    """Run a lab until Ctrl-C, or check it once. Exit code 0: all good; 1: something failed; 2: wrong usage."""
    import asyncio

    from lab.run import run as run_lab

    if 0 < max_allocate < min_allocate:
        raise typer.BadParameter(f"{max_allocate} is below --min-allocate {min_allocate}", param_hint="--max-allocate")
    if cloud == "all" and instance_type:
        raise typer.BadParameter("each cloud has types of its own", param_hint="--instance-type")
    if cloud == "all" and nodes < len(CLOUDS):
        raise typer.BadParameter(f"{nodes} are too few for {len(CLOUDS)} clouds", param_hint="--nodes")
    if masquerade and datapath == "kernel":
        raise typer.BadParameter("plain routing does not masquerade", param_hint="--masquerade")
    options = LabOptions(
        name=name,
        nodes=nodes,
        pods=pods,
        cloud=cloud,
        instance_type=instance_type,
        pre_allocate=pre_allocate,
        min_allocate=min_allocate,
        max_allocate=max_allocate,
        max_above_watermark=max_above_watermark,
        cooldown_s=cooldown_s,
        release_delay_s=release_delay_s,
        pod_timeout_s=pod_timeout_s,
        datapath=datapath,
        masquerade=masquerade,
        settings=read_settings(settings or []),
        log_level=log_level,
        keep_logs=keep_logs,
    )
    _check_machine(options)
    raise typer.Exit(asyncio.run(run_lab(options, once=once, as_json=as_json)))


@app.command()
def clean(name: Name = DEFAULT_NAME) -> None:
    """Remove what a killed lab left. Refuses while the lab runs."""
    from lab.state import clean as clean_lab

    try:
        found = clean_lab(name)
    except LabError as err:
        _fail(err)
    typer.echo(f"cleaned up after the lab {name}" if found else f"there is nothing of a lab {name}")


@app.command(name="list")
def list_labs(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the labs of this machine."""
    import json

    from lab.state import labs

    found = labs()
    if as_json:
        rows = [
            {
                "name": name,
                "running": held is not None,
                "pid": held.pid if held else None,
                "folder": str(DEFAULT_ROOT / name),
            }
            for name, held in found.items()
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    if not found:
        typer.echo("no labs; `plimsoll lab run` starts one")
    for name, held in found.items():
        if held is None:
            typer.echo(f"{name:<24} dead; `plimsoll lab clean --name {name}` removes its traces")
        else:
            minutes = (time.time() - held.since_at) / 60
            typer.echo(f"{name:<24} running as process {held.pid} for {minutes:.0f} min")


_FAKE: Final[dict[str, Any]] = {
    "add_help_option": False,
    "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True},
}


@app.command(name="fake-ec2", short_help="Serve the fake EC2 by itself.", **_FAKE)
def fake_ec2(context: typer.Context) -> None:
    """Becomes `python -m lab.fake_ec2` with the words given."""
    _become("lab.fake_ec2", context.args)


@app.command(name="fake-azure", short_help="Serve the fake Azure Resource Manager by itself.", **_FAKE)
def fake_azure(context: typer.Context) -> None:
    """Becomes `python -m lab.fake_azure` with the words given."""
    _become("lab.fake_azure", context.args)


@app.command(name="fake-alibaba", short_help="Serve the fake Alibaba Cloud by itself.", **_FAKE)
def fake_alibaba(context: typer.Context) -> None:
    """Becomes `python -m lab.fake_alibaba` with the words given."""
    _become("lab.fake_alibaba", context.args)


def _become(module: str, words: list[str]) -> NoReturn:
    import os
    import sys

    os.execv(sys.executable, [sys.executable, "-m", module, *words])  # noqa: S606


def read_settings(words: list[str]) -> dict[str, dict[str, object]]:
    """Settings by service out of texts such as "ipam-aws.prefix_delegation=true"."""
    import tomllib

    found: dict[str, dict[str, object]] = {}
    for word in words:
        path, equals, value = word.partition("=")
        service, dot, name = path.partition(".")
        if not (equals and dot and service and name):
            raise typer.BadParameter(f"{word!r} is no SERVICE.NAME=VALUE", param_hint="--set")
        try:
            document = tomllib.loads(f"{name}={value}")
        except tomllib.TOMLDecodeError:
            try:
                document = tomllib.loads(f'{name}="{value}"')
            except tomllib.TOMLDecodeError as error:
                raise typer.BadParameter(f"{word!r} is not TOML: {error}", param_hint="--set") from None
        for key, each in document.items():
            known = found.setdefault(service, {})
            former = known.get(key)
            known[key] = {**former, **each} if isinstance(former, dict) and isinstance(each, dict) else each
    return found


def _check_machine(options: LabOptions) -> None:
    """Says what is missing before anything is started."""
    import os
    import shutil

    from datapath.errors import DatapathError
    from datapath.loader.objects import find
    from datapath.programs import OBJECTS

    if os.geteuid() != 0:
        _fail(LabError("a lab needs root, for its network namespaces", "run it with sudo"))
    missing = [tool for tool in ("redis-server", "nsenter", "setpriv") if shutil.which(tool) is None]
    if missing:
        _fail(LabError(f"not installed: {', '.join(missing)}", "make setup"))
    if not Path(options.plugin).exists():
        _fail(LabError(f"the CNI plugin is not built: {options.plugin} is missing", "run `make cni` in a clone"))
    if options.datapath == "ebpf":
        try:
            for name in (*OBJECTS, "clock"):
                find(name)
        except DatapathError as error:
            _fail(LabError(error.message, error.remedy))


def _fail(err: LabError) -> NoReturn:
    typer.secho(f"lab: {err.message}", fg="red", err=True)
    if err.remedy:
        typer.echo(f"     {err.remedy}", err=True)
    raise typer.Exit(1)
