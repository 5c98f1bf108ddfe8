"""Sites for the tests of IPAM: each a whole one, in one thread and in simulated time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from ipam.config import IpamConfig
from ipam.testing import FakeCloud, IpamSite
from ipam.testing.site import CONFIG


@pytest.fixture
def ipam_site() -> Iterator[IpamSite]:
    site = IpamSite()
    yield site
    site.close()


@pytest.fixture
def ipam_sites() -> Iterator[Callable[..., IpamSite]]:
    made: list[IpamSite] = []

    def make(config: IpamConfig = CONFIG, cloud: FakeCloud | None = None, **changes: Any) -> IpamSite:
        made.append(IpamSite(replace(config, **changes), cloud))
        return made[-1]

    yield make
    for site in made:
        site.close()
