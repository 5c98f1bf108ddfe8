"""Which counters went up while tests ran: a plugin of pytest's that keeps the map of each object that they load."""

from __future__ import annotations

import os
import resource
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from datapath.loader import objects
from datapath.loader.maps import Map
from datapath.loader.objects import Loaded
from tests.datapath.coverage.build import SECTION, Instrumented


class Recorder:
    """:ivar counters: of each object all, summed over its loads; there when the session has ended."""

    def __init__(self, built: Mapping[str, Instrumented]) -> None:
        self._names = {one.path: name for name, one in built.items()}
        self._open: list[tuple[str, Map]] = []
        self.counters: dict[str, list[int]] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionstart(self) -> Any:
        # Objects are loaded by the hundred; what is attached goes on counting when its test has let go of it.
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        self._load = load = objects.load

        def recorded(path: Path, **options: Any) -> Loaded:
            loaded = load(path, **options)
            if path in self._names:
                self._open.append((self._names[path], Map(os.dup(loaded.maps[SECTION].fd), SECTION)))
            return loaded

        objects.load = recorded
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self) -> Any:
        objects.load = self._load
        result = yield
        for name, one in self._open:
            with one:
                value = one.lookup(bytes(4)) or b""
            found = struct.unpack(f"={len(value) // 8}Q", value)
            before = self.counters.get(name, [0] * len(found))
            self.counters[name] = [a + b for a, b in zip(before, found, strict=True)]
        return result
