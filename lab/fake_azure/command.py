"""`plimsoll lab fake-azure`: a fake ARM by itself."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer

from lab.fake_azure.launch import DEFAULT_LOCATION, DEFAULT_SUBSCRIPTION, Seed, make_server, read_kinds
from lab.fake_cloud.launch import run
from lab.fake_cloud.seed import BadSeed, check_listen

_BAD_SETTINGS = 2


def fake_azure(
    port: Annotated[int, typer.Option(min=0, max=65535, help="TCP port on this machine; 0 takes a free one.")] = 4591,
    listen: Annotated[str, typer.Option(help="HOST:PORT or unix:PATH, instead of --port.")] = "",
    account: Annotated[str, typer.Option(help="Subscription id.")] = DEFAULT_SUBSCRIPTION,
    region: Annotated[str, typer.Option(help="Location.")] = DEFAULT_LOCATION,
    network_cidr: Annotated[str, typer.Option(help="CIDR of the virtual network.")] = "10.0.0.0/16",
    subnet: Annotated[list[str] | None, typer.Option(help="NAME=CIDR, as pods=10.0.0.0/20; repeat for more.")] = None,
    public_prefix: Annotated[list[str] | None, typer.Option(help="NAME=CIDR of a public IP prefix.")] = None,
    seed: Annotated[int | None, typer.Option(help="Makes ids and addresses repeat.")] = None,
    settle_s: Annotated[float, typer.Option(min=0, help="How long the operation of a write takes.")] = 0.0,
    kinds: Annotated[str, typer.Option(help="Kinds of machines launched in turn: single,flexible,uniform.")] = "single",
) -> None:
    """Run an Azure Resource Manager on this machine, for SDKs and tests. The first line of output says where."""
    try:
        network = Seed(
            subscription=account,
            location=region,
            network_cidr=network_cidr,
            subnets=_pairs("--subnet", subnet or [f"nodes={network_cidr}"]),
            public_prefixes=_pairs("--public-prefix", public_prefix or []),
        )
        check_listen(listen)
        server = make_server(network, seed, settle_s)
        server.kinds = read_kinds(kinds)
        asyncio.run(run(server, listen or f"127.0.0.1:{port}"))
    except (BadSeed, OSError) as error:
        typer.echo(f"fake-azure: {error}", err=True)
        sys.exit(_BAD_SETTINGS)


def _pairs(option: str, words: list[str]) -> dict[str, str]:
    found = {}
    for word in words:
        name, equals, cidr = word.partition("=")
        if not (name and equals and cidr):
            raise BadSeed(f"{option} {word}: must be NAME=CIDR, as pods=10.0.0.0/20")
        found[name] = cidr
    return found
