"""read: resolve, get, list, history."""

import json

import pytest

from tests.support.fake_route_service import FakeServer
from tests.unit.client.conftest import Run

URL = "https://payments-v2.internal:8443"


class TestResolve:
    def test_prints_the_url_and_nothing_else(self, run: Run, server: FakeServer) -> None:
        server.add("a/b/c/d", URL)
        done = run("resolve", "a/b/c/d")
        assert (done.exit_code, done.stdout, done.stderr) == (0, f"{URL}\n", "")

    def test_verbose_adds_the_provenance_on_stderr(self, run: Run, server: FakeServer) -> None:
        server.add("a/b/c/d", URL)
        done = run("resolve", "-v", "a/b/c/d")
        assert done.stdout == f"{URL}\n"
        assert done.stderr == "source LOCAL, age 0.250 s, as of revision 1\n"

    def test_json_has_the_route_and_the_provenance(self, run: Run, server: FakeServer) -> None:
        server.add("a/b/c/d", URL, labels={"tier": "gold"})
        document = json.loads(run("resolve", "a/b/c/d", "--json").stdout)
        assert document["route"]["labels"] == {"tier": "gold"}
        assert document["provenance"] == {
            "source": "LOCAL",
            "age_seconds": 0.25,
            "as_of_revision": 1,
            "epoch": "epoch-1",
        }

    def test_can_ask_for_more_than_the_nearest_answer(self, run: Run, server: FakeServer) -> None:
        server.add("a/b/c/d", URL)
        run("resolve", "a/b/c/d", "--consistency", "fully_consistent", "--min-revision", "1")
        request = server.calls[0].request
        assert (request.consistency, request.min_revision) == (2, 1)


class TestGet:
    def test_shows_all_of_a_route_active_or_not(self, run: Run, server: FakeServer) -> None:
        server.add("a/b/c/d", URL, active=False, labels={"tier": "gold"})
        done = run("get", "a/b/c/d")
        for text in ("a/b/c/d", URL, "inactive", "tier=gold", "2023-11-14 22:13:21Z"):
            assert text in done.stdout

    def test_shows_what_it_was(self, run: Run, server: FakeServer) -> None:
        server.add("a/b/c/d", URL)
        run("deactivate", "a/b/c/d")
        assert "inactive" not in run("get", "a/b/c/d", "--as-of", "1").stdout
        assert "inactive" not in run("get", "a/b/c/d", "--as-of", "2023-11-14 22:13:21").stdout
        done = run("get", "a/b/c/d", "--as-of", "3")
        assert (done.exit_code, done.stdout) == (2, "")
        assert "the last one is 2" in done.stderr
        assert run("get", "a/b/c/d", "--as-of", "yesterday").exit_code == 2


class TestList:
    def test_lists_what_was(self, run: Run, server: FakeServer) -> None:
        server.add("a/b/c/v1", URL)
        server.add("a/b/c/v2", URL)
        assert [route["key"] for route in json.loads(run("list", "--as-of", "1", "--json").stdout)] == ["a/b/c/v1"]

    def test_is_a_table_whose_rows_stay_whole_in_a_pipe(self, run: Run, server: FakeServer) -> None:
        long = "https://x.internal/" + "y" * 300
        server.add("a/b/c/v1", long)
        server.add("a/b/c/v2", URL, active=False)
        lines = run("list").stdout.splitlines()
        assert lines[0].split() == ["KEY", "URL", "STATE", "REVISION", "LABELS"]
        assert lines[1].split() == ["a/b/c/v1", long, "active", "1"]
        assert lines[2].split() == ["a/b/c/v2", URL, "inactive", "2"]

    def test_filters(self, run: Run, server: FakeServer) -> None:
        server.add("a/b/c/v1", URL)
        server.add("a/b/c/v2", URL, active=False)
        server.add("z/b/c/v1", URL)
        keys = [route["key"] for route in json.loads(run("list", "--tenant", "a", "--active", "--json").stdout)]
        assert keys == ["a/b/c/v1"]

    def test_nothing_is_an_empty_list_and_no_error(self, run: Run) -> None:
        assert json.loads(run("list", "--json").stdout) == []
        done = run("list")
        assert (done.exit_code, done.stdout, done.stderr) == (0, "", "no routes match\n")


class TestHistory:
    @pytest.fixture(autouse=True)
    def _changes(self, run: Run, server: FakeServer) -> None:
        server.add("a/b/c/v1", URL)
        run("update", "a/b/c/v1", "--url", "https://new.internal", "--reason", "[red]move[/red] \x1b[2J")
        server.add("a/b/c/v2", URL)
        server.calls.clear()

    def test_tells_who_changed_what_and_why_newest_first(self, run: Run) -> None:
        lines = run("history").stdout.splitlines()
        assert [line.split()[0] for line in lines[1:]] == ["3", "2", "1"]
        assert f"url: {URL} → https://new.internal" in lines[2]
        assert "ada" in lines[2]

    def test_shows_the_words_of_others_as_they_are_but_harmless(self, run: Run) -> None:
        assert "[red]move[/red] \\x1b[2J" in run("history").stdout

    def test_of_one_key_oldest_first(self, run: Run) -> None:
        changes = json.loads(run("history", "a/b/c/v1", "--oldest-first", "--json").stdout)
        assert [change["revision"] for change in changes] == [1, 2]
        assert changes[1]["before"]["url"] == URL

    def test_limits_also_what_is_fetched(self, run: Run, server: FakeServer) -> None:
        assert len(json.loads(run("history", "--limit", "2", "--json").stdout)) == 2
        assert [call.request.page_size for call in server.calls] == [2]

    def test_filters_by_actor_and_revision(self, run: Run) -> None:
        assert json.loads(run("history", "--actor", "eve", "--json").stdout) == []
        assert len(json.loads(run("history", "--after-revision", "1", "--before-revision", "3", "--json").stdout)) == 1

    def test_a_key_and_a_filter_exclude_each_other(self, run: Run) -> None:
        assert run("history", "a/b/c/v1", "--tenant", "a").exit_code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        *((("history", f"--{name}", "9" * 20)) for name in ("limit", "after-revision", "before-revision")),
        ("history", "--limit", "9" * 5000),
        ("history", "--limit", "-1"),
        ("history", "--limit", "1e3"),
        ("resolve", "a/b/c/d", "--min-revision", str(2**63)),
        ("update", "a/b/c/d", "--url", URL, "--expected-revision", str(2**63)),
        *((("--timeout", text, "list")) for text in ("nan", "inf", "-inf", "1e400", "0", "9" * 20)),
        ("import", "x.csv", "--concurrency", "9" * 20),
    ],
)
def test_a_number_that_cannot_be_is_a_usage_error(run: Run, server: FakeServer, arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert (done.exit_code, server.calls) == (2, [])
    assert done.stderr.startswith("error: Invalid value for '--")


def test_the_largest_number_is_one(run: Run) -> None:
    assert run("history", "--limit", str(2**63 - 1)).exit_code == 0
