"""cli.changing: create, update, activate, deactivate, delete."""

import json

import pytest

from tests.support.fake_route_service import FakeServer
from tests.unit.client.conftest import Run

URL = "https://x.internal"
KEY = "a/b/c/v1"


def test_create_makes_a_live_route(run: Run, server: FakeServer) -> None:
    done = run("create", KEY, URL, "--label", "tier=gold", "--label", "note=a=b")
    assert (done.exit_code, done.stdout) == (0, f"created {KEY} at revision 1: {URL} active note=a=b tier=gold\n")
    assert server.state() == {KEY: (URL, True, {"tier": "gold", "note": "a=b"})}


def test_create_can_start_inactive(run: Run, server: FakeServer) -> None:
    run("create", KEY, URL, "--inactive")
    assert server.state() == {KEY: (URL, False, {})}


def test_create_of_a_taken_key_is_a_conflict(run: Run, server: FakeServer) -> None:
    server.add(KEY, URL)
    done = run("create", KEY, URL)
    assert done.exit_code == 4
    assert f"pointsman update {KEY}" in done.stderr


@pytest.mark.parametrize("pair", ["tier", ""])
def test_a_label_needs_a_value(run: Run, server: FakeServer, pair: str) -> None:
    assert run("create", KEY, URL, "--label", pair).exit_code == 2
    assert server.calls == []


def test_a_label_twice_is_a_mistake(run: Run) -> None:
    assert run("create", KEY, URL, "--label", "a=1", "--label", "a=2").exit_code == 2


def test_update_changes_only_what_is_given(run: Run, server: FakeServer) -> None:
    server.add(KEY, URL, labels={"tier": "gold"})
    run("update", KEY, "--url", "https://new.internal")
    assert server.state() == {KEY: ("https://new.internal", True, {"tier": "gold"})}
    run("update", KEY, "--label", "owner=ada")
    assert server.state() == {KEY: ("https://new.internal", True, {"owner": "ada"})}
    run("update", KEY, "--no-labels")
    assert server.state() == {KEY: ("https://new.internal", True, {})}


def test_update_may_create(run: Run, server: FakeServer) -> None:
    assert run("update", KEY, "--url", URL).exit_code == 3
    assert run("update", KEY, "--url", URL, "--allow-missing").exit_code == 0
    assert server.state() == {KEY: (URL, True, {})}


def test_update_of_nothing_is_a_mistake(run: Run) -> None:
    assert run("update", KEY).exit_code == 2
    assert run("update", KEY, "--label", "a=1", "--no-labels").exit_code == 2


def test_activate_can_take_the_siblings_out(run: Run, server: FakeServer) -> None:
    server.add(KEY, URL)
    server.add("a/b/c/v2", URL, active=False)
    done = run("activate", "a/b/c/v2", "--exclusive", "--json")
    document = json.loads(done.stdout)
    assert (document["route"]["active"], document["route"]["revision"], document["revision"]) == (True, 3, 4)
    assert server.state()[KEY][1] is False


def test_deactivate_keeps_and_delete_removes(run: Run, server: FakeServer) -> None:
    server.add(KEY, URL)
    assert run("deactivate", KEY).stdout == f"deactivated {KEY} at revision 2: {URL} inactive\n"
    assert run("delete", KEY).stdout == f"deleted {KEY} at revision 3\n"
    assert server.state() == {}


@pytest.mark.parametrize("command", ["update", "activate", "deactivate", "delete"])
def test_another_revision_than_expected_is_a_conflict(run: Run, server: FakeServer, command: str) -> None:
    server.add(KEY, URL)
    extra = ("--url", URL) if command == "update" else ()
    assert run(command, KEY, *extra, "--expected-revision", "7").exit_code == 4
    assert run(command, KEY, *extra, "--expected-revision", "1").exit_code == 0


@pytest.mark.parametrize("command", ["create", "update", "activate", "deactivate", "delete"])
def test_each_mutation_takes_a_reason_and_a_request_id(run: Run, server: FakeServer, command: str) -> None:
    if command != "create":
        server.add(KEY, URL)
    arguments = {"create": (KEY, URL), "update": (KEY, "--url", URL)}.get(command, (KEY,))
    assert run(command, *arguments, "--reason", "why", "--request-id", "r-1", "--json").exit_code == 0
    assert (server.calls[0].request.reason, server.calls[0].request.request_id) == ("why", "r-1")


def test_an_argument_that_is_no_text_is_a_usage_error(run: Run, server: FakeServer) -> None:
    done = run("create", KEY, "https://x.internal/\udcff")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: Invalid value for 'URL': it must be valid UTF-8\n")
    assert server.calls == []
