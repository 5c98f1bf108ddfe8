"""`plimsoll lab fake-alibaba`: a fake Alibaba Cloud by itself."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from lab.fake_alibaba.launch import make_server
from lab.fake_alibaba.seed import DEFAULT_ACCOUNT, DEFAULT_REGION, Seed, default_vpc
from lab.fake_cloud.launch import run
from lab.fake_cloud.seed import BadSeed, check_listen, read_seed, read_subnets

_BAD_SETTINGS = 2


def fake_alibaba(
    port: Annotated[int, typer.Option(min=0, max=65535, help="TCP port on this machine; 0 takes a free one.")] = 4591,
    listen: Annotated[str, typer.Option(help="HOST:PORT or unix:PATH, instead of --port.")] = "",
    start: Annotated[Path | None, typer.Option(help="TOML or JSON file with the network to start with.")] = None,
    account: Annotated[str, typer.Option(help="Account id.")] = DEFAULT_ACCOUNT,
    region: Annotated[str, typer.Option(help="Region.")] = DEFAULT_REGION,
    vpc_cidr: Annotated[str, typer.Option(help="CIDR of the VPC.")] = "10.0.0.0/16",
    subnet: Annotated[list[str] | None, typer.Option(help="ZONE=CIDR, as a=10.0.0.0/20; repeat for more.")] = None,
    seed: Annotated[int | None, typer.Option(help="Makes ids and addresses repeat.")] = None,
    settle_s: Annotated[float, typer.Option(min=0, help="How long interfaces take to attach and to detach.")] = 0.0,
) -> None:
    """Run an Alibaba Cloud on this machine, for its SDKs and tests. The first line of output says where."""
    try:
        network = read_seed(start, Seed) if start else _from_flags(account, region, vpc_cidr, subnet or [])
        check_listen(listen)
        asyncio.run(run(make_server(network, seed, settle_s), listen or f"127.0.0.1:{port}"))
    except (BadSeed, OSError) as error:
        typer.echo(f"fake-alibaba: {error}", err=True)
        sys.exit(_BAD_SETTINGS)


def _from_flags(account: str, region: str, vpc_cidr: str, subnets: list[str]) -> Seed:
    return Seed(account=account, region=region, vpc=[default_vpc(vpc_cidr, read_subnets(subnets))])
