"""Commands that are loaded when they are run or shown, so that a command waits only for what it needs itself."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

from pointsman.cli.coercing import spared
from pointsman.cli.output.exit_codes import HELP


class LoadedCommand(TyperCommand):
    """A command that coerces only those of its parameters that need it."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, help included; as the base class does."""
        return spared(super().get_params(ctx))


class LoadingGroup(TyperGroup):
    """A group that knows its commands by where their functions are: ``module:function``, by name and in order."""

    homes: ClassVar[Mapping[str, str]] = {}

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, help included; as the base class does."""
        return spared(super().get_params(ctx))

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the base class names it
        """Return the names of all commands, in the order in which help lists them."""
        return list(self.homes)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command of that name, or None; as the base class does."""
        # For a name that is none, the base class looks for one that is like it among all.
        for each in [cmd_name] if cmd_name in self.homes else self.homes:
            if each not in self.commands:
                self.commands[each] = _load(each, self.homes[each])
        return super().get_command(ctx, cmd_name)


def _load(name: str, home: str) -> Any:
    module, _, function = home.partition(":")
    alone = typer.Typer(add_completion=False)
    alone.command(name, cls=LoadedCommand, epilog=HELP)(getattr(import_module(module), function))
    return typer.main.get_command(alone)
