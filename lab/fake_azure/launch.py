"""Networks and virtual machines made past the API: by a start, by the admin endpoint, by tests."""

from __future__ import annotations

import ipaddress
from functools import partial
from typing import Final

from pydantic import BaseModel, ConfigDict

from lab.fake_azure.app import Server
from lab.fake_azure.cloud import Cloud
from lab.fake_azure.machines import KINDS
from lab.fake_azure.records import PublicPrefix, SecurityGroup, SubnetRecord, VirtualNetwork
from lab.fake_cloud.seed import BadSeed

DEFAULT_SUBSCRIPTION: Final = "00000000-1111-2222-3333-444444444444"
DEFAULT_LOCATION: Final = "westeurope"


class Seed(BaseModel):
    """What a subscription starts with: one virtual network with subnets by name, security groups, public prefixes."""

    model_config = ConfigDict(extra="forbid")

    subscription: str = DEFAULT_SUBSCRIPTION
    location: str = DEFAULT_LOCATION
    network_cidr: str = "10.0.0.0/16"
    subnets: dict[str, str] = {"nodes": "10.0.0.0/20"}
    security_groups: tuple[str, ...] = ("nodes",)
    public_prefixes: dict[str, str] = {}


def make_cloud(seed: Seed, chance: int | None = None, settle_s: float = 0.0) -> Cloud:
    """A cloud with the seed's network, whose writes take `settle_s`. Raises BadSeed."""
    cloud = Cloud(account=seed.subscription, region=seed.location, seed=chance)
    cloud.faults.attach_s = cloud.faults.detach_s = settle_s
    network_id = cloud.resource_id("Microsoft.Network", "virtualNetworks", "lab")
    try:
        whole = ipaddress.IPv4Network(seed.network_cidr)
        rows = [SubnetRecord(f"{network_id}/subnets/{name}", name, cidr) for name, cidr in seed.subnets.items()]
        for row in rows:
            if not ipaddress.IPv4Network(row.cidr).subnet_of(whole):
                raise BadSeed(f"subnet {row.name}: {row.cidr} lies outside of {whole}")
    except ValueError as error:
        raise BadSeed(str(error)) from None
    cloud.add_network(VirtualNetwork(cloud.new_number(), network_id, "lab", seed.network_cidr, tuple(rows)))
    for name in seed.security_groups:
        group_id = cloud.resource_id("Microsoft.Network", "networkSecurityGroups", name)
        cloud.groups.put(SecurityGroup(cloud.new_number(), group_id, name, {"name": name}))
    for name, cidr in seed.public_prefixes.items():
        prefix_id = cloud.resource_id("Microsoft.Network", "publicIPPrefixes", name)
        cloud.prefixes.put(PublicPrefix(cloud.new_number(), prefix_id, name, cidr, {"pool": name}))
    return cloud


def make_server(seed: Seed, chance: int | None = None, settle_s: float = 0.0) -> Server:
    """Raises BadSeed."""
    return Server(partial(make_cloud, seed, chance, settle_s))


def read_kinds(text: str) -> tuple[str, ...]:
    """Kinds of machines, as "single,uniform". Raises BadSeed."""
    kinds = tuple(each.strip() for each in text.split(","))
    for each in kinds:
        if each not in KINDS:
            raise BadSeed(f"--kinds {text}: must be some of {', '.join(KINDS)}, separated by commas")
    return kinds
