"""context: how the command connects, and what it says about a token that others can read."""

import os
from pathlib import Path
from typing import Any

import pytest

from pointsman.cli.context import Settings, is_local
from pointsman.cli.output.terminal import Color
from tests.support.fake_route_service import FakeServer
from tests.unit.client.conftest import Run

FAR = "192.0.2.1:1"  # RFC 5737: an address for documentation
KEY = "a/b/c/d"


def ask_far_away(run: Run, *options: str, json: bool = False, **environment: str) -> Any:
    arguments = ("--server", FAR, "--timeout", "0.01", *options, "resolve", KEY)
    return run(*arguments, *(["--json"] if json else []), env=environment)


def test_a_token_in_plain_text_over_the_network_is_warned_of_once(run: Run) -> None:
    done = ask_far_away(run, POINTSMAN_TOKEN="s3cret")
    assert done.stderr.count("plain text") == 1
    assert "--tls" in done.stderr
    assert "s3cret" not in done.output


@pytest.mark.parametrize(
    ("options", "environment"),
    [
        (("--plaintext",), {"POINTSMAN_TOKEN": "s3cret"}),
        ((), {"POINTSMAN_TOKEN": "s3cret", "POINTSMAN_TLS": "false"}),
        (("--tls",), {"POINTSMAN_TOKEN": "s3cret"}),
        (("--plaintext",), {"POINTSMAN_TOKEN": "s3cret", "POINTSMAN_TLS": "true"}),
        ((), {}),
    ],
)
def test_not_when_it_is_meant_nor_by_tls_nor_without_a_token(
    run: Run, options: tuple[str, ...], environment: dict[str, str]
) -> None:
    assert "plain text" not in ask_far_away(run, *options, **environment).stderr


def test_json_on_stderr_stays_json(run: Run) -> None:
    assert ask_far_away(run, json=True, POINTSMAN_TOKEN="s3cret").stderr.startswith("{")


def test_not_on_this_machine(run: Run, server: FakeServer) -> None:
    server.add(KEY, "https://x.internal")
    assert run("resolve", KEY, env={"POINTSMAN_TOKEN": "s3cret"}).stderr == ""


def test_the_token_may_be_in_a_file(run: Run, server: FakeServer, tmp_path: Path) -> None:
    server.add(KEY, "https://x.internal")
    (tmp_path / "token").write_text("t-1\n")
    run("--token-file", "token", "resolve", KEY)
    run("resolve", KEY, env={"POINTSMAN_TOKEN_FILE": "token"})
    assert [call.metadata["authorization"] for call in server.calls] == ["Bearer t-1"] * 2


def test_an_option_counts_more_than_the_variable_of_the_other(run: Run, server: FakeServer, tmp_path: Path) -> None:
    server.add(KEY, "https://x.internal")
    (tmp_path / "token").write_text("of-the-file")
    run("--token-file", "token", "resolve", KEY, env={"POINTSMAN_TOKEN": "of-the-variable"})
    run("--token", "given", "resolve", KEY, env={"POINTSMAN_TOKEN_FILE": "token"})
    assert [call.metadata["authorization"] for call in server.calls] == ["Bearer of-the-file", "Bearer given"]


@pytest.mark.parametrize(
    ("options", "environment", "says"),
    [
        (("--token", "s3cret", "--token-file", "token"), {}, "give one of them"),
        ((), {"POINTSMAN_TOKEN": "s3cret", "POINTSMAN_TOKEN_FILE": "token"}, "give one of them"),
        (("--token", "Bearer s3cret"), {}, "without 'Bearer'"),
        (("--tls", "--plaintext"), {}, "give one of them"),
        (("--plaintext", "--ca-file", "ca.pem"), {}, "switched off"),
        (("--cert-file", "cert.pem"), {}, "belong together"),
        (("--ca-file", "nothing.pem"), {}, "No such file"),
    ],
)
def test_contradictions_are_usage_errors(
    run: Run, server: FakeServer, options: tuple[str, ...], environment: dict[str, str], says: str
) -> None:
    done = run(*options, "resolve", KEY, env=environment)
    assert (done.exit_code, server.calls) == (2, [])
    assert says in done.stderr
    assert "s3cret" not in done.output


def test_a_token_file_without_a_token_is_an_error_of_credentials(run: Run, server: FakeServer) -> None:
    done = run("--token-file", os.devnull, "resolve", KEY)
    assert (done.exit_code, server.calls) == (6, [])
    assert done.stderr.startswith(f"error: token file {os.devnull} is empty\n")


def test_settings_do_not_show_the_token() -> None:
    assert "s3cret" not in repr(Settings("x:1", 5, False, Color.AUTO, "s3cret", None, None, None, None, None))


# Targets


@pytest.mark.parametrize(
    "target",
    [
        "localhost:50051",
        "localhost",
        "api.localhost:80",
        "127.0.0.1:50051",
        "127.9.9.9:1",
        "[::1]:50051",
        "::1",
        "dns:localhost:50051",
        "dns:///localhost:50051",
        "dns://127.0.0.53/localhost:50051",
        "ipv4:127.0.0.1:1,127.0.0.1:2",
        "ipv6:[::1]:1",
        "unix:/run/pointsman.sock",
        "unix:///run/pointsman.sock",
        "unix-abstract:pointsman",
    ],
)
def test_loopback_and_unix_sockets_stay_on_this_machine(target: str) -> None:
    assert is_local(target)


@pytest.mark.parametrize(
    "target",
    [
        "pointsman.internal:443",
        "pointsman.internal",
        "dns:///pointsman.internal:443",
        "dns://127.0.0.1/pointsman.internal:443",
        "10.0.0.7:50051",
        "0.0.0.0:50051",
        "[2001:db8::1]:50051",
        "ipv4:127.0.0.1:1,192.0.2.1:2",
        "xds:///pointsman",
        "localhost.evil.example:443",
        "",
    ],
)
def test_other_targets_do_not(target: str) -> None:
    assert not is_local(target)
