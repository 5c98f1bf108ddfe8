"""How tests are shared out among pytest-xdist's workers: `python -m pytest -n 2`, as `make test` does.

A file is run by one worker, in its order, so that what its tests share is made once; so is each of FOLDERS. Nothing has
to be kept apart: namespaces, folders, sockets and servers of tests have names of their own. What takes long begins
first, and the many short files fill up the end.
"""

from __future__ import annotations

from typing import Final

from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

# Run in one piece: the virtual machines boot once for all their checks, the fault tests share a lab.
FOLDERS: Final = ("tests/vm", "tests/integration/faults")

# The first of these that a name begins with says when it begins; the rest comes last.
ORDER: Final = (*FOLDERS, "tests/integration", "tests/datapath", "tests/contract")


class Shared(LoadScopeScheduling):
    """Hands out files and folders, those that take long first."""

    def _split_scope(self, nodeid: str) -> str:
        return piece_of(nodeid)

    def _assign_work_unit(self, node: WorkerController) -> None:
        self.workqueue.move_to_end(min(self.workqueue, key=turn_of), last=False)
        super()._assign_work_unit(node)


def piece_of(nodeid: str) -> str:
    """The file or folder that a test is handed out with."""
    file = nodeid.partition("::")[0]
    return next((folder for folder in FOLDERS if file.startswith(f"{folder}/")), file)


def turn_of(piece: str) -> int:
    return next((turn for turn, folder in enumerate(ORDER) if f"{piece}/".startswith(f"{folder}/")), len(ORDER))
