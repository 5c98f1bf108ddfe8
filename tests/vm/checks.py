"""What is checked on another kernel, in one boot: run in the VM by test_kernels.py, which makes a test of each.

    tests/vm/run 6.12 .venv/bin/python -m tests.vm.checks         all of them, by hand
    tests/vm/run 6.12 .venv/bin/python -m tests.vm.checks devices clock

Imports cost seconds on an emulated machine: each check imports what it needs when it runs, and pytest stays outside. A
check raises what it finds, and returns a line worth reading.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
RESULTS: Final = Path("/dev/ttyS2")

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


def attaches() -> str:
    from tests.vm import attaching

    return attaching.attach_replace_detach()


def checks() -> dict[str, Check]:
    """By name, in the order they run."""
    names = sorted(path.name.removesuffix(".bpf.c") for path in (ROOT / "bpf").glob("*.bpf.c"))
    found: dict[str, Check] = {f"loads {name}": partial(object_loads, name) for name in names}
    found["attaches"] = attaches
    return found


def main(wanted: list[str]) -> int:
    every = checks()
    results = [_run(name, every[name]) for name in wanted or every]
    if RESULTS.exists():
        with RESULTS.open("w") as to:
            to.writelines(json.dumps(asdict(result)) + "\n" for result in results)
    return 0 if all(result.passed for result in results) else 1


def _run(name: str, check: Check) -> Result:
    began = time.monotonic()
    try:
        passed, said = True, check()
    except Exception:  # noqa: BLE001 - the others still run
        passed, said = False, traceback.format_exc()
    result = Result(name, passed, time.monotonic() - began, said)
    print(f"{'ok  ' if passed else 'FAIL'} {name} ({result.seconds:.1f} s): {said}", flush=True)
    return result


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
