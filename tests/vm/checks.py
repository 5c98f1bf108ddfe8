"""What is checked on another kernel, in one boot: run in the VM by test_kernels.py, which makes a test of each.

    tests/vm/run 6.12 .venv/bin/python -m tests.vm.checks         all of them, by hand
    tests/vm/run 6.12 .venv/bin/python -m tests.vm.checks devices clock

Imports cost seconds on an emulated machine: each check imports what it needs when it runs, and pytest stays outside. A
check raises what it finds, and returns a line worth reading.
"""

from __future__ import annotations

import atexit
import functools
import json
import re
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tests.datapath.spaces import Spaces
    from tests.vm.core import Core

ROOT: Final = Path(__file__).resolve().parents[2]
RESULTS: Final = Path("/dev/ttyS2")

# These are verified once, and stay loaded, for all scenarios of core.py.
IN_CORE: Final = frozenset({"pod", "device"})
CORE: Final = ("programs", "pod_to_pod", "pod_to_world", "node_and_pod", "sctp", "restart")

Check = Callable[[], str]


@dataclass(frozen=True, slots=True)
class Result:
    """:ivar said: what the check returned, or how it failed."""

    name: str
    passed: bool
    seconds: float
    said: str


def object_loads(name: str) -> str:
    """Built against the kernel of the build machine, verified by this one."""
    from datapath.loader import objects

    with objects.load(objects.find(name), pins=None) as loaded:
        counts = {program.name: program.verified_instructions for program in loaded.programs.values()}
    assert counts, "the object holds no program"
    return ", ".join(f"{program}: {count:,} instructions verified" for program, count in sorted(counts.items()))


def kind_of_device(name: str) -> str:
    """A test of test_kinds.py, which this machine's kernel may have to skip; here, lacking a kind is a failure."""
    from tests.datapath import test_kinds
    from tests.datapath.spaces import Spaces

    with Spaces() as spaces:
        node, router = spaces.add("node"), spaces.add("router")
        spaces.cable(node, "ens5", router, "lan0")
        spaces.cable(node, "ens6", router, "lan1")
        getattr(test_kinds, name)(spaces, node, lambda *kinds: _all_known(spaces, kinds))
    return "as it should be"


def _all_known(spaces: Spaces, kinds: tuple[str, ...]) -> None:
    lacking = [kind for kind in kinds if not spaces.knows(kind)]
    assert not lacking, f"this kernel makes no {', '.join(lacking)}"


def checks() -> dict[str, Check]:
    """By name, in the order they run."""
    objects = {path.name.removesuffix(".bpf.c") for path in (ROOT / "bpf").glob("*.bpf.c")}
    found: dict[str, Check] = {f"loads {name}": partial(object_loads, name) for name in sorted(objects - IN_CORE)}
    found |= {f"core {name}": partial(in_core, name) for name in CORE}
    source = (ROOT / "tests" / "datapath" / "test_kinds.py").read_text()
    tests = re.findall(r"^def (test_\w+)\(", source, re.MULTILINE)
    found |= {f"kinds {name.removeprefix('test_')}": partial(kind_of_device, name) for name in tests}
    return found


@functools.cache
def _core() -> Core:
    from tests.vm.core import Core

    core = Core().__enter__()
    atexit.register(core.__exit__, None, None, None)
    return core


def in_core(name: str) -> str:
    from tests.vm import core

    scenario = getattr(core, name)
    return str(scenario(_core()))


def main(wanted: list[str]) -> int:
    every = checks()
    results = [_run(name, every[name]) for name in wanted or every]
    return 0 if all(result.passed for result in results) else 1


def _run(name: str, check: Check) -> Result:
    began = time.monotonic()
    try:
        passed, said = True, check()
    except Exception as error:  # noqa: BLE001 - the others still run
        passed, said = False, "".join(traceback.format_exception(error, limit=-3))
    result = Result(name, passed, time.monotonic() - began, said)
    if RESULTS.exists():  # at once: the machine may die in the next one
        RESULTS.write_text(json.dumps(asdict(result)) + "\n")
    print(f"{'ok  ' if passed else 'FAIL'} {name} ({result.seconds:.1f} s): {said}", flush=True)
    return result


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
