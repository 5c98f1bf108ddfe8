"""Command groups that are loaded when they are used: `plimsoll --help` needs none of them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup

from services.cli.errors import CliError, Problem, report

ENTRY_POINT_GROUP = "plimsoll.commands"


@dataclass(frozen=True, slots=True)
class Lazy:
    """Where a command's `app` lives, and its line in the help. `module` is empty for an extension."""

    module: str
    help: str


class LazyGroup(TyperGroup):
    """The root command. Subclassed with its table; extensions come from the entry points of this distribution and
    others. Turns a CliError into text for people, or JSON, and an exit code."""

    table: ClassVar[Mapping[str, Lazy]] = {}
    extension_help: ClassVar[Mapping[str, str]] = {}

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted({*self.table, *self._extensions()})

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A stand-in that knows its name and help, enough to be listed and completed."""
        if cmd_name in self.table:
            text = self.table[cmd_name].help
        elif (extension := self._extensions().get(cmd_name)) is not None:
            text = self.extension_help.get(cmd_name, f"Extension {extension.value}.")
        else:
            return None
        return _stand_in(cmd_name, text)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        if not self.commands:
            # Where the base class looks for names that a misspelt one may have meant.
            self.commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        name, command, rest = super().resolve_command(ctx, args)
        return name, self.load(name) if name and command is not None else None, rest

    def load(self, name: str) -> Any:
        """The real command."""
        if name in self.table:
            app = importlib.import_module(self.table[name].module).app
        else:
            extension = self._extensions()[name]
            try:
                app = extension.load()
            except ImportError as error:
                raise Problem(
                    f"the command `plimsoll {name}` cannot be loaded: {error}",
                    remedy=f"install what {extension.value} needs, or remove that extension",
                ) from error
        command = typer.main.get_command(app)
        command.name = name
        return command

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except CliError as error:
            raise typer.Exit(report(error)) from None

    def _extensions(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP) if point.name not in self.table}


def _stand_in(name: str, text: str) -> Any:
    holder = typer.Typer(add_completion=False, rich_markup_mode=None)
    holder.command(name, help=text)(lambda: None)
    return typer.main.get_command(holder)
