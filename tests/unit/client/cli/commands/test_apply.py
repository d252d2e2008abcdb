"""cli.applying: make the routes be what a file says."""

import json
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2

from pointsman import chunks
from pointsman.cli.bulk import retry
from pointsman.v1 import route_service_pb2 as pb
from tests.support.fake_route_service import Failure, FakeServer
from tests.unit.client.conftest import Run

FILE = """
routes:
  - {key: a/b/c/v1, url: "https://one.internal"}
  - key: a/b/c/v2
    url: https://two.internal
    active: false
    labels: {tier: gold}
"""

GONE = Failure(grpc.StatusCode.UNAVAILABLE, "gone", trailers=(("grpc-retry-pushback-ms", "-1"),))


@pytest.fixture(autouse=True)
def _routes(run: Run, server: FakeServer) -> None:
    Path("routes.yaml").write_text(FILE)
    server.add("a/b/c/v1", "https://old.internal")
    server.add("a/x/c/v1", "https://extra.internal")
    server.add("z/b/c/v1", "https://other.internal")


def writes(server: FakeServer) -> list[str]:
    return [method for method in server.methods() if method != "List"]


def test_a_dry_run_shows_the_difference_and_changes_nothing(run: Run, server: FakeServer) -> None:
    done = run("apply", "-f", "routes.yaml", "--dry-run")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "~ a/b/c/v1 url: https://old.internal → https://one.internal",
        "+ a/b/c/v2 https://two.internal inactive tier=gold",
    ]
    assert done.stderr == "to do: create 1, change 1, delete 0\n"
    assert writes(server) == []


def test_exit_code_tells_a_script_of_a_difference(run: Run) -> None:
    assert run("apply", "-f", "routes.yaml", "--dry-run", "--exit-code").exit_code == 10
    run("apply", "-f", "routes.yaml")
    assert run("apply", "-f", "routes.yaml", "--dry-run", "--exit-code").exit_code == 0


def test_exit_code_is_for_dry_runs_only(run: Run, server: FakeServer) -> None:
    assert run("apply", "-f", "routes.yaml", "--exit-code").exit_code == 2
    assert server.calls == []


def test_makes_the_routes_be_what_the_file_says(run: Run, server: FakeServer) -> None:
    done = run("apply", "-f", "routes.yaml", "--reason", "release 7")
    assert done.exit_code == 0
    assert server.state() == {
        "a/b/c/v1": ("https://one.internal", True, {}),
        "a/b/c/v2": ("https://two.internal", False, {"tier": "gold"}),
        "a/x/c/v1": ("https://extra.internal", True, {}),
        "z/b/c/v1": ("https://other.internal", True, {}),
    }
    assert {change.reason for change in server.changes[3:]} == {"release 7"}


def test_again_is_nothing_to_do(run: Run, server: FakeServer) -> None:
    run("apply", "-f", "routes.yaml")
    server.calls.clear()
    done = run("apply", "-f", "routes.yaml")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "nothing to do: all is as the file says\n")
    assert writes(server) == []


def test_reads_standard_input(run: Run) -> None:
    assert run("apply", "-f", "-", "--dry-run", "--exit-code", input=FILE).exit_code == 10


def test_json_is_one_document(run: Run) -> None:
    document = json.loads(run("apply", "-f", "routes.yaml", "--dry-run", "--json").stdout)
    assert document["dry_run"] is True
    assert document["summary"] == {"create": 1, "change": 1, "delete": 0}
    assert [each["action"] for each in document["differences"]] == ["change", "create"]
    assert document["differences"][0]["after"]["url"] == "https://one.internal"


class TestPrune:
    def test_shows_only_routes_of_the_tenants_in_the_file(self, run: Run) -> None:
        lines = run("apply", "-f", "routes.yaml", "--prune", "--dry-run").stdout.splitlines()
        assert [line for line in lines if line.startswith("-")] == ["- a/x/c/v1 https://extra.internal active"]

    def test_without_a_terminal_it_needs_yes(self, run: Run, server: FakeServer) -> None:
        done = run("apply", "-f", "routes.yaml", "--prune")
        assert done.exit_code == 2
        assert "--yes" in done.stderr
        assert writes(server) == []

    def test_with_yes_it_deletes(self, run: Run, server: FakeServer) -> None:
        assert run("apply", "-f", "routes.yaml", "--prune", "--yes").exit_code == 0
        assert sorted(server.state()) == ["a/b/c/v1", "a/b/c/v2", "z/b/c/v1"]

    @pytest.mark.parametrize(("answer", "code", "deletes"), [("y\n", 0, 1), ("n\n", 1, 0)])
    def test_on_a_terminal_it_asks(
        self, run: Run, server: FakeServer, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, deletes: int
    ) -> None:
        monkeypatch.setattr("pointsman.cli.commands.apply.can_ask", lambda: True)
        done = run("apply", "-f", "routes.yaml", "--prune", input=answer)
        assert (done.exit_code, len(server.called("Delete"))) == (code, deletes)
        assert "Delete 1 route?" in done.stderr

    def test_a_tenants_list_widens_it_to_tenants_without_entries(self, run: Run, server: FakeServer) -> None:
        Path("routes.yaml").write_text("tenants: [z]")
        assert run("apply", "-f", "routes.yaml", "--prune", "--yes").exit_code == 0
        assert sorted(server.state()) == ["a/b/c/v1", "a/x/c/v1"]

    def test_an_entry_outside_of_the_tenants_list_is_refused(self, run: Run) -> None:
        Path("routes.yaml").write_text('tenants: [z]\nroutes: [{key: a/b/c/d, url: "https://x.internal"}]')
        done = run("apply", "-f", "routes.yaml")
        assert done.exit_code == 2
        assert done.stderr.startswith("routes.yaml:2: key: a/b/c/d is of a tenant")


