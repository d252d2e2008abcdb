"""cli.lazy: a command loads what it needs, and the help and the suggestions know all of them."""

import subprocess
import sys
from textwrap import dedent

import pytest

from pointsman.cli.app import Commands
from tests.support.fake_route_service import FakeServer
from tests.unit.client.conftest import Run

KEY = "a/b/c/d"
HEAVY = {
    "pydantic",
    "rich",
    "yaml",
    "pointsman.aio",
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


@pytest.mark.parametrize("arguments", [("resolve", KEY), ("resolve", KEY, "--json"), ("get", KEY), ("version",)])
def test_a_quick_command_loads_none_of_what_takes_long(server: FakeServer, arguments: tuple[str, ...]) -> None:
    server.add(KEY, "https://x.internal")
    assert loaded_by(server, *arguments) == set()


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
