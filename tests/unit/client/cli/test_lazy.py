"""lazy: a command loads what it needs, and the help and the suggestions know all of them."""

import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from textwrap import dedent
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from pointsman.cli.app import Commands
from pointsman.cli.lazy import MAX_INTEGER, LazyCommand
from tests.support.fake_route_service import FakeServer
from tests.unit.client.conftest import Run

KEY = "a/b/c/d"
HEAVY = {
    "pydantic",
    "rich",
    "textual",
    "yaml",
    "pointsman.aio",
    "pointsman.cli.commands.watch",
    "pointsman.cli.live.follower",
    "pointsman.near_cache",
    "pointsman.watchers",
    "pointsman.cli.commands.apply",
    "pointsman.cli.commands.import_routes",
}


def loaded_by(server: FakeServer, *arguments: str) -> set[str]:
    """Run a command in a process of its own, and return which of the heavy modules it has loaded."""
    program = dedent(f"""
        import atexit, sys
        atexit.register(lambda: print(*sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr))
        sys.argv = {["pointsman", "--server", server.target, *arguments]!r}
        from pointsman.cli import main
        main()
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize(
    "arguments",
    [
        ("resolve", KEY),
        ("resolve", KEY, "--json"),
        ("get", KEY),
        ("select", "a/b/c", "--json"),
        ("explain", KEY, "--json"),
        ("diff", "--from", "0", "--json"),
        ("history", "--sets", "--json"),
        ("version",),
    ],
)
def test_a_quick_command_loads_none_of_what_takes_long(server: FakeServer, arguments: tuple[str, ...]) -> None:
    server.add(KEY, "https://x.internal")
    assert loaded_by(server, *arguments) == set()


def test_the_help_loads_no_screen(server: FakeServer) -> None:
    assert "textual" not in loaded_by(server, "--help")


def test_a_table_is_laid_out_by_rich_alone(server: FakeServer) -> None:
    server.add(KEY, "https://x.internal")
    assert loaded_by(server, "list") == {"rich"}


def test_the_help_lists_every_command_in_order(run: Run) -> None:
    listed = run("--help").stdout.partition("Commands")[2]
    places = [listed.index(f" {name} ") for name in Commands.homes]
    assert places == sorted(places)


def test_a_name_that_is_nearly_one_is_compared_with_all(run: Run) -> None:
    done = run("aply")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "Did you mean 'apply'?" in done.stderr


# Parameters


class Size(StrEnum):
    SMALL = "small"
    LARGE = "large"


def took(*arguments: str, **environment: str) -> Any:
    """Run a command that has parameters of every kind. Returns what it was given, or what was said of its usage."""
    app = typer.Typer(add_completion=False)
    given: dict[str, Any] = {}

    @app.command(cls=LazyCommand)
    def command(
        text: str,
        count: Annotated[int, typer.Option(min=1, envvar="COUNT")] = 3,
        size: Size = Size.SMALL,
        file: Path | None = None,
        name: Annotated[list[str], typer.Option()] = [],  # noqa: B006 - typer reads it, and it is never changed
        shout: Annotated[str, typer.Option(parser=str.upper)] = "quiet",
        switch: Annotated[bool | None, typer.Option("--on/--off")] = None,
        place: Annotated[str, typer.Option(metavar="FILE")] = "-",
        wait: str = "",
    ) -> None:
        given.update(text=text, count=count, size=size, file=file, name=name, shout=shout, switch=switch, place=place)
        given.update(wait=wait)

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


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("\udce9",), "text"),
        (("x", "--name", "a", "--name", "caf\udce9"), "--name"),
        (("x", "--shout=\udce9"), "--shout"),
        (("x", "--count", "\udce9"), "--count"),
        (("x", "--size", "\udce9"), "--size"),
    ],
)
def test_what_is_no_utf_8_is_refused_by_the_name_of_its_parameter(arguments: tuple[str, ...], name: str) -> None:
    said = " ".join(took(*arguments).split())
    assert (
        f"Invalid value for '{name}'" in said.upper().replace("INVALID VALUE FOR", "Invalid value for") or name in said
    )
    assert "must be valid UTF-8" in said
    assert "\udce9" not in said


def test_the_name_of_a_file_may_be_of_any_bytes() -> None:
    assert took("x", "--place", "caf\udce9.csv")["place"] == "caf\udce9.csv"


def test_no_number_is_larger_than_the_api_can_hold() -> None:
    assert took("x", "--count", str(MAX_INTEGER))["count"] == MAX_INTEGER
    assert str(MAX_INTEGER) in took("x", "--count", str(MAX_INTEGER + 1))


@pytest.mark.parametrize(
    ("arguments", "wait"),
    [
        (("x",), ""),
        (("--wait", "x"), "5s"),
        (("x", "--wait"), "5s"),
        (("--wait=2m", "x"), "2m"),
        (("--count", "4", "--wait", "--on", "x"), "5s"),
        (("--place=--wait", "x"), ""),
        (("--place", "--wait", "x"), ""),
        (("--place", "--", "--wait", "x"), "5s"),
        (("--wait", "10m", "x"), "10m"),
        (("x", "--wait", "1.5h", "--on"), "1.5h"),
        (("--wait", "2m", "--wait", "x"), "5s"),
    ],
)
def test_an_option_that_may_stand_alone_takes_only_a_time_for_its_value(arguments: tuple[str, ...], wait: str) -> None:
    given = took(*arguments)
    assert (given["text"], given["wait"]) == ("x", wait)


def test_a_number_without_a_unit_is_an_argument() -> None:
    given = took("--wait", "5")
    assert (given["text"], given["wait"]) == ("5", "5s")


def test_after_two_dashes_nothing_is_an_option() -> None:
    given = took("--", "--wait")
    assert (given["text"], given["wait"]) == ("--wait", "")