class TestBadFiles:
    def test_every_problem_is_told_at_once_with_its_line(self, run: Run, server: FakeServer) -> None:
        Path("bad.yaml").write_text(
            'routes:\n- {key: a/b, url: "https://x"}\n- {key: a/b/c/d, url: x}\n'
            '- {key: a/b/c/e, url: "https://x"}\n- {key: a/b/c/e, url: "https://x"}\n'
        )
        done = run("apply", "-f", "bad.yaml")
        assert done.exit_code == 2
        assert [line.split(": ")[0] for line in done.stderr.splitlines()] == ["bad.yaml:2", "bad.yaml:3", "bad.yaml:5"]
        assert server.calls == []

    def test_with_json_as_a_document(self, run: Run) -> None:
        Path("bad.yaml").write_text("routes: [{key: a/b}]")
        error = json.loads(run("apply", "-f", "bad.yaml", "--json").stderr)["error"]
        assert (error["code"], error["file"], error["problems"][0]["line"]) == ("INVALID_FILE", "bad.yaml", 1)

    def test_a_missing_file_is_named(self, run: Run) -> None:
        done = run("apply", "-f", "none.yaml")
        assert (done.exit_code, done.stderr) == (2, "none.yaml: No such file or directory\n")


def versions(*actives: bool, url: str = "https://x.internal") -> None:
    """Write a file of the versions of one family."""
    lines = (f"- {{key: p/q/r/v{n}, url: '{url}', active: {str(on).lower()}}}\n" for n, on in enumerate(actives))
    Path("routes.yaml").write_text("routes:\n" + "".join(lines))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of two routes."""
    monkeypatch.setattr(chunks, "MOST_ROUTES", 2)


class TestCalls:
    def test_what_is_new_is_one_call_and_what_changes_another(self, run: Run, server: FakeServer) -> None:
        run("apply", "-f", "routes.yaml")
        creating, changing = (call.request for call in server.called("Import"))
        assert (creating.existing, changing.existing) == (pb.EXISTING_ROUTES_REFUSE, pb.EXISTING_ROUTES_UPDATE)
        assert [each.key.version for each in creating.routes] == ["v2"]
        assert [(each.key.version, each.expected_revision) for each in changing.routes] == [("v1", 1)]
        assert creating.request_id != changing.request_id

    def test_a_switch_of_versions_is_atomic_and_no_reader_sees_none_active(self, run: Run, server: FakeServer) -> None:
        versions(True, False)
        run("apply", "-f", "routes.yaml")
        versions(False, True, url="https://y.internal")
        server.calls.clear()
        assert run("apply", "-f", "routes.yaml").exit_code == 0
        (call,) = server.called("Import")
        assert [(each.key.version, each.active) for each in call.request.routes] == [("v1", True), ("v0", False)]

    @pytest.mark.usefixtures("small")
    def test_of_many_calls_those_that_take_something_out_of_service_come_last_one_after_another(
        self, run: Run, server: FakeServer
    ) -> None:
        versions(*[True] * 7, *[False] * 5)
        run("apply", "-f", "routes.yaml")
        versions(*[False] * 7, *[True] * 5)
        before = len(server.changes)
        assert run("apply", "-f", "routes.yaml").exit_code == 0
        actives = [change.after.active for change in server.changes[before:]]
        assert actives == [True] * 5 + [False] * 7

    def test_what_is_pruned_goes_last_and_only_as_it_was_seen(self, run: Run, server: FakeServer) -> None:
        run("apply", "-f", "routes.yaml", "--prune", "--yes", "--reason", "release 7")
        assert writes(server) == ["Import", "Import", "Delete"]
        (call,) = server.called("Delete")
        assert (call.request.expected_revision, call.request.reason) == (2, "release 7")

    @pytest.mark.usefixtures("small")
    def test_many_are_pruned(self, run: Run, server: FakeServer) -> None:
        for number in range(50):
            server.add(f"a/b/c/w{number}", "https://gone.internal")
        done = run("apply", "-f", "routes.yaml", "--prune", "--yes")
        assert done.stderr == "done: create 1, change 1, delete 51\n"
        assert sorted(server.state()) == ["a/b/c/v1", "a/b/c/v2", "z/b/c/v1"]

    def test_waits_where_the_server_asks_to(self, run: Run, server: FakeServer) -> None:
        details = (error_details_pb2.RetryInfo(retry_delay=Duration(nanos=1_000_000)),)
        limited = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "too fast", "RATE_LIMITED", details=details)
        server.fail("Import", *[limited] * 10)
        server.fail("Delete", *[limited] * 10)
        assert run("apply", "-f", "routes.yaml", "--prune", "--yes").exit_code == 0
        for method in ("Import", "Delete"):
            assert len({call.request.request_id for call in server.called(method)[:11]}) == 1

    def test_a_server_that_comes_back_is_waited_for(
        self, run: Run, server: FakeServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(retry, "_FIRST_PAUSE", 0.0)
        server.fail("Import", *[GONE] * 7)
        assert run("apply", "-f", "routes.yaml").exit_code == 0
        server.fail("Delete", *[GONE] * 8)
        done = run("apply", "-f", "routes.yaml", "--prune", "--yes")
        assert done.exit_code == 5
        assert "a/x/c/v1 was to be deleted\n0 of 1 changes are done: run it again" in done.stderr


Meanwhile = Callable[[Callable[[], object]], None]


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    """Let somebody else do something between the difference and the first call."""
    return lambda do: monkeypatch.setattr("pointsman.cli.commands.apply._confirm", lambda _found, _yes: do())


class TestRefusals:
    def test_a_change_by_somebody_else_in_between_is_not_overwritten(
        self, run: Run, server: FakeServer, meanwhile: Meanwhile
    ) -> None:
        def change() -> None:
            server.add("a/b/c/v1", "https://theirs.internal")
            del server.routes["a", "x", "c", "v1"]

        Path("routes.yaml").write_text(FILE + "  - {key: a/x/c/v1, url: 'https://new.internal'}\n")
        meanwhile(change)
        done = run("apply", "-f", "routes.yaml")
        assert done.exit_code == 4
        assert done.stderr.splitlines() == [
            "error: a/b/c/v1 expected_revision: is another one (request 4bf92f35)",
            "a/x/c/v1 expected_revision: is another one",
            "a call is made as a whole or not at all: this one was of a/b/c/v1 to a/x/c/v1, 2 in all",
            "1 of 3 changes are done: run it again",
        ]
        assert server.state()["a/b/c/v1"][0] == "https://theirs.internal"

    def test_nor_is_a_route_that_somebody_else_has_created(
        self, run: Run, server: FakeServer, meanwhile: Meanwhile
    ) -> None:
        meanwhile(lambda: server.add("a/b/c/v2", "https://theirs.internal"))
        done = run("apply", "-f", "routes.yaml")
        assert done.exit_code == 4
        assert done.stderr.splitlines() == [
            "error: a/b/c/v2 key: exists (request 4bf92f35)",
            "a call is made as a whole or not at all: this one was of a/b/c/v2",
            "0 of 2 changes are done: run it again",
        ]

    @pytest.mark.usefixtures("small")
    def test_with_json_the_keys_are_in_the_document(self, run: Run, server: FakeServer, meanwhile: Meanwhile) -> None:
        versions(*[True] * 6)
        meanwhile(lambda: [server.add(f"p/q/r/v{number}", "https://theirs.internal") for number in range(2)])
        done = run("apply", "-f", "routes.yaml", "--json")
        error = json.loads(done.stderr)["error"]
        assert (error["reason"], error["message"]) == ("ROUTE_EXISTS", "p/q/r/v0 key: exists")
        assert [each["field"] for each in error["violations"]] == ["p/q/r/v0 key", "p/q/r/v1 key"]
        # Calls that were under way with the one that is refused are made.
        total = sum(change.after.url == "https://x.internal" for change in server.changes)
        assert error["notes"][-1] == f"{total} of 6 changes are done: run it again"

    def test_again_goes_on_where_it_failed(self, run: Run, server: FakeServer) -> None:
        server.fail("Import", Failure(grpc.StatusCode.PERMISSION_DENIED, "may not", "FORBIDDEN"))
        first = run("apply", "-f", "routes.yaml")
        assert (first.exit_code, first.stderr.splitlines()[0]) == (6, "error: may not (request 4bf92f35)")
        assert "0 of 2 changes are done" in first.stderr
        assert run("apply", "-f", "routes.yaml").exit_code == 0
        assert run("apply", "-f", "routes.yaml", "--dry-run", "--exit-code").exit_code == 0
