"""cli.reporting: errors are one or two lines on stderr that say what to do, or one JSON document."""

import json

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2

from tests.support.fake_route_service import REQUEST_ID, Failure, FakeServer
from tests.unit.client.conftest import Run

C = grpc.StatusCode
KEY = "a/b/c/d"


def fails(code: C, reason: str = "") -> Failure:
    return Failure(code, "the message", reason, {"key": KEY}, trailers=(("grpc-retry-pushback-ms", "-1"),))


def credential(kind: str, problem: str) -> Failure:
    return Failure(C.UNAUTHENTICATED, "the message", "UNAUTHENTICATED", {"credential": kind, "problem": problem})


def denied(**details: str) -> Failure:
    return Failure(C.PERMISSION_DENIED, "the message", "FORBIDDEN", details)


@pytest.mark.parametrize(
    ("failure", "code", "advice"),
    [
        (fails(C.NOT_FOUND, "ROUTE_NOT_FOUND"), 3, "pointsman list --tenant a"),
        (fails(C.NOT_FOUND, "ROUTE_INACTIVE"), 3, f"pointsman activate {KEY}"),
        (fails(C.NOT_FOUND, "NO_ACTIVE_VERSION"), 3, "pointsman list --tenant a"),
        (fails(C.NOT_FOUND, "TRAFFIC_NOT_FOUND"), 3, "pointsman traffic set"),
        (fails(C.FAILED_PRECONDITION, "AMBIGUOUS_VERSION"), 4, "pointsman traffic set"),
        (fails(C.FAILED_PRECONDITION, "TARGET_NOT_FOUND"), 4, "pointsman list --tenant a"),
        (fails(C.FAILED_PRECONDITION, "ROUTE_IN_TRAFFIC"), 4, "pointsman traffic get a/b/c"),
        (fails(C.FAILED_PRECONDITION, "ROUTE_IN_USE"), 4, f"pointsman deactivate {KEY} --drain"),
        (fails(C.FAILED_PRECONDITION, "USAGE_NOT_COUNTED"), 4, ""),
        (fails(C.UNAVAILABLE, "USAGE_UNAVAILABLE"), 5, ""),
        (fails(C.ABORTED, "CHANGED_SINCE"), 4, ""),
        (fails(C.OUT_OF_RANGE, "REVISION_COMPACTED"), 2, "pointsman history --oldest-first"),
        (fails(C.OUT_OF_RANGE, "REVISION_IN_FUTURE"), 2, ""),
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


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        (credential("bearer token", "expired"), ["bearer token, expired", "a new one", "--token-file"]),
        (credential("bearer token", "audience"), ["bearer token, audience", "meant for this server"]),
        (credential("api key", "revoked"), ["api key, revoked", "a new one", "POINTSMAN_TOKEN"]),
        (credential("client certificate", "issuer"), ["client certificate, issuer", "--cert-file"]),
        (credential("none", "missing"), ["give a token", "--token-file", "POINTSMAN_TOKEN"]),
        (denied(permission="routes.write", tenant="team-b", env="prod"), ["routes.write in team-b/prod"]),
        (denied(permission="routes.write", tenant="team-b"), ["routes.write in team-b"]),
    ],
)
def test_says_which_credential_was_refused_or_what_it_lacks(
    run: Run, server: FakeServer, failure: Failure, says: list[str]
) -> None:
    server.fail("Resolve", failure)
    done = run("resolve", KEY, env={"POINTSMAN_TOKEN": "s3cret"})
    first, advice = done.stderr.splitlines()
    assert done.exit_code == 6
    assert first == f"error: the message (request {REQUEST_ID})"
    assert all(part in advice for part in says)
    assert "s3cret" not in done.output


def test_a_server_that_asks_to_wait_longer_than_the_call_may_take_is_passed_on(run: Run, server: FakeServer) -> None:
    delay = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=60))
    server.fail("Resolve", Failure(C.RESOURCE_EXHAUSTED, "slow down", "RATE_LIMITED", details=(delay,)))
    done = run("resolve", KEY)
    assert (done.exit_code, len(server.calls)) == (1, 1)
    assert done.stderr.splitlines()[1] == "try again in 60 s"


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
