"""history: by change sets, and of traffic."""

import json

import pytest

from pointsman import Client, Create, Deactivate, SetTraffic
from tests.support.fake_route_service import FakeServer
from tests.unit.client.conftest import Run


@pytest.fixture(autouse=True)
def _changes(client: Client, server: FakeServer) -> None:
    created = [Create(f"a/b/c/v{number}", f"https://v{number}.internal") for number in range(1, 6)]
    client.commit([*created, SetTraffic("a/b/c", {"v1": 9000, "v2": 1000})], reason="release 5")
    client.set_traffic("a/b/c", {"v2": 10_000}, reason="cut over")
    client.commit([Deactivate("a/b/c/v1"), Create("z/b/c/v1", "https://z.internal")])
    server.calls.clear()


def test_has_traffic_among_the_changes(run: Run) -> None:
    lines = run("history", "--limit", "3").stdout.splitlines()
    assert lines[3].split()[:5] == ["7", "2023-11-14", "22:13:27Z", "TRAFFIC_SET", "a/b/c"]
    assert "traffic: v1=90% v2=10% → v2=100%" in lines[3]


def test_of_a_family_has_its_traffic_and_all_versions(run: Run) -> None:
    changes = json.loads(run("history", "a/b/c", "--json").stdout)
    assert [change["revision"] for change in changes] == [8, 7, 6, 5, 4, 3, 2, 1]
    assert changes[1]["traffic_before"]["targets"] == [
        {"version": "v1", "weight": 9000},
        {"version": "v2", "weight": 1000},
    ]
    assert (changes[1]["change_set_id"], changes[1]["change_set_size"]) == (7, 1)


def test_filters_by_time(run: Run) -> None:
    done = run("history", "--after", "2023-11-14 22:13:26", "--before", "2023-11-14T22:13:28Z", "--json")
    assert [change["revision"] for change in json.loads(done.stdout)] == [8, 7]
    assert run("history", "--after", "soon").exit_code == 2


class TestSets:
    def test_are_one_line_each(self, run: Run) -> None:
        lines = run("history", "--sets").stdout.splitlines()
        assert lines[0].split() == ["SET", "TIME", "ACTOR", "CHANGES", "KEYS", "REASON"]
        assert [line.split()[0] for line in lines[1:]] == ["8", "7", "1"]
        assert lines[3].split()[4] == "6"
        assert "a/b/c, a/b/c/v5, a/b/c/v4, … and 3 more" in lines[3]
        assert lines[3].rstrip().endswith("release 5")

    def test_of_which_a_part_matches_say_so(self, run: Run) -> None:
        lines = run("history", "--sets", "a/b/c/v1").stdout.splitlines()
        assert "1 of 2" in lines[1]
        assert "1 of 6" in lines[2]

    def test_show_their_changes_if_asked(self, run: Run) -> None:
        lines = run("history", "--sets", "-v", "--limit", "1", "--oldest-first").stdout.splitlines()
        assert lines[0] == "1  2023-11-14 22:13:21Z  ada  6 changes  (release 5)"
        assert lines[1] == "  1  CREATED  a/b/c/v1  https://v1.internal active"
        assert lines[6] == "  6  TRAFFIC_SET  a/b/c  traffic: v1=90% v2=10%"
        assert len(lines) == 7

    def test_are_limited_as_sets(self, run: Run, server: FakeServer) -> None:
        server.largest_page = 2
        found = json.loads(run("history", "--sets", "--limit", "3", "--json").stdout)
        assert [(each["change_set_id"], each["change_set_size"], len(each["changes"])) for each in found] == [
            (8, 2, 2),
            (7, 1, 1),
            (1, 6, 6),
        ]
        assert (found[2]["actor"], found[2]["reason"]) == ("ada", "release 5")

    def test_of_a_server_that_records_none_have_one_change(self, run: Run, server: FakeServer) -> None:
        for change in server.changes:
            change.change_set_id = change.change_set_size = 0
        found = json.loads(run("history", "--sets", "--json").stdout)
        assert [each["change_set_id"] for each in found] == [9, 8, 7, 6, 5, 4, 3, 2, 1]

    def test_may_be_none(self, run: Run) -> None:
        done = run("history", "--sets", "--tenant", "nobody")
        assert (done.exit_code, done.stdout, done.stderr) == (0, "", "no changes match\n")
