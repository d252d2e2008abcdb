"""traffic: get and list."""

import json

import pytest

from tests.support.fake_route_service import FakeServer
from tests.unit.client.conftest import Run

FAMILY = "a/b/c"


@pytest.fixture(autouse=True)
def _traffic(server: FakeServer) -> None:
    server.add("a/b/c/v1", "https://v1.internal")
    server.add("a/b/c/v2", "https://v2.internal")
    server.divide(FAMILY, {"v1": 8750, "v2": 1250}, ("v2",))


def test_shows_weights_in_percent_and_fallbacks(run: Run) -> None:
    lines = run("traffic", "get", FAMILY).stdout.splitlines()
    assert lines[:3] == ["key       a/b/c", "traffic   v1=87.5% v2=12.5%; fallback v2", "revision  3"]
    assert lines[3] == "created   2023-11-14 22:13:23Z"


def test_json_has_basis_points(run: Run) -> None:
    document = json.loads(run("traffic", "get", FAMILY, "--json").stdout)
    assert document["targets"] == [{"version": "v1", "weight": 8750}, {"version": "v2", "weight": 1250}]
    assert document["fallbacks"] == ["v2"]
    assert document["slices"] == [{"version": "v1", "size": 8750}, {"version": "v2", "size": 1250}]


def test_shows_what_it_was(run: Run, server: FakeServer) -> None:
    server.divide(FAMILY, {"v2": 10_000})
    assert "v1=87.5%" in run("traffic", "get", FAMILY, "--as-of", "3").stdout
    done = run("traffic", "get", FAMILY, "--as-of", "2")
    assert (done.exit_code, done.stdout) == (3, "")


def test_says_how_to_set_what_is_not_set(run: Run) -> None:
    done = run("traffic", "get", "a/b/other")
    assert done.exit_code == 3
    assert "pointsman traffic set a/b/other VERSION=PERCENT" in done.stderr


def test_lists_what_matches(run: Run, server: FakeServer) -> None:
    server.add("z/b/c/v1", "https://v1.internal")
    server.divide("z/b/c", {"v1": 10_000})
    lines = run("traffic", "list").stdout.splitlines()
    assert lines[0].split() == ["KEY", "TRAFFIC", "REVISION", "UPDATED"]
    assert lines[2].split() == ["z/b/c", "v1=100%", "5", "2023-11-14", "22:13:25Z"]
    [only] = json.loads(run("traffic", "list", "--tenant", "z", "--json").stdout)
    assert only["key"] == "z/b/c"
    done = run("traffic", "list", "--tenant", "y")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "no traffic matches\n")
