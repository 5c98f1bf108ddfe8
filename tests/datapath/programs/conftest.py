"""One load of the programs serves all tests of this folder; each begins with empty maps."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.datapath.programs.bed import ProgramBed


@pytest.fixture(scope="session")
def loaded() -> Iterator[ProgramBed]:
    with ProgramBed(visits=True) as one:
        yield one


@pytest.fixture
def bed(loaded: ProgramBed) -> Iterator[ProgramBed]:
    # Whatever runs behind these tests must be in the machine's own network again.
    with loaded.inside():
        loaded.reset()
        yield loaded
