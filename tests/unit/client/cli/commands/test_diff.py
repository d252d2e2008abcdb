"""diff: what differs between two moments."""

import json

import pytest

from pointsman import Client
from tests.support.fake_route_service import FakeServer
from tests.unit.client.conftest import Run


@pytest.fixture(autouse=True)
def _changes(client: Client) -> None:
    client.create("a/b/c/v1", "https://v1.internal")
    client.create("a/b/c/v2", "https://v2.internal")
    client.set_traffic("a/b/c", {"v1": 10_000})
    client.update("a/b/c/v2", url="https://new.internal", reason="move")
    client.set_traffic("a/b/c", {"v2": 10_000})
    client.delete("a/b/c/v1")
    client.create("z/b/c/v3", "https://v3.internal")


def test_marks_what_came_went_and_changed(run: Run) -> None:
    done = run("diff", "--from", "3")
    assert done.stdout.splitlines() == [
        "~ a/b/c  traffic: v1=100% → v2=100%",
        "- a/b/c/v1  https://v1.internal active",
        "~ a/b/c/v2  url: https://v2.internal → https://new.internal",
        "+ z/b/c/v3  https://v3.internal active",
    ]
    assert done.stderr == "1 added, 1 removed, 2 changed between revision 3 and now\n"


def test_is_coloured_for_people(run: Run) -> None:
    done = run("--color", "always", "diff", "--from", "5")
    assert [line[:5] for line in done.stdout.splitlines()] == ["\x1b[31m", "\x1b[32m"]


def test_says_who_and_when_if_asked(run: Run) -> None:
    lines = run("diff", "--from", "3", "--to", "4", "--tenant", "a", "-v").stdout.splitlines()
    assert lines[1] == "  revision 4, 2023-11-14 22:13:24Z, by ada (move)"


def test_takes_times(run: Run) -> None:
    done = run("diff", "--from", "2023-11-14 22:13:25", "--to", "2023-11-14 22:13:26")
    assert done.stdout == "- a/b/c/v1  https://v1.internal active\n"
    assert done.stderr == "1 removed between 2023-11-14 22:13:25Z and 2023-11-14 22:13:26Z\n"


def test_no_difference_is_no_error(run: Run) -> None:
    done = run("diff", "--from", "5", "--to", "5")
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr == "no difference between revision 5 and revision 5\n"
    assert json.loads(run("diff", "--from", "5", "--to", "5", "--json").stdout) == []


def test_json_has_both_states_and_the_last_change(run: Run) -> None:
    traffic, route = json.loads(run("diff", "--from", "3", "--to", "5", "--json").stdout)
    assert (traffic["key"], traffic["after"]["targets"]) == ("a/b/c", [{"version": "v2", "weight": 10_000}])
    assert (route["before"]["url"], route["after"]["url"]) == ("https://v2.internal", "https://new.internal")
    assert (route["change_count"], route["last_change"]["reason"]) == (1, "move")


def test_a_moment_that_is_not_known_is_an_error_that_says_so(run: Run, server: FakeServer) -> None:
    server.compacted = 3
    compacted = run("diff", "--from", "2")
    assert compacted.exit_code == 2
    assert "pointsman history --oldest-first --limit 1" in compacted.stderr
    future = run("diff", "--from", "3", "--to", "99")
    assert future.exit_code == 2
    assert "the last one is 7" in future.stderr


@pytest.mark.parametrize("arguments", [(), ("--from", ""), ("--from", "x"), ("--from", "1", "--to", "x")])
def test_needs_a_moment_to_begin_at(run: Run, server: FakeServer, arguments: tuple[str, ...]) -> None:
    server.calls.clear()
    assert run("diff", *arguments).exit_code == 2
    assert server.calls == []
