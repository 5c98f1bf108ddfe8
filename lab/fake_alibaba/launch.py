"""A fake Alibaba Cloud made of a seed: what the command, the module and tests start."""

from __future__ import annotations

from functools import partial

from lab.fake_alibaba.app import Server
from lab.fake_alibaba.cloud import Cloud
from lab.fake_alibaba.seed import Seed, plant


def make_cloud(seed: Seed, chance: int | None = None, settle_s: float = 0.0) -> Cloud:
    """A cloud with the seed's network, whose interfaces take `settle_s` to attach and to detach, and half of it to be
    created. Raises BadSeed."""
    cloud = Cloud(account=seed.account, region=seed.region, seed=chance)
    cloud.faults.attach_s = cloud.faults.detach_s = settle_s
    cloud.faults.create_s = settle_s / 2
    plant(cloud, seed)
    return cloud


def make_server(seed: Seed, chance: int | None = None, settle_s: float = 0.0) -> Server:
    """Raises BadSeed."""
    return Server(partial(make_cloud, seed, chance, settle_s))
