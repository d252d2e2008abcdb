"""cli.reporting: errors are one or two lines on stderr that say what to do, or one JSON document."""

import json

import grpc
import pytest

from .conftest import Run
from .fake_server import REQUEST_ID, Failure, FakeServer

C = grpc.StatusCode
KEY = "a/b/c/d"


def fails(code: C, reason: str = "") -> Failure:
    return Failure(code, "the message", reason, {"key": KEY}, trailers=(("grpc-retry-pushback-ms", "-1"),))


@pytest.mark.parametrize(
    ("failure", "code", "advice"),
    [
        (fails(C.NOT_FOUND, "ROUTE_NOT_FOUND"), 3, "pointsman list --tenant a"),
        (fails(C.NOT_FOUND, "ROUTE_INACTIVE"), 3, f"pointsman activate {KEY}"),
        (fails(C.UNAUTHENTICATED), 6, "POINTSMAN_TOKEN"),
        (fails(C.PERMISSION_DENIED, "FORBIDDEN"), 6, ""),
        (fails(C.UNAVAILABLE, "STORE_UNAVAILABLE"), 5, "POINTSMAN_SERVER"),
        (fails(C.DEADLINE_EXCEEDED), 5, "--timeout"),
        (fails(C.INTERNAL, "INTERNAL"), 1, ""),
    ],
)
def test_says_what_happened_and_what_to_do(
    run: Run, server: FakeServer, failure: Failure, code: int, advice: str
) -> None:
    server.fail("Resolve", failure)
    done = run("resolve", KEY)
    assert (done.exit_code, done.stdout) == (code, "")
    assert done.stderr.startswith(f"error: the message (request {REQUEST_ID})\n")
    assert advice in done.stderr
    assert len(done.stderr.splitlines()) <= 2


def test_with_json_the_error_is_one_document_on_stderr(run: Run) -> None:
    done = run("resolve", KEY, "--json")
    error = json.loads(done.stderr)["error"]
    assert (done.exit_code, done.stdout) == (3, "")
    assert (error["code"], error["reason"], error["request_id"]) == ("NOT_FOUND", "ROUTE_NOT_FOUND", REQUEST_ID)
    assert error["metadata"]["key"] == KEY


def test_a_usage_error_names_the_help_of_its_command(run: Run) -> None:
    done = run("resolve")
    assert done.exit_code == 2
    assert done.stderr.splitlines()[0] == "error: Missing argument 'KEY'."
    assert done.stderr.splitlines()[1].endswith("resolve --help")


def test_a_usage_error_with_json_is_json_too(run: Run) -> None:
    done = run("--json", "resolve")
    assert (done.exit_code, json.loads(done.stderr)["error"]["code"]) == (2, "USAGE")


def test_a_malformed_key_is_a_usage_error(run: Run, server: FakeServer) -> None:
    done = run("resolve", "a/b")
    assert (done.exit_code, server.calls) == (2, [])
    assert "tenant/service/env/version" in done.stderr


def test_control_characters_of_others_do_not_reach_the_terminal(run: Run, server: FakeServer) -> None:
    server.fail("Resolve", Failure(C.INTERNAL, "evil \x1b[2J text"))
    assert "evil \\x1b[2J text" in run("resolve", KEY).stderr
