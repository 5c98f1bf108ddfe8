"""plimsoll completion bash|zsh|fish"""

from __future__ import annotations

import enum
from typing import Annotated

import typer

from services.cli.options import group

app = group("Print the completion script of a shell.")


class Shell(enum.StrEnum):
    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@app.command()
def completion(shell: Annotated[Shell, typer.Argument(help="Whose script.", show_default=False)]) -> None:
    """Print the completion script of a shell, to be read by it: `source <(plimsoll completion bash)`."""
    from typer.completion import get_completion_script  # type: ignore[attr-defined]  # public, but not re-exported

    typer.echo(get_completion_script(prog_name="plimsoll", complete_var="_PLIMSOLL_COMPLETE", shell=shell.value))
