"""One load of the programs serves all tests of this folder; each begins with empty maps."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.datapath.programs.bed import ProgramBed


@pytest.fixture(scope="session")
def loaded() -> Iterator[ProgramBed]:
    with ProgramBed() as one:
        yield one


@pytest.fixture
def bed(loaded: ProgramBed) -> ProgramBed:
    loaded.reset()
    return loaded
