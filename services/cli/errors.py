"""What a command can end with.

    CliError                    has an exit code
    ├── Problem          1      the answer is bad news
    ├── Usage            2      the command line or a file that it names is wrong
    ├── Unreachable      3      a service cannot be reached, or cannot answer
    ├── Unknown          4      no such node, pod, dead letter or file
    └── Refused          5      the service understood and said no
        └── Standby      5      it is a replica that does not lead; another one may answer

`--json` commands print the error as one JSON object on standard error; others print text. Standard output stays clean.
"""

from __future__ import annotations

import json
import sys
from typing import ClassVar

from services.cli import invocation

EXIT_PROBLEM = 1
EXIT_FAULT = 70


class CliError(Exception):
    """Root of what the command reports.

    :param message: what happened, one sentence without its full stop.
    :param remedy: what the reader can do about it.
    :param field: setting, option or file key to blame, or empty.
    """

    exit_code: ClassVar[int] = 1
    kind: ClassVar[str] = "problem"

    def __init__(self, message: str, *, remedy: str = "", field: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.field = field


class Problem(CliError):
    exit_code = EXIT_PROBLEM
    kind = "problem"


class Usage(CliError):
    exit_code = 2
    kind = "usage"


class Unreachable(CliError):
    exit_code = 3
    kind = "unreachable"


class Unknown(CliError):
    exit_code = 4
    kind = "not_found"


class Refused(CliError):
    exit_code = 5
    kind = "refused"


class Standby(Refused):
    pass


def report(error: CliError) -> int:
    """Prints the error where errors go and returns its exit code."""
    if invocation.this.json:
        body = {"kind": error.kind, "message": error.message, "field": error.field, "remedy": error.remedy}
        print(json.dumps({"error": body}), file=sys.stderr)
        return error.exit_code
    print(f"plimsoll: {error.message}", file=sys.stderr)
    if error.remedy:
        print(f"  remedy: {error.remedy}", file=sys.stderr)
    return error.exit_code
