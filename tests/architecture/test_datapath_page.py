"""docs/datapath.md explains every reason for a drop that bpf/include/types.h has, in its order."""

from __future__ import annotations

import re
from pathlib import Path


def test_every_drop_reason_is_explained(project_root: Path) -> None:
    header = (project_root / "bpf/include/types.h").read_text()
    numbers = {name: int(value) for name, value in re.findall(r"^#define DROP_(\w+) (\d+)", header, re.MULTILINE)}
    most = numbers.pop("REASONS")
    del numbers["NONE"]
    assert sorted(numbers.values()) == list(range(1, most))
    words = [name.lower().replace("_", "-") for name in sorted(numbers, key=lambda name: numbers[name])]

    page = (project_root / "docs/datapath.md").read_text()
    rows = re.findall(r"^\| `([\w-]+)` \| ([^|]+) \| ([^|]+) \|$", page[page.index("| reason |") :], re.MULTILINE)
    assert [word for word, _, _ in rows] == words
    assert all(happened.strip() and remedy.strip() for _, happened, remedy in rows)
