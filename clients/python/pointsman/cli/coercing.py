"""Values that are what they shall be already: they pass without pydantic, whose import is a fifth of a start.

Typer has pydantic coerce the value of every parameter, also an absent one or a default.
"""

from collections.abc import Iterable
from typing import Any

from typer.core import TyperArgument, TyperOption


def spared(parameters: Iterable[Any]) -> list[Any]:
    """Return the parameters, which now coerce only what needs it: not text that stays text, nor a default."""
    every = list(parameters)
    for parameter in every:
        if isinstance(parameter, TyperArgument | TyperOption) and "process_value" not in vars(parameter):
            _spare(parameter)
    return every


def _spare(parameter: TyperArgument | TyperOption) -> None:
    coerce = parameter.process_value

    def process_value(ctx: Any, value: Any) -> Any:
        if not _fits(parameter, value):
            return coerce(ctx, value)
        return parameter.callback(ctx, parameter, value) if parameter.callback else value

    vars(parameter)["process_value"] = process_value  # the class of parameters is not ours to choose


def _fits(parameter: TyperArgument | TyperOption, value: Any) -> bool:
    if parameter.multiple or parameter.nargs != 1:
        return False
    if value is None:
        return not parameter.required
    of = parameter.type_descriptor
    is_text = type(value) is str and of.annotation is str and of.parameter_info.parser is None
    return is_text or (value is parameter.default and type(value) is of.annotation)
