"""`plimsoll lab fake-azure`: a fake ARM by itself."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer

from lab.fake_azure.launch import DEFAULT_LOCATION, DEFAULT_SUBSCRIPTION, Seed, make_server
from lab.fake_cloud.launch import run
from lab.fake_cloud.seed import BadSeed, check_listen

_BAD_SETTINGS = 2


def fake_azure(
    port: Annotated[int, typer.Option(min=0, max=65535, help="TCP port on this machine; 0 takes a free one.")] = 4591,
    listen: Annotated[str, typer.Option(help="HOST:PORT or unix:PATH, instead of --port.")] = "",
    subscription: Annotated[str, typer.Option(help="Subscription id.")] = DEFAULT_SUBSCRIPTION,
    location: Annotated[str, typer.Option(help="Location.")] = DEFAULT_LOCATION,
    network_cidr: Annotated[str, typer.Option(help="CIDR of the virtual network.")] = "10.0.0.0/16",
    subnet: Annotated[list[str] | None, typer.Option(help="NAME=CIDR, as pods=10.0.0.0/20; repeat for more.")] = None,
    public_prefix: Annotated[list[str] | None, typer.Option(help="NAME=CIDR of a public IP prefix.")] = None,
    seed: Annotated[int | None, typer.Option(help="Makes ids and addresses repeat.")] = None,
) -> None:
    """Run an Azure Resource Manager on this machine, for SDKs and tests. The first line of output says where."""
    try:
        network = Seed(
            subscription=subscription,
            location=location,
            network_cidr=network_cidr,
            subnets=_pairs("--subnet", subnet or [f"nodes={network_cidr}"]),
            public_prefixes=_pairs("--public-prefix", public_prefix or []),
        )
        check_listen(listen)
        asyncio.run(_serve(network, listen or f"127.0.0.1:{port}", seed))
    except (BadSeed, OSError) as error:
        typer.echo(f"fake-azure: {error}", err=True)
        sys.exit(_BAD_SETTINGS)


async def _serve(network: Seed, listen: str, seed: int | None) -> None:
    await run(make_server(network, seed), listen)


def _pairs(option: str, words: list[str]) -> dict[str, str]:
    found = {}
    for word in words:
        name, equals, cidr = word.partition("=")
        if not (name and equals and cidr):
            raise BadSeed(f"{option} {word}: must be NAME=CIDR, as pods=10.0.0.0/20")
        found[name] = cidr
    return found
