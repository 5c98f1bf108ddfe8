"""The file system of pins is mounted where it is missing, and seen by those who start later."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.datapath.compiled import ROOT, compiled

pytestmark = [pytest.mark.root, pytest.mark.tool("unshare", "clang-19", "bpftool", "make")]


def apart(script: str, *arguments: str) -> str:
    """Runs Python in a mount namespace of its own: what it mounts is nobody else's, and is gone with it."""
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_folder_of_its_own_is_mounted_and_unmounted(tmp_path: Path) -> None:
    said = apart(
        """
        import sys
        from pathlib import Path
        from datapath.loader import bpffs, pins
        from datapath.loader.objects import load
        root, path = Path(sys.argv[1]), Path(sys.argv[2])
        for turn in range(2):
            with load(path, pins=root) as loaded:
                print(bpffs.file_system(root), root.is_mount(), loaded.maps["table"].id)
        pins.remove(root)
        print(root.exists())
        """,
        str(tmp_path / "node" / "bpf"),
        str(compiled("loader")),
    )
    first, second, third = said.splitlines()
    assert first == second, "mounted once, and the maps are found again"
    assert first.startswith("bpf True ")
    assert third == "False"


def test_the_standard_place_is_mounted_where_it_is_missing() -> None:
    said = apart(
        """
        import subprocess, sys
        from pathlib import Path
        from datapath.loader import bpffs
        subprocess.run(["umount", "-l", "/sys"], check=True)  # as `ip netns exec` does
        subprocess.run(["mount", "-t", "sysfs", "fresh", "/sys"], check=True)
        print(bpffs.file_system(Path("/sys/fs/bpf/plimsoll")))
        print(bpffs.folder(Path("/sys/fs/bpf/plimsoll"), "maps"))
        print(bpffs.file_system(Path("/sys/fs/bpf/plimsoll")), Path("/sys/fs/bpf").is_mount())
        """
    )
    assert said.split() == ["sysfs", "/sys/fs/bpf/plimsoll/maps", "bpf", "True"]


def test_a_place_that_cannot_be_mounted_is_told() -> None:
    said = apart(
        """
        from pathlib import Path
        from datapath.errors import BpfRefused
        from datapath.loader import bpffs
        try:
            bpffs.folder(Path("/proc/plimsoll"))
        except BpfRefused as refused:
            print(refused.message)
        """
    )
    assert "/proc/plimsoll" in said
