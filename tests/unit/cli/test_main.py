"""cli.main: what is listed, what is loaded for it, and that every name has its command."""

import subprocess
import sys
from importlib import import_module

import pytest
from typer.testing import CliRunner

from pointsman_server.cli.lazy import Command, Group
from pointsman_server.cli.main import Commands, app

COMMANDS: dict[str, Command] = {}
for _name, _entry in Commands.entries.items():
    found = {f"{_name} {sub}": command for sub, command in _entry.commands.items()} if isinstance(_entry, Group) else {}
    COMMANDS |= found or {_name: _entry}  # type: ignore[dict-item]


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})
    return done.exit_code, done.output


def loaded(*arguments: str) -> set[str]:
    """Run the command line in a process of its own, and return which modules of ours it has loaded."""
    program = f"""
import atexit, sys
atexit.register(lambda: print(*sys.modules, file=sys.stderr))
sys.argv = {["pointsman-server", *arguments]!r}
from pointsman_server.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return {name for name in done.stderr.split() if name.startswith(("pointsman_server.", "pydantic", "grpc"))}


def test_the_help_lists_every_command_in_order_with_its_summary() -> None:
    _, output = run("--help")
    listed = output.partition("Commands")[2]
    places = [listed.index(f" {name} ") for name in Commands.entries]
    assert places == sorted(places)
    for entry in Commands.entries.values():
        assert entry.summary in listed


@pytest.mark.parametrize("group", [name for name, entry in Commands.entries.items() if isinstance(entry, Group)])
def test_a_group_alone_shows_its_commands(group: str) -> None:
    _, output = run(group)
    entry = Commands.entries[group]
    assert isinstance(entry, Group)
    assert entry.summary in output
    for name, command in entry.commands.items():
        assert f" {name} " in output
        assert command.summary in output


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_that_begins_with_what_its_function_says(name: str) -> None:
    module, _, function = COMMANDS[name].function.partition(":")
    sentence = getattr(import_module(module), function).__doc__.splitlines()[0].partition(". ")[0]

    code, output = run(*name.split(), "--help")

    assert code == 0
    assert sentence.rstrip(".") in output


def test_to_list_the_commands_none_is_loaded() -> None:
    assert {name for name in loaded("--help") if name != "pointsman_server.__main__"} == {
        "pointsman_server.cli",
        "pointsman_server.cli.lazy",
        "pointsman_server.cli.main",
    }


def test_a_command_loads_no_other() -> None:
    modules = loaded("keys", "create", "--help")
    assert "pointsman_server.cli.keys" in modules
    assert not modules & {f"pointsman_server.cli.{name}" for name in ("dev", "serve", "check", "audit", "policy")}


def test_a_name_that_is_nearly_one_is_told() -> None:
    code, output = run("serv")
    assert (code, "Did you mean 'serve'?" in output) == (2, True)
    code, output = run("keys", "rotatee")
    assert (code, "Did you mean 'rotate'" in output) == (2, True)
