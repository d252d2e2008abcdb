"""``pointsman revert``: undo a change set or a range, and say of a conflict whose it is."""

import json

import pytest

from pointsman import Client
from pointsman.change_sets import Activate, SetTraffic
from tests.support.fake_route_service import FakeServer
from tests.unit.client.conftest import Run

URL = "https://x.internal"


@pytest.fixture(autouse=True)
def _moved(server: FakeServer, client: Client) -> None:
    """Changes 1 to 3 are routes and their traffic; 4 and 5 are a change set that gives v2 everything."""
    server.add("a/b/c/v1", URL)
    server.add("a/b/c/v2", URL, active=False)
    server.divide("a/b/c", {"v1": 10_000})
    client.commit([Activate("a/b/c/v2"), SetTraffic("a/b/c", {"v2": 10_000})])


def test_a_change_set_is_undone_by_another_one(run: Run, server: FakeServer) -> None:
    done = run("revert", "4", "--reason", "v2 fails")
    assert (done.exit_code, done.stderr) == (0, "done: change set 6\n")
    assert sorted(done.stdout.splitlines()) == ["~ a/b/c traffic: v2=100% → v1=100%", "~ a/b/c/v2 active → inactive"]
    assert [change.reason for change in server.changes[5:]] == ["v2 fails"] * 2
    assert len({change.change_set_id for change in server.changes[5:]}) == 1


def test_a_range_is_undone(run: Run, server: FakeServer) -> None:
    done = run("revert", "2..5")
    assert done.exit_code == 0
    assert server.state() == {"a/b/c/v1": (URL, True, {})}
    assert server.traffic == {}
    request = server.called("Revert")[0].request
    assert (request.change_set_id, request.first_revision, request.last_revision) == (0, 2, 5)


def test_a_dry_run_shows_it_and_changes_nothing(run: Run, server: FakeServer) -> None:
    done = run("revert", "4", "--dry-run")
    assert (done.exit_code, done.stderr) == (0, "nothing is changed: this is what would be done\n")
    assert "~ a/b/c traffic: v2=100% → v1=100%" in done.stdout.splitlines()
    assert len(server.changes) == 5


def test_what_is_so_already_is_no_change(run: Run) -> None:
    assert run("revert", "4").exit_code == 0
    done = run("revert", "4", "--force")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "nothing to do: all is so already\n")


def test_a_conflict_is_named_with_who_and_which_revision(run: Run, server: FakeServer) -> None:
    server.divide("a/b/c", {"v1": 5000, "v2": 5000})
    done = run("revert", "4")
    assert done.exit_code == 4
    first, conflict, last = done.stderr.splitlines()
    assert first == "error: 1 key was changed since (request 4bf92f35)"
    assert conflict == "  a/b/c: the traffic was changed by ada at 2023-11-14T22:13:26Z, revision 6"
    assert last == "nothing is changed: undo those first, or give --force to overwrite them"
    assert run("revert", "4", "--force").exit_code == 0
    assert [target.version for target in server.traffic["a", "b", "c"].targets] == ["v1"]


def test_the_document_has_the_changes(run: Run) -> None:
    document = json.loads(run("revert", "4", "--json").stdout)
    assert (document["reverted"], document["dry_run"], document["change_set_id"]) == ("4", False, 6)
    assert (document["change_set_size"], document["revision"], len(document["changes"])) == (2, 7, 2)


def test_what_does_not_fit_is_counted(run: Run, server: FakeServer) -> None:
    server.largest_answer = 1
    assert run("revert", "4").stderr.splitlines() == ["and 1 more", "done: change set 6"]


@pytest.mark.parametrize("text", ["", "x", "0", "5..4", "1...4", "1..", "..4", "1-4", "9" * 20, "\u0665", "1..10001"])
def test_what_names_no_revisions_is_a_usage_error(run: Run, server: FakeServer, text: str) -> None:
    server.calls.clear()
    assert run("revert", text).exit_code == 2
    assert server.calls == []


def test_it_waits_for_those_who_watch_what_it_changes(run: Run, server: FakeServer) -> None:
    done = run("revert", "4", "--wait")
    assert done.exit_code == 0
    asked = server.called("GetPropagation")[0].request
    assert (asked.revision, asked.tenant) == (7, "a")
    assert run("revert", "6", "--wait", "--dry-run").exit_code == 2
