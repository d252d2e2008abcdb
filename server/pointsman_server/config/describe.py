"""The settings in words: the table of all of them, their values, and what is wrong with one.

``python -m pointsman_server.config.describe`` prints the table of docs/reference/settings.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from pointsman_server.config.names import SettingSource, variable
from pointsman_server.config.settings import Settings
from pointsman_server.config.types import SECRET, Allowed, ServerRole, did_you_mean, mask_credentials


@dataclass(frozen=True, slots=True)
class Description:
    """One setting, for people."""

    variable: str
    allowed: str
    default: str
    description: str


@dataclass(frozen=True, slots=True)
class Effective:
    """The value that one setting has, with passwords masked, and where it comes from."""

    variable: str
    value: str
    source: SettingSource


def describe() -> list[Description]:
    """Describe every setting, in the order of the model."""
    return [
        Description(variable(name), _allowed(field), text(field.default), field.description or "")
        for name, field in _in_order().items()
    ]


def _in_order() -> dict[str, FieldInfo]:
    """Return the fields: those of Settings itself, and then those of its bases."""
    fields = Settings.model_fields
    own = [name for name in Settings.__annotations__ if name in fields]
    return {name: fields[name] for name in (*own, *fields)}


def markdown() -> str:
    """Render the table of settings of docs/reference/settings.md."""
    rows = ["| variable | default | allowed | what it is |", "|---|---|---|---|"]
    rows += [
        f"| `{row.variable}` | {f'`{row.default}`' if row.default else ''} | {row.allowed} | {row.description} |"
        for row in describe()
    ]
    return "\n".join(rows) + "\n"


def effective(settings: Settings) -> list[Effective]:
    """Say what each setting is, and who set it. Passwords are masked."""
    return [
        Effective(variable(name), _masked(field, getattr(settings, name)), settings.sources.get(name, "default"))
        for name, field in _in_order().items()
    ]


def _masked(field: FieldInfo, value: object) -> str:
    """Write ``value`` without its passwords: of a secret that is no URL nothing is left."""
    written = text(value)
    return "***" if written and SECRET in field.metadata else mask_credentials(written)


def explain(error: ValidationError, sources: Mapping[str, SettingSource]) -> list[str]:
    """Turn pydantic's errors into lines that name the variable and say what to do."""
    lines: list[str] = []
    for problem in error.errors(include_url=False):
        if not problem["loc"]:
            lines += str(problem["ctx"]["error"]).splitlines()
            continue
        name = str(problem["loc"][0])
        given = " (given as a flag)" if sources.get(_attribute(name)) == "flag" else ""
        lines.append(f"{_label(name)}{given} {_words(problem)}")
    return lines


def _attribute(loc: str) -> str:
    return next((name for name in Settings.model_fields if loc in (name, variable(name))), loc)


def _label(loc: str) -> str:
    name = _attribute(loc)
    return variable(name) if name in Settings.model_fields else name


def _words(problem: ErrorDetails) -> str:
    context = problem.get("ctx", {})
    if problem["type"] == "value_error":
        return str(context["error"])
    field = Settings.model_fields.get(_attribute(str(problem["loc"][0])))
    if field is None:
        return "is not a setting"
    rule = f"must be {_allowed(field)}"
    if field.annotation is SecretStr:
        return rule
    given = problem["input"]
    hint = did_you_mean(str(given), map(str, get_args(field.annotation))) if problem["type"] == "literal_error" else ""
    return f"{rule}, not {given!r}{hint}"


def _allowed(field: FieldInfo) -> str:
    """Say what a value may be."""
    for item in field.metadata:
        if isinstance(item, Allowed):
            return item.text
    if get_origin(field.annotation) is Literal:
        return " or ".join(get_args(field.annotation))
    if field.annotation is Path:
        return "a path"
    if field.annotation is bool:
        return "true or false"
    if field.annotation is str:
        return "text"
    return f"{'a whole number' if field.annotation is int else 'a number'}{_bounds(field)}"


def _bounds(field: FieldInfo) -> str:
    above = next((f" above {bound.gt}" for bound in field.metadata if isinstance(bound, Gt)), "")
    least = next((f", {bound.ge}" for bound in field.metadata if isinstance(bound, Ge)), "")
    most = next(f"{bound.le}" for bound in field.metadata if isinstance(bound, Le))
    return f"{least} to {most}" if least else f"{above}, at most {most}"


def text(value: object) -> str:
    """Write ``value`` as the environment would hold it."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, frozenset):
        return ",".join(role for role in ServerRole if role in value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


if __name__ == "__main__":
    print(markdown(), end="")
