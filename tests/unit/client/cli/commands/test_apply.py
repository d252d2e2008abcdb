"""cli.applying: make the routes be what a file says."""

import json
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2

from pointsman.cli.bulk import change_set, retry
from pointsman.v1 import route_pb2
from tests.support.fake_route_service import Call, Failure, FakeServer
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
    return [method for method in server.methods() if method not in {"List", "ListTraffic"}]


def test_a_dry_run_shows_the_difference_and_changes_nothing(run: Run, server: FakeServer) -> None:
    done = run("apply", "-f", "routes.yaml", "--dry-run")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "~ a/b/c/v1 url: https://old.internal → https://one.internal",
        "+ a/b/c/v2 https://two.internal inactive tier=gold",
    ]
    assert done.stderr == "to do: create 1, change 1, delete 0; the server would accept it\n"
    assert server.called("Commit")[0].request.dry_run
    assert len(server.changes) == 3


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
        monkeypatch.setattr("pointsman.cli.output.prompts.can_ask", lambda: True)
        done = run("apply", "-f", "routes.yaml", "--prune", input=answer)
        kinds = [change.kind for change in server.changes]
        assert (done.exit_code, kinds.count(route_pb2.CHANGE_KIND_DELETED)) == (code, deletes)
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


def families(count: int, url: str = "https://x.internal") -> None:
    """Write a file of so many families with a version each."""
    lines = (f"- {{key: p/s{number}/r/v1, url: '{url}'}}\n" for number in range(count))
    Path("routes.yaml").write_text("routes:\n" + "".join(lines))


def versions(*actives: bool, url: str = "https://x.internal") -> None:
    """Write a file of the versions of one family."""
    lines = (f"- {{key: p/q/r/v{n}, url: '{url}', active: {str(on).lower()}}}\n" for n, on in enumerate(actives))
    Path("routes.yaml").write_text("routes:\n" + "".join(lines))


def kinds_of(call: Call) -> list[str]:
    return [mutation.WhichOneof("mutation") for mutation in call.request.mutations]


