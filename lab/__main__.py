"""`python -m lab`: the same as `plimsoll lab`, with `run` as the command if none is named."""

from __future__ import annotations

import sys

from lab.cli import app

COMMANDS = {"run", "clean", "list", "fake-ec2", "--help"}

if __name__ == "__main__":
    words = sys.argv[1:]
    app(words if words and words[0] in COMMANDS else ["run", *words], prog_name="python -m lab")
