"""The programs and the core paths on Debian's kernels 6.1 and 6.12, each in one boot of a VM (checks.py).

A kernel that the archive does not have is skipped with that reason, also in continuous integration: nothing here can
mend that. Every other failure to get or boot one fails.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.vm.checks import ROOT, Result, checks

HERE = Path(__file__).parent
KERNELS = ("6.1", "6.12")
BOOT_S = 420
_NOT_IN_ARCHIVE = 75

pytestmark = [
    pytest.mark.vm, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(2 * BOOT_S + 60),
    pytest.mark.tool("qemu-system-x86_64", "cpio", "modprobe", "apt-get"),
]  # fmt: skip

Boot = tuple[int, str, dict[str, Result]]  # exit code, console, results by check
Boots = dict[str, Future[Boot]]


@pytest.fixture(scope="module")
def boots(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Boot]]]:
    """Kernels that are asked for, side by side: an emulated machine keeps little more than one CPU busy."""
    asked: dict[str, list[str]] = {}
    for item in request.session.items:
        if item.path == request.path and isinstance(item, pytest.Function):
            asked.setdefault(str(item.callspec.params["kernel"]), []).append(str(item.callspec.params["check"]))
    subprocess.run(["make", "-s", "-C", "bpf"], cwd=ROOT, check=True)
    subprocess.run(["make", "-s", "-C", "services/node/cni"], cwd=ROOT, check=True)
    for kernel in asked:  # apt, one after the other
        subprocess.run([HERE / "setup", kernel], check=False)
    with ThreadPoolExecutor(len(KERNELS)) as pool:
        folder = tmp_path_factory.mktemp("vm")
        yield {kernel: pool.submit(_boot, kernel, names, folder / kernel) for kernel, names in asked.items()}


def _boot(kernel: str, names: list[str], results: Path) -> Boot:
    command: list[str | Path] = [HERE / "run", kernel, sys.executable, "-m", "tests.vm.checks", *names]
    environment = os.environ | {"VM_RESULTS": str(results), "VM_TIMEOUT_S": str(BOOT_S)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace", check=False,
    )  # fmt: skip
    lines = results.read_text().splitlines() if results.exists() else []
    found = [Result(**json.loads(line)) for line in lines if line.strip()]
    return done.returncode, done.stdout, {result.name: result for result in found}


@pytest.mark.parametrize("check", checks())
@pytest.mark.parametrize("kernel", KERNELS)
def test_kernel(boots: Boots, kernel: str, check: str) -> None:
    code, console, results = boots[kernel].result()
    if code == _NOT_IN_ARCHIVE:
        pytest.skip(console.strip())
    assert check in results, f"the VM ended with {code} before this check did:\n{console[-4000:]}"
    print(f"{kernel}: {check}: {results[check].said}")
    assert results[check].passed, results[check].said
