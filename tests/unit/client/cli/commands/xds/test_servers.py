"""Where the commands of xds ask, and what they say when nothing useful answers there."""

import json

import grpc
import pytest

from tests.support.fake_route_service import FakeServer
from tests.support.fake_xds_service import FakeXdsService
from tests.unit.client.conftest import Run


def test_the_address_of_another_service_is_told_in_words(run: Run, server: FakeServer) -> None:
    done = run("xds", "clients", "--xds", server.target)
    assert done.exit_code == 1
    assert done.stderr.splitlines() == [
        f"error: {server.target} does not serve xDS",
        "give the address that POINTSMAN_XDS_LISTEN sets there: --xds HOST:PORT or POINTSMAN_XDS_SERVER",
    ]


def test_nobody_there_is_told_in_words(run: Run) -> None:
    done = run("--timeout", "1", "xds", "explain", "a/b/c", "--xds", "127.0.0.1:1")
    assert done.exit_code == 5
    first, second = done.stderr.splitlines()
    assert first.startswith("error: xDS on 127.0.0.1:1: ")
    assert "role xds" in second


def test_the_variable_says_where(run: Run, fake: FakeXdsService) -> None:
    assert run("xds", "clients").exit_code == 0
    assert len(fake.requests) == 1


def test_the_default_is_beside_the_server(run: Run) -> None:
    done = run("--server", "127.0.0.1:1", "--timeout", "1", "xds", "clients")
    assert "xDS on 127.0.0.1:50052" in done.stderr or done.exit_code == 0


def test_a_server_that_does_not_tell_is_a_usage_error(run: Run) -> None:
    done = run("--server", "unix:/run/x", "xds", "clients")
    assert done.exit_code == 2
    assert "where is xDS" in done.stderr


@pytest.mark.parametrize(
    ("code", "expected"), [(grpc.StatusCode.PERMISSION_DENIED, 6), (grpc.StatusCode.INVALID_ARGUMENT, 2)]
)
def test_other_errors_are_those_of_every_command(
    run: Run, fake: FakeXdsService, code: grpc.StatusCode, expected: int
) -> None:
    fake.failure = (code, "no")
    done = run("xds", "explain", "a/b/c", "--json")
    assert done.exit_code == expected
    assert json.loads(done.stderr)["error"]["message"] == "no"


def test_the_token_is_sent(run: Run, fake: FakeXdsService) -> None:
    run("--token", "t-1", "--plaintext", "xds", "clients")
    assert fake.requests[0][1]["authorization"] == "Bearer t-1"
