"""select: the URL on stdout, why on stderr."""

import json

import pytest

from tests.support.fake_route_service import FakeServer
from tests.unit.client.conftest import Run

FAMILY = "a/b/c"


@pytest.fixture(autouse=True)
def _versions(server: FakeServer) -> None:
    server.add("a/b/c/v1", "https://v1.internal")
    server.add("a/b/c/v2", "https://v2.internal", active=False)


def test_prints_the_url_and_names_the_rule(run: Run, server: FakeServer) -> None:
    server.divide(FAMILY, {"v1": 10_000})
    done = run("select", FAMILY, "--key", "user-1")
    assert (done.exit_code, done.stdout) == (0, "https://v1.internal\n")
    assert done.stderr == "v1, by the weights of the traffic (revision 3)\n"
    assert server.calls[0].request.sticky_key == "user-1"


def test_names_the_versions_that_were_passed_over(run: Run, server: FakeServer) -> None:
    server.divide(FAMILY, {"v2": 10_000}, ("v1",))
    done = run("select", FAMILY, "-v")
    assert done.stderr.splitlines() == [
        "v1, as a fallback of the traffic (revision 3); not v2: inactive",
        "source LOCAL, age 0.250 s, as of revision 3",
    ]


def test_says_that_there_is_only_one(run: Run) -> None:
    assert run("select", FAMILY).stderr == "v1, the only active version\n"


def test_json_has_the_route_the_choice_and_the_provenance(run: Run, server: FakeServer) -> None:
    server.divide(FAMILY, {"v2": 10_000}, ("v1",))
    done = run("select", FAMILY, "--json")
    document = json.loads(done.stdout)
    assert document["route"]["key"] == "a/b/c/v1"
    assert document["choice"] == {
        "version": "v1",
        "rule": "FALLBACK",
        "inactive_versions": ["v2"],
        "traffic_revision": 3,
    }
    assert document["provenance"]["as_of_revision"] == 3
    assert done.stderr == ""


def test_says_what_would_have_been_selected_then(run: Run) -> None:
    run("activate", "a/b/c/v2")
    assert run("select", FAMILY, "--as-of", "2").stdout == "https://v1.internal\n"
    assert run("select", FAMILY, "--as-of", "2023-11-14 22:13:22").stdout == "https://v1.internal\n"
    assert run("select", FAMILY, "--as-of", "2", "--min-revision", "1").exit_code == 2


def test_an_ambiguity_says_what_to_do(run: Run) -> None:
    run("activate", "a/b/c/v2")
    done = run("select", FAMILY)
    assert (done.exit_code, done.stdout) == (4, "")
    assert "v1,v2" in done.stderr
    assert "pointsman traffic set a/b/c VERSION=PERCENT" in done.stderr


def test_nothing_to_choose_is_not_found(run: Run) -> None:
    done = run("select", "a/b/nothing")
    assert done.exit_code == 3
    assert "pointsman list --tenant a --service b --env nothing" in done.stderr


def test_a_malformed_name_is_refused(run: Run, server: FakeServer) -> None:
    done = run("select", "a/b/c/v1")
    assert (done.exit_code, server.calls) == (2, [])
    assert "must be tenant/service/env" in done.stderr
