"""The mapped memory of `runtime`, of the kernel and a stand-in."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from datapath.errors import InvalidSetting
from datapath.layout import Runtime
from datapath.loader import maps
from datapath.loader.maps import Map
from datapath.runtime import RuntimeSettings


class Memory:
    """Implements runtime.Mapped in memory."""

    def __init__(self) -> None:
        self.data = bytearray(Runtime.SIZE)

    def mmap(self) -> memoryview:
        return memoryview(self.data)

    def lookup(self, key: bytes) -> bytes:
        return bytes(self.data)


@pytest.fixture
def memory(where: str) -> Iterator[Memory | Map]:
    if where == "memory":
        yield Memory()
        return
    with Map.create(maps.ARRAY, 4, Runtime.SIZE, 1, flags=maps.MMAPABLE, name="runtime") as made:
        yield made


def seen(memory: Memory | Map) -> Runtime:
    """As programs see it: not by the memory, but by the map."""
    value = memory.lookup(bytes(4))
    assert value is not None
    return Runtime.unpack(value)


def test_generations_rise_and_are_never_zero(memory: Memory | Map) -> None:
    settings = RuntimeSettings(memory)
    assert settings.generation == 0, "the map is new: no path can bear 0 and be valid"
    assert [settings.raise_generation() for _ in range(3)] == [1, 2, 3]
    assert seen(memory).generation == settings.generation == 3
    with settings._memory.cast("I") as words:
        words[0] = 0xFFFFFFFE
    assert [settings.raise_generation() for _ in range(3)] == [0xFFFFFFFF, 1, 2]


def test_settings_are_seen_at_once_and_leave_the_rest_alone(memory: Memory | Map) -> None:
    settings = RuntimeSettings(memory)
    settings.raise_generation()
    settings.set(trace_every=100, flow_events=True, drop_events_per_tick=10)
    assert seen(memory) == Runtime(generation=1, trace_every=100, flow_events=1, drop_events_per_tick=10)
    settings.set(trace_every=0)
    assert settings.current == seen(memory) == Runtime(generation=1, flow_events=1, drop_events_per_tick=10)
    again = RuntimeSettings(memory)
    assert again.generation == 1, "a restart goes on from there"
    settings.close()


@pytest.mark.parametrize(
    ("name", "value"), [("generation", 5), ("trace", 1), ("trace_every", -1), ("trace_every", 1 << 32)]
)
def test_what_cannot_be_set(memory: Memory | Map, name: str, value: int) -> None:
    settings = RuntimeSettings(memory)
    with pytest.raises(InvalidSetting) as refused:
        settings.set(**{"flow_events": 1, name: value})
    assert refused.value.field == name
    assert seen(memory) == Runtime(), "all or nothing"


def test_raises_from_many_threads_all_count(memory: Memory | Map) -> None:
    settings = RuntimeSettings(memory)
    with ThreadPoolExecutor(8) as threads:
        numbers = list(threads.map(lambda _: settings.raise_generation(), range(500)))
    assert sorted(numbers) == list(range(1, 501))
