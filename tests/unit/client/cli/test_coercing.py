"""cli.coercing: what is spared is only what would come out as it went in."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from pointsman.cli.lazy import LoadedCommand


class Size(StrEnum):
    SMALL = "small"
    LARGE = "large"


def took(*arguments: str, **environment: str) -> Any:
    """Run a command that has parameters of every kind. Returns what it was given, or what was said of its usage."""
    app = typer.Typer(add_completion=False)
    given: dict[str, Any] = {}

    @app.command(cls=LoadedCommand)
    def command(
        text: str,
        count: Annotated[int, typer.Option(min=1, envvar="COUNT")] = 3,
        size: Size = Size.SMALL,
        file: Path | None = None,
        name: Annotated[list[str], typer.Option()] = [],  # noqa: B006 - typer reads it, nobody changes it
        shout: Annotated[str, typer.Option(parser=str.upper)] = "quiet",
        switch: Annotated[bool | None, typer.Option("--on/--off")] = None,
    ) -> None:
        given.update(text=text, count=count, size=size, file=file, name=name, shout=shout, switch=switch)

    done = CliRunner().invoke(app, list(arguments), env=environment)
    return given if done.exit_code == 0 else done.output


def test_what_is_not_given_is_its_default() -> None:
    defaults = {"count": 3, "size": Size.SMALL, "file": None, "name": [], "switch": None}
    assert took("x").items() >= {"text": "x", **defaults}.items()


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (("--count", "5"), "count", 5),
        (("--size", "large"), "size", Size.LARGE),
        (("--file", "a.txt"), "file", Path("a.txt")),
        (("--name", "a", "--name", "b"), "name", ["a", "b"]),
        (("--shout", "hi"), "shout", "HI"),
        (("--off",), "switch", False),
    ],
)
def test_what_is_given_is_of_its_type(arguments: tuple[str, ...], name: str, value: object) -> None:
    got = took("x", *arguments)[name]
    assert (got, type(got)) == (value, type(value))


@pytest.mark.parametrize(
    "arguments", [(), ("x", "--count", "0"), ("x", "--count", "many"), ("x", "--size", "huge"), ("x", "y")]
)
def test_what_does_not_fit_is_refused(arguments: tuple[str, ...]) -> None:
    assert "Error" in took(*arguments)


def test_a_variable_is_coerced_like_an_option() -> None:
    assert took("x", COUNT="7")["count"] == 7
    assert "Error" in took("x", COUNT="0")
