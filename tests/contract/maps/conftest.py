"""Maps of the kernel and of memory, by the same words: what holds for the one must hold for the other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from datapath import layout
from datapath.fake_maps import FakeMap
from datapath.loader import maps
from datapath.loader.maps import Map
from datapath.maps import InnerMap

# kind, bytes of a key, bytes of a value; as bpf/include/maps.h has them.
KINDS = {
    "flows": ("lru", layout.FLOW_KEY_SIZE, layout.FLOW_SIZE),
    "nat": ("lru", layout.NAT_KEY_SIZE, layout.NAT_SIZE),
    "fragments": ("lru", layout.FRAGMENT_KEY_SIZE, layout.FRAGMENT_SIZE),
    "addresses": ("hash", layout.ADDRESS_SIZE, layout.TARGET_SIZE),
    "endpoints": ("hash", 4, layout.ENDPOINT_SIZE),
    "cidrs": ("lpm", layout.CIDR_KEY_SIZE, layout.TARGET_SIZE),
    "nodes": ("array", 4, layout.NODE_SIZE),
    "policy": ("lpm", layout.POLICY_KEY_SIZE, layout.POLICY_SIZE),
    "policies": ("outer", 4, 4),
}
_KERNEL = {
    "lru": (maps.LRU_HASH, 0),
    "hash": (maps.HASH, maps.NO_PREALLOC),
    "lpm": (maps.LPM_TRIE, maps.NO_PREALLOC),
    "array": (maps.ARRAY, 0),
    "outer": (maps.HASH_OF_MAPS, maps.NO_PREALLOC),
}
MakeMap = Callable[..., InnerMap]


@pytest.fixture(params=["memory", pytest.param("kernel", marks=pytest.mark.root)])
def where(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make_map(where: str) -> Iterator[MakeMap]:
    """A new, empty map by its name, or (kind, bytes of a key, bytes of a value)."""
    made: list[Map] = []

    def make(what: str | tuple[str, int, int], max_entries: int = 1024, inner: Map | None = None) -> InnerMap:
        kind, key_size, value_size = KINDS[what] if isinstance(what, str) else what
        if where == "memory":
            return FakeMap(key_size, value_size, max_entries, kind)
        number, flags = _KERNEL[kind]
        made.append(Map.create(number, key_size, value_size, max_entries, flags=flags, name="test", inner=inner))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def random_key() -> Callable[[int], bytes]:
    return os.urandom
