"""cli.app: the commands, the global options, the help."""

import json

import pytest

from tests.support.fake_route_service import FakeServer
from tests.unit.client.conftest import Run

COMMANDS = (
    "resolve get list history create update activate deactivate delete apply import version".split()  # noqa: SIM905
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_the_exit_codes_and_takes_json(run: Run, command: str) -> None:
    done = run(command, "--help")
    assert done.exit_code == 0
    assert "Exit codes" in done.stdout
    assert "--json" in done.stdout


def test_no_command_shows_the_help(run: Run) -> None:
    done = run()
    assert done.exit_code == 2
    assert "Commands" in done.output
    assert "Exit codes" in done.output


def test_version(run: Run) -> None:
    assert run("version").stdout.startswith("pointsman ")
    assert "version" in json.loads(run("version", "--json").stdout)


@pytest.mark.parametrize("arguments", [("--json", "get", "a/b/c/d"), ("get", "a/b/c/d", "--json")])
def test_json_may_stand_before_or_after_the_command(run: Run, server: FakeServer, arguments: tuple[str, ...]) -> None:
    server.add("a/b/c/d", "https://x.internal")
    assert json.loads(run(*arguments).stdout)["url"] == "https://x.internal"


def test_the_server_may_be_an_option_or_a_variable(run: Run, server: FakeServer) -> None:
    server.add("a/b/c/d", "https://x.internal")
    assert run("--server", server.target, "resolve", "a/b/c/d", env={"POINTSMAN_SERVER": "127.0.0.1:1"}).exit_code == 0
    assert run("resolve", "a/b/c/d", env={"POINTSMAN_SERVER": server.target}).exit_code == 0


def test_the_timeout_and_the_token_go_to_the_server(run: Run, server: FakeServer) -> None:
    server.add("a/b/c/d", "https://x.internal")
    run("--timeout", "60", "resolve", "a/b/c/d", env={"POINTSMAN_TOKEN": "t-1"})
    assert server.calls[0].seconds_left == pytest.approx(60, abs=2)
    assert server.calls[0].metadata["authorization"] == "Bearer t-1"


def test_completion_is_built_in(run: Run) -> None:
    assert "--install-completion" in run("--help").stdout
