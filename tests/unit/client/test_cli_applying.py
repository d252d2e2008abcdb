"""cli.applying: make the routes be what a file says."""

import json
from pathlib import Path

import grpc
import pytest

from .conftest import Run
from .fake_server import Failure, FakeServer

FILE = """
routes:
  - {key: a/b/c/v1, url: "https://one.internal"}
  - key: a/b/c/v2
    url: https://two.internal
    active: false
    labels: {tier: gold}
"""


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
        monkeypatch.setattr("pointsman.cli.applying.can_ask", lambda: True)
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


def test_a_change_by_somebody_else_in_between_is_not_overwritten(run: Run, server: FakeServer) -> None:
    details = {"expected_revision": "1", "revision": "9"}
    server.fail("Update", Failure(grpc.StatusCode.ABORTED, "another revision", "REVISION_MISMATCH", details))
    done = run("apply", "-f", "routes.yaml")
    assert done.exit_code == 4
    assert "update a/b/c/v1 failed, 1 of 2 steps are done: run it again" in done.stderr
    assert server.called("Update")[0].request.expected_revision == 1