class TestChangeSets:
    def test_a_file_is_one_change_set(self, run: Run, server: FakeServer) -> None:
        done = run("apply", "-f", "routes.yaml", "--prune", "--yes", "--reason", "release 7")
        assert done.stderr == "done: create 1, change 1, delete 1; change set 4\n"
        assert writes(server) == ["Commit"]
        (call,) = server.called("Commit")
        assert kinds_of(call) == ["create", "update", "delete"]
        assert [each.expected_revision for each in (call.request.mutations[1].update, call.request.mutations[2].delete)]
        assert {change.change_set_id for change in server.changes[3:]} == {4}
        assert {change.reason for change in server.changes[3:]} == {"release 7"}

    def test_a_switch_of_versions_is_atomic(self, run: Run, server: FakeServer) -> None:
        versions(True, False)
        run("apply", "-f", "routes.yaml")
        versions(False, True)
        server.calls.clear()
        assert run("apply", "-f", "routes.yaml").exit_code == 0
        (call,) = server.called("Commit")
        assert kinds_of(call) == ["activate", "deactivate"]

    def test_a_larger_file_is_several_and_says_which(
        self, run: Run, server: FakeServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(change_set, "MOST_MUTATIONS", 2)
        families(5)
        done = run("apply", "-f", "routes.yaml")
        assert done.stderr.splitlines() == [
            "too much for one change set: 3 are made, each as a whole, one after another",
            "done: create 5, change 0, delete 0; 3 change sets, 4 to 8",
        ]
        assert writes(server) == ["Commit"] * 3

    def test_waits_where_the_server_asks_to(self, run: Run, server: FakeServer) -> None:
        details = (error_details_pb2.RetryInfo(retry_delay=Duration(nanos=1_000_000)),)
        limited = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "too fast", "RATE_LIMITED", details=details)
        server.fail("Commit", *[limited] * 10)
        assert run("apply", "-f", "routes.yaml").exit_code == 0
        assert len({call.request.request_id for call in server.called("Commit")}) == 1

    def test_a_server_that_comes_back_is_waited_for(
        self, run: Run, server: FakeServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(retry, "_FIRST_PAUSE", 0.0)
        server.fail("Commit", *[GONE] * 7)
        assert run("apply", "-f", "routes.yaml").exit_code == 0

    def test_of_a_server_that_stays_away_nobody_knows_whether_it_did(
        self, run: Run, server: FakeServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(retry, "_FIRST_PAUSE", 0.0)
        monkeypatch.setattr(change_set, "MOST_MUTATIONS", 2)
        families(5)
        run("apply", "-f", "routes.yaml")
        families(5, url="https://new.internal")
        server.fail("Commit", *[GONE] * 8)
        done = run("apply", "-f", "routes.yaml")
        assert done.exit_code == 5
        assert done.stderr.splitlines()[-2] == (
            "0 of 3 change sets are made, whether this change set is made is not known: run it again"
        )

    def test_an_older_server_is_named_as_such(self, run: Run, server: FakeServer) -> None:
        server.fail("ListTraffic", Failure(grpc.StatusCode.UNIMPLEMENTED, "no such method"))
        done = run("apply", "-f", "routes.yaml")
        assert done.exit_code == 1
        assert done.stderr.splitlines()[:2] == [
            "error: this server is older than this command: it knows no change sets and no traffic (request 4bf92f35)",
            "upgrade the servers first, or use a pointsman of their version",
        ]


Meanwhile = Callable[[Callable[[], object]], None]


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    """Let somebody else do something between the difference and the first call."""
    return lambda do: monkeypatch.setattr("pointsman.cli.commands.apply._confirm", lambda _found, _yes: do())


class TestTraffic:
    TRAFFIC = """
routes:
  - {key: a/b/c/v1, url: "https://one.internal"}
  - {key: a/b/c/v2, url: "https://two.internal"}
traffic:
  - key: a/b/c
    targets: {v1: 90%, v2: 10%}
    fallbacks: [v1]
"""

    @pytest.fixture(autouse=True)
    def _file(self, _routes: None) -> None:
        Path("routes.yaml").write_text(self.TRAFFIC)

    def test_is_applied_with_the_routes_that_it_names(self, run: Run, server: FakeServer) -> None:
        done = run("apply", "-f", "routes.yaml")
        assert done.stdout.splitlines()[-1] == "+ a/b/c traffic: v1=90% v2=10%; fallback v1"
        assert done.stderr == "done: create 2, change 1, delete 0; change set 4\n"
        traffic = server.traffic["a", "b", "c"]
        assert [(each.version, each.weight) for each in traffic.targets] == [("v1", 9000), ("v2", 1000)]
        assert list(traffic.fallbacks) == ["v1"]
        assert run("apply", "-f", "routes.yaml").stderr == "nothing to do: all is as the file says\n"

    def test_the_document_has_it_like_a_route(self, run: Run) -> None:
        document = json.loads(run("apply", "-f", "routes.yaml", "--dry-run", "--json").stdout)
        assert document["differences"][-1] == {
            "action": "create",
            "key": "a/b/c",
            "before": None,
            "after": {
                "targets": [{"version": "v1", "weight": 9000}, {"version": "v2", "weight": 1000}],
                "fallbacks": ["v1"],
            },
        }
        assert document["change_sets"] == [{"change_set_id": 4, "change_set_size": 3}]

    def test_is_not_overwritten_if_somebody_else_has_changed_it(
        self, run: Run, server: FakeServer, meanwhile: Meanwhile
    ) -> None:
        run("apply", "-f", "routes.yaml")
        Path("routes.yaml").write_text(self.TRAFFIC.replace("90%", "80%").replace("10%", "20%"))
        meanwhile(lambda: server.divide("a/b/c", {"v1": 10_000}))
        done = run("apply", "-f", "routes.yaml")
        assert done.exit_code == 4
        assert done.stderr.startswith("error: routes.yaml:6: a/b/c: ")
        assert "(REVISION_MISMATCH)" in done.stderr

    def test_is_pruned_with_its_routes(self, run: Run, server: FakeServer) -> None:
        run("apply", "-f", "routes.yaml")
        Path("routes.yaml").write_text("tenants: [a]")
        done = run("apply", "-f", "routes.yaml", "--prune")
        assert done.stdout.splitlines()[-1] == "- a/b/c traffic: v1=90% v2=10%; fallback v1 → (not set)"
        assert "3 routes and the traffic of 1 service would be deleted" in done.stderr
        assert run("apply", "-f", "routes.yaml", "--prune", "--yes").exit_code == 0
        assert (server.traffic, sorted(server.state())) == ({}, ["z/b/c/v1"])

    def test_a_route_that_it_names_cannot_be_pruned_alone(self, run: Run, server: FakeServer) -> None:
        run("apply", "-f", "routes.yaml")
        Path("routes.yaml").write_text("routes: [{key: a/b/c/v1, url: 'https://one.internal'}]")
        done = run("apply", "-f", "routes.yaml", "--prune", "--yes")
        assert done.exit_code != 0
        assert "routes.yaml: a/b/c/v2, which was to be deleted: " in done.stderr
        assert "(ROUTE_IN_TRAFFIC)" in done.stderr
        assert "a/b/c/v2" in server.state()

    def test_bad_entries_are_told_with_their_lines(self, run: Run, server: FakeServer) -> None:
        Path("routes.yaml").write_text(self.TRAFFIC.replace("90%", "95%"))
        done = run("apply", "-f", "routes.yaml")
        assert done.exit_code == 2
        assert done.stderr == ("routes.yaml:7: targets: v1=95% v2=10% add up to 105%, and must add up to 100%\n")
        assert server.calls == []


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
            "error: routes.yaml:3: a/b/c/v1: another revision (REVISION_MISMATCH) (request 4bf92f35)",
            "routes.yaml:8: a/x/c/v1: no route a/x/c/v1 (ROUTE_NOT_FOUND)",
            "nothing is changed: a change set is made as a whole or not at all",
        ]
        assert server.state()["a/b/c/v1"][0] == "https://theirs.internal"

    def test_nor_is_a_route_that_somebody_else_has_created(
        self, run: Run, server: FakeServer, meanwhile: Meanwhile
    ) -> None:
        meanwhile(lambda: server.add("a/b/c/v2", "https://theirs.internal"))
        done = run("apply", "-f", "routes.yaml")
        assert done.exit_code == 4
        assert done.stderr.splitlines() == [
            "error: routes.yaml:4: a/b/c/v2: route exists (ROUTE_EXISTS) (request 4bf92f35)",
            "nothing is changed: a change set is made as a whole or not at all",
        ]

    def test_a_dry_run_is_refused_as_it_would_be(self, run: Run, server: FakeServer) -> None:
        server.refused_urls = {"https://two.internal"}
        done = run("apply", "-f", "routes.yaml", "--dry-run", "--exit-code")
        assert done.exit_code == 2
        assert done.stderr.splitlines() == [
            "error: routes.yaml:4: a/b/c/v2: url: is refused (INVALID_FIELD) (request 4bf92f35)",
            "nothing is changed",
        ]

    def test_who_may_only_read_sees_the_difference_and_that_it_is_not_checked(
        self, run: Run, server: FakeServer
    ) -> None:
        denied = Failure(grpc.StatusCode.PERMISSION_DENIED, "ada has no routes.write in a/*/c", "FORBIDDEN")
        server.fail("Commit", denied, denied)
        done = run("apply", "-f", "routes.yaml", "--dry-run", "--exit-code")
        assert (done.exit_code, len(done.stdout.splitlines())) == (10, 2)
        assert done.stderr.splitlines() == [
            "not checked by the server: ada has no routes.write in a/*/c",
            "to do: create 1, change 1, delete 0",
        ]
        document = json.loads(run("apply", "-f", "routes.yaml", "--dry-run", "--json").stdout)
        assert (document["change_sets"], len(document["differences"])) == (None, 2)

    def test_with_json_the_keys_are_in_the_document(
        self, run: Run, server: FakeServer, meanwhile: Meanwhile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(change_set, "MOST_MUTATIONS", 2)
        families(6)
        meanwhile(lambda: server.add("p/s2/r/v1", "https://theirs.internal"))
        done = run("apply", "-f", "routes.yaml", "--json")
        error = json.loads(done.stderr)["error"]
        assert (error["reason"], error["message"]) == (
            "ROUTE_EXISTS",
            "routes.yaml:4: p/s2/r/v1: route exists (ROUTE_EXISTS)",
        )
        assert error["violations"] == [{"field": "p/s2/r/v1", "description": "ROUTE_EXISTS: route exists"}]
        assert error["notes"][-1] == "1 of 3 change sets are made (5 to 5), nothing of this one is: run it again"

    def test_again_goes_on_where_it_failed(self, run: Run, server: FakeServer) -> None:
        server.fail("Commit", Failure(grpc.StatusCode.PERMISSION_DENIED, "may not", "FORBIDDEN"))
        first = run("apply", "-f", "routes.yaml")
        assert (first.exit_code, first.stderr.splitlines()[0]) == (6, "error: may not (request 4bf92f35)")
        assert "nothing is changed" in first.stderr
        assert run("apply", "-f", "routes.yaml").exit_code == 0
        assert run("apply", "-f", "routes.yaml", "--dry-run", "--exit-code").exit_code == 0
