"""A group of commands that loads the module of a command when that command runs, and none to list them."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup


@dataclass(frozen=True, slots=True)
class Command:
    """A command: ``function`` is ``module:name``, and ``summary`` what its group says of it."""

    function: str
    summary: str


@dataclass(frozen=True, slots=True)
class Group:
    """A group of commands by name."""

    commands: Mapping[str, Command]
    summary: str


class LazyGroup(TyperGroup):
    """Has the commands of ``entries``, in that order."""

    entries: ClassVar[Mapping[str, Command | Group]] = {}

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        # What help lists, and what an unknown name is compared with.
        self.commands.update({name: TyperCommand(name, help=entry.summary) for name, entry in self.entries.items()})

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the name, the command that is to run, and its arguments. Raises UsageError for an unknown name."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, _load(str(name), self.entries[str(name)]), rest


def _load(name: str, entry: Command | Group) -> Any:
    if isinstance(entry, Group):
        group = type("SubGroup", (LazyGroup,), {"entries": entry.commands})
        return group(name=name, help=entry.summary, no_args_is_help=True)
    module, _, function = entry.function.partition(":")
    alone = typer.Typer(add_completion=False)
    alone.command(name)(getattr(import_module(module), function))
    return typer.main.get_command(alone)
