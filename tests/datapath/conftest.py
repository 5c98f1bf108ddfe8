"""What the tests of this folder share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.datapath.compiled import build_programs


@pytest.fixture(scope="session")
def programs() -> Path:
    """The folder of the project's eBPF objects, built once."""
    return build_programs()
