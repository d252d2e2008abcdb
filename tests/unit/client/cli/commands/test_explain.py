"""explain: what a caller gets, and why."""

import json

import pytest

from tests.support.fake_route_service import FakeServer
from tests.unit.client.conftest import Run


@pytest.fixture(autouse=True)
def _traffic(server: FakeServer) -> None:
    server.add("a/b/c/v1", "https://v1.internal")
    server.add("a/b/c/v2", "https://v2.internal", active=False)
    server.divide("a/b/c", {"v2": 10_000}, ("v1",))


def test_of_a_select_has_the_choice_and_the_traffic(run: Run, server: FakeServer) -> None:
    lines = run("explain", "a/b/c", "--key", "user-1", "--subject", "cart").stdout.splitlines()
    assert lines[:7] == [
        "key       a/b/c",
        "answer    https://v1.internal",
        "why       v1, as a fallback of the traffic (revision 3); not v2: inactive",
        "traffic   v2=100%; fallback v1 (revision 3)",
        "as of     revision 3",
        "changed   revision 3, 2023-11-14 22:13:23Z, by ada: TRAFFIC_SET a/b/c traffic: v2=100%; fallback v1",
        "may read  cart has routes.read",
    ]
    assert lines[8].split() == ["LAYER", "HOLDS", "AS", "OF", "AGE"]
    assert lines[9].split() == ["LOCAL", "revision", "1", "revision", "3", "0.250", "s"]
    assert lines[10].split() == ["REDIS", "it", "cannot", "be", "reached"]
    assert lines[12] == "allows  developers: it permits routes.read in every tenant"
    request = server.calls[0].request
    assert (request.sticky_key, request.subject) == ("user-1", "cart")


def test_of_a_resolve_has_why_there_is_none(run: Run) -> None:
    done = run("explain", "a/b/c/v2")
    assert done.exit_code == 0
    assert "answer    ROUTE_INACTIVE: a/b/c/v2 is not active\n" in done.stdout
    assert "traffic " not in done.stdout.partition("as of")[0]


def test_json_has_all_of_it(run: Run) -> None:
    document = json.loads(run("explain", "a/b/c", "--json").stdout)
    assert document["key"] == "a/b/c"
    assert (document["route"]["url"], document["error"]) == ("https://v1.internal", None)
    assert document["choice"] == {"version": "v1", "rule": "FALLBACK", "inactive_versions": ["v2"]}
    assert document["traffic"]["fallbacks"] == ["v1"]
    assert document["layers"][0] == {
        "source": "LOCAL",
        "held": True,
        "revision": 1,
        "as_of_revision": 3,
        "age_seconds": 0.25,
        "problem": "",
    }
    assert document["last_change"]["revision"] == 3
    assert document["permission"]["rules"][0]["source"] == "developers"
    refused = json.loads(run("explain", "a/b/c/v2", "--json").stdout)
    assert (refused["route"], refused["error"]["reason"]) == (None, "ROUTE_INACTIVE")
