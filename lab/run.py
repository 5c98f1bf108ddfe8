"""`plimsoll lab run`: a lab from start to end, watched by people or checked once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import grpc
from aiohttp import ClientError
from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lab.checks import Result, run_all
from lab.lab import Lab
from lab.options import LabOptions
from lab.state import LabError
from lab.table import Snapshot, Steps, render

_REFRESH_S: Final = 1.0
_PINGS_PER_REFRESH: Final = 20


async def run(options: LabOptions, *, once: bool, as_json: bool) -> int:
    """Runs a lab; returns the exit code: 0 well, 1 a check or the lab failed.

    Ctrl-C, SIGTERM and SIGHUP end it cleanly.
    """
    console = Console(stderr=as_json)
    steps = Steps(console)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    began = time.monotonic()
    work = asyncio.create_task(_life(options, console, steps, once=once, as_json=as_json, began=began))
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([work, stopped], return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work
            console.print("ended; nothing is left behind")
            return 0 if not once else 1
        return await work
    except LabError as err:
        steps.close()
        console.print(Text(f"lab: {err.message}", style="red"), soft_wrap=True)
        if err.remedy:
            console.print(Text(f"     {err.remedy}"), soft_wrap=True)
        return 1
    finally:
        steps.close()
        stopped.cancel()


async def _life(options: LabOptions, console: Console, steps: Steps, *, once: bool, as_json: bool, began: float) -> int:
    async with Lab(options, steps) as lab, _obituaries(lab):
        steps.begin(f"{options.pods} pods")
        await lab.add_pods(options.pods)
        steps.done(f"{options.pods} pods")
        started_s = time.monotonic() - began
        if not once:
            console.print(
                f"up in {started_s:.1f} s; Ctrl-C ends it; ask it from another terminal:\n"
                f"  {_command()} --context {lab.state.folder}/context.toml status\n",
                highlight=False,
                soft_wrap=True,
            )
            await _show(lab, console)
            return 0
        results = await _checks(lab, steps)
        summary = await _summary(lab, results, started_s, time.monotonic() - began)
    if as_json:
        sys.stdout.write(json.dumps(summary, indent=2) + "\n")
    else:
        _print_summary(console, summary)
    return 0 if summary["ok"] else 1


async def _checks(lab: Lab, steps: Steps) -> list[Result]:
    current: list[str] = []

    def told(name: str) -> None:
        if current:
            steps.done(current.pop())
        current.append(name)
        steps.begin(name)

    results = await run_all(lab, told)
    if results[-1].ok:
        steps.done(current.pop())
    return results


@contextlib.asynccontextmanager
async def _obituaries(lab: Lab) -> AsyncIterator[None]:
    """Ends the block with ChildDied when a child ends that nobody asked to."""
    owner = asyncio.current_task()
    assert owner is not None
    dead: list[LabError] = []

    async def watch() -> None:
        dead.append((await lab.children.death()).obituary())
        owner.cancel()

    task = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if not dead:
            raise
        owner.uncancel()
        raise dead[0] from None
    finally:
        task.cancel()


async def _show(lab: Lab, console: Console) -> None:
    """The live table, until cancelled."""
    shown = Snapshot()
    with Live(console=console, auto_refresh=False, transient=False) as live:
        while True:
            await _refresh(lab, shown)
            live.update(render(shown, lab.options.name, height=console.height), refresh=True)
            await asyncio.sleep(_REFRESH_S)


def _command() -> str:
    """How to type the `plimsoll` that belongs to this Python: its name alone if that is found, else its path."""
    beside = Path(sys.executable).with_name("plimsoll")
    found = shutil.which("plimsoll")
    if not beside.exists() or (found is not None and Path(found).resolve() == beside.resolve()):
        return "plimsoll"
    return str(beside.relative_to(Path.cwd()) if beside.is_relative_to(Path.cwd()) else beside)


async def _refresh(lab: Lab, shown: Snapshot) -> None:
    pods = list(lab.pods.running.values())
    shown.problem = ""
    if len(pods) > 1:
        pairs = [random.sample(pods, 2) for _ in range(_PINGS_PER_REFRESH)]
        answers = await asyncio.gather(*(lab.pods.pinger(a).ping(b.address, attempts=1) for a, b in pairs))
        shown.pings_sent += len(answers)
        shown.pings_lost += answers.count(False)
    shown.pods = {node: len(each) for node, each in lab.pods.by_node().items()}
    shown.drops = await lab.fabric.drops()
    try:
        shown.calls = await lab.calls()
        shown.pools = await lab.pools()
    except grpc.aio.AioRpcError as err:
        shown.problem = f"IPAM: {err.details()}"
    except (ClientError, OSError) as err:
        shown.problem = f"fake cloud: {err}"


async def _summary(lab: Lab, results: list[Result], started_s: float, total_s: float) -> dict[str, Any]:
    pools = {}
    with contextlib.suppress(grpc.aio.AioRpcError):
        pools = dict(await lab.pools())
    calls: dict[str, Any] = {}
    with contextlib.suppress(ClientError, OSError):
        calls = await lab.calls()
    drops = await lab.fabric.drops()
    return {
        "ok": all(result.ok for result in results),
        "lab": lab.options.name,
        "started_s": round(started_s, 2),
        "total_s": round(total_s, 2),
        "nodes": {
            name: {
                "attached": pool.attached,
                "in_use": pool.in_use,
                "needed": pool.needed,
                "excess": pool.excess,
                "interfaces": len(pool.interfaces),
            }
            for name, pool in sorted(pools.items())
        },
        "pods": len(lab.pods.running),
        "cloud_calls": calls,
        "drops": {"spoofed": drops.spoofed, "undelivered": drops.undelivered},
        "checks": [
            {"name": each.name, "ok": each.ok, "detail": each.detail, "seconds": round(each.seconds, 2)}
            for each in results
        ],
    }


def _print_summary(console: Console, summary: dict[str, Any]) -> None:
    table = Table(
        "check", "", "seen", title=f"Plimsoll lab {summary['lab']}", title_justify="left", box=box.SIMPLE_HEAD
    )
    table.add_column("s", justify="right")
    for check in summary["checks"]:
        mark = "[green]ok[/]" if check["ok"] else "[red]failed[/]"
        table.add_row(check["name"], mark, Text(check["detail"]), f"{check['seconds']:.1f}")
    console.print(table)
    calls = summary["cloud_calls"]
    console.print(
        f"{len(summary['nodes'])} nodes, {summary['pods']} pods at the end; up in {summary['started_s']:.1f} s, "
        f"{summary['total_s']:.1f} s in all; cloud API: {calls.get('total', 0)} calls, "
        f"{calls.get('mutating', 0)} mutating",
        highlight=False,
    )
    console.print("[green]all good[/]" if summary["ok"] else "[red]failed[/]")
