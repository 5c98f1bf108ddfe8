"""Runs benches and prints one table: `python -m tests.bench [NAME ...] [--json] [-- ARGUMENTS OF THE BENCH]`."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
import time
import traceback

import tests.bench
from tests.bench.report import Row, as_json, machine, table

_OWN = {"__main__", "report", "rss"}


def names() -> list[str]:
    """Every bench: a module here that has `main`."""
    modules = pkgutil.iter_modules(tests.bench.__path__)
    return sorted(module.name for module in modules if module.name not in _OWN and not module.ispkg)


def main(argv: list[str]) -> int:
    split = argv.index("--") if "--" in argv else len(argv)
    own, passed = argv[:split], argv[split + 1 :]
    parser = argparse.ArgumentParser(prog="tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names())}; default: all")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(own)
    unknown = sorted(set(options.names) - set(names()))
    if unknown:
        parser.error(f"no such bench: {', '.join(unknown)}; there are {', '.join(names())}")
    rows: list[Row] = []
    failed: list[str] = []
    for name in options.names or names():
        began = time.monotonic()
        print(f"bench: {name} ...", end=" ", file=sys.stderr, flush=True)
        try:
            module = importlib.import_module(f"tests.bench.{name}")
            if not hasattr(module, "main"):
                print("is no bench", file=sys.stderr)
                continue
            rows += module.main(list(passed))
            print(f"{time.monotonic() - began:.1f} s", file=sys.stderr)
        except Exception:  # noqa: BLE001 - the other benches still run
            failed.append(name)
            print("failed", file=sys.stderr)
            traceback.print_exc()
    print(as_json(rows) if options.json else f"{machine()}\n\n{table(rows)}")
    missed = [row.name for row in rows if row.met is False]
    if missed:
        print(f"bench: targets missed: {', '.join(missed)}", file=sys.stderr)
    if failed:
        print(f"bench: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
