"""Commands that are loaded when they are run or shown, so that a command waits only for what it needs itself.

Typer has pydantic coerce the value of every parameter, also an absent one or a default. Importing pydantic takes a
fifth of a start, so a value that already has its type passes without it.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from pointsman.cli.output.exit_codes import HELP

FILE = "FILE"
"""The metavar of a parameter that names a file, which may be of any bytes."""
ALONE: Mapping[str, str] = {"--wait": "5s"}
"""Options that may stand alone, and what they say then. A value comes after ``=``, or after a space if it is a time."""
_TIME = re.compile(r"\d+(\.\d+)?(ms|s|m|h)", re.ASCII)
"""What follows such an option and is its value. It has a unit: a version may be a number."""
MAX_INTEGER = 2**63 - 1
"""What the API can hold: revisions are int64."""


class LazyCommand(TyperCommand):
    """A command that coerces and checks its parameters as ``with_checks`` says, and completes those of ``ALONE``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take the arguments; as the base class does."""
        return super().parse_args(ctx, list(completed(args, self.params)))

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, help included; as the base class does."""
        return with_checks(super().get_params(ctx))


class LazyGroup(TyperGroup):
    """A group that knows its commands by where they are: ``module:function``, or ``module:group``; in order."""

    homes: ClassVar[Mapping[str, str]] = {}

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, help included; as the base class does."""
        return with_checks(super().get_params(ctx))

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the base class names it
        """Return the names of all commands, in the order in which help lists them."""
        return list(self.homes)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command of that name, or None; as the base class does."""
        # For an unknown name, the base class compares it with all names to suggest one.
        for each in [cmd_name] if cmd_name in self.homes else self.homes:
            if each not in self.commands:
                self.commands[each] = _load(each, self.homes[each])
        return super().get_command(ctx, cmd_name)


def _load(name: str, home: str) -> Any:
    module, _, attribute = home.partition(":")
    found = getattr(import_module(module), attribute)
    if isinstance(found, type):  # a group of commands
        return found(name=name, help=found.__doc__, epilog=HELP, no_args_is_help=True)
    alone = typer.Typer(add_completion=False)
    alone.command(name, cls=LazyCommand, epilog=HELP)(found)
    return typer.main.get_command(alone)


def completed(arguments: Sequence[str], parameters: Sequence[Any]) -> Iterator[str]:
    """Yield the arguments; an option of ``ALONE`` that has no value gets its own."""
    options = [parameter for parameter in parameters if isinstance(parameter, TyperOption)]
    alone = ALONE.keys() & {name for option in options for name in option.opts}
    takes_value = {name for option in options if not (option.is_flag or option.count) for name in option.opts} - alone
    before = ""
    for number, argument in enumerate(arguments):
        if argument == "--" and before not in takes_value:
            yield from arguments[number:]
            return
        has_time = _TIME.fullmatch("".join(arguments[number + 1 : number + 2]))
        stands_alone = argument in alone and before not in takes_value and not has_time
        yield f"{argument}={ALONE[argument]}" if stands_alone else argument
        # What follows an option is its value, whatever it looks like; but not the value of a value.
        before = "" if before in takes_value else argument


def with_checks(parameters: Iterable[Any]) -> list[Any]:
    """Return the parameters: coerced only where needed, and refused with the parameter's name where unusable."""
    every = list(parameters)
    for parameter in every:
        if isinstance(parameter, TyperArgument | TyperOption) and "process_value" not in vars(parameter):
            _add_checks(parameter)
    return every


def _add_checks(parameter: TyperArgument | TyperOption) -> None:
    coerce = parameter.process_value

    def process_value(ctx: Any, value: Any) -> Any:
        if parameter.metavar != FILE and not _is_unicode(value):
            raise typer.BadParameter("it must be valid UTF-8", ctx=ctx, param=parameter)
        if not _has_its_type(parameter, value):
            value = coerce(ctx, value)
        elif parameter.callback:
            value = parameter.callback(ctx, parameter, value)
        if isinstance(value, int) and value > MAX_INTEGER:
            raise typer.BadParameter(f"it must be at most {MAX_INTEGER}", ctx=ctx, param=parameter)
        return value

    vars(parameter)["process_value"] = process_value  # the class of parameters is not ours to choose


def _is_unicode(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_unicode, value))
    # Python makes halves of characters of what is no UTF-8 (PEP 383).
    return not (isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value))


def _has_its_type(parameter: TyperArgument | TyperOption, value: Any) -> bool:
    if parameter.multiple or parameter.nargs != 1:
        return False
    if value is None:
        return not parameter.required
    of = parameter.type_descriptor
    is_text = type(value) is str and of.annotation is str and of.parameter_info.parser is None
    return is_text or (value is parameter.default and type(value) is of.annotation)
