"""``pointsman traffic``: set, shift, promote, delete."""

import json
from collections.abc import Callable

import pytest

from tests.support.fake_route_service import FakeServer
from tests.unit.client.conftest import Run

URL = "https://x.internal"
KEY = "a/b/c"


@pytest.fixture(autouse=True)
def _versions(server: FakeServer) -> None:
    server.add(f"{KEY}/v1", URL)
    server.add(f"{KEY}/v2", URL, active=False)
    server.add(f"{KEY}/v3", URL, active=False)


def division(server: FakeServer) -> tuple[dict[str, int], list[str]]:
    traffic = server.traffic["a", "b", "c"]
    return {target.version: target.weight for target in traffic.targets}, list(traffic.fallbacks)


class TestSet:
    def test_says_what_was_and_what_is(self, run: Run, server: FakeServer) -> None:
        done = run("traffic", "set", KEY, "v1=87.5", "v3=12.5%", "--fallback", "v2", "--reason", "canary")
        assert done.exit_code == 0
        assert done.stdout == "+ a/b/c traffic: v1=87.5% v3=12.5%; fallback v2\n"
        assert division(server) == ({"v1": 8750, "v3": 1250}, ["v2"])
        assert server.changes[-1].reason == "canary"
        done = run("traffic", "set", KEY, "v1=100")
        assert done.stdout == "~ a/b/c traffic: v1=87.5% v3=12.5%; fallback v2 → v1=100%\n"
        assert done.stderr == "done: change set 5\n"

    def test_what_is_so_already_is_no_change(self, run: Run) -> None:
        run("traffic", "set", KEY, "v1=100")
        done = run("traffic", "set", KEY, "v1=100")
        assert (done.exit_code, done.stdout, done.stderr) == (0, "", "nothing to do: all is so already\n")

    @pytest.mark.parametrize(
        ("shares", "message"),
        [
            (("v1=90", "v2=5"), "v1=90% v2=5% add up to 95%, and must add up to 100%"),
            (("v1=90", "v2"), "'v2' must be VERSION=PERCENT"),
            (("v1=50", "v1=50"), "v1 is given twice"),
            (("v1=100", "--fallback", "-"), "the version '-'"),
        ],
    )
    def test_shares_that_cannot_be_are_refused_before_anything_is_sent(
        self, run: Run, server: FakeServer, shares: tuple[str, ...], message: str
    ) -> None:
        done = run("traffic", "set", KEY, *shares)
        assert done.exit_code == 2
        assert message in done.stderr
        assert server.calls == []

    def test_a_version_without_a_route_is_refused(self, run: Run, server: FakeServer) -> None:
        done = run("traffic", "set", KEY, "v1=90", "v9=10")
        assert done.exit_code == 4
        assert done.stderr.splitlines()[0] == "error: a/b/c has no version v9: create it first (request 4bf92f35)"
        assert server.traffic == {}

    def test_a_share_of_what_is_not_active_is_warned_of(self, run: Run) -> None:
        done = run("traffic", "set", KEY, "v1=90", "v2=10")
        assert done.stderr.splitlines()[-1] == (
            "warning: v2 is not active: the others get those calls, until you run pointsman activate a/b/c/v2"
        )


class TestShift:
    def test_fallbacks_stay(self, run: Run, server: FakeServer) -> None:
        server.divide(KEY, {"v1": 10_000}, ("v3",))
        done = run("traffic", "shift", KEY, "v1=90", "v2=10")
        assert done.stdout == "~ a/b/c traffic: v1=100%; fallback v3 → v1=90% v2=10%; fallback v3\n"
        assert division(server) == ({"v1": 9000, "v2": 1000}, ["v3"])

    def test_the_others_divide_the_rest(self, run: Run, server: FakeServer) -> None:
        server.divide(KEY, {"v1": 7500, "v2": 2500})
        run("traffic", "shift", KEY, "v3=20")
        assert division(server)[0] == {"v1": 6000, "v2": 2000, "v3": 2000}

    def test_without_traffic_the_only_active_version_has_had_everything(self, run: Run, server: FakeServer) -> None:
        done = run("traffic", "shift", KEY, "v2=10")
        assert done.stdout == "+ a/b/c traffic: v1=90% v2=10%\n"
        assert division(server)[0] == {"v1": 9000, "v2": 1000}

    def test_what_nobody_can_take_is_refused(self, run: Run, server: FakeServer) -> None:
        server.divide(KEY, {"v1": 10_000})
        done = run("traffic", "shift", KEY, "v1=90")
        assert done.exit_code == 2
        assert "no other version has a weight to take the rest: make them add up to 100%" in done.stderr
        assert division(server)[0] == {"v1": 10_000}

    def test_traffic_that_somebody_else_changes_meanwhile_is_not_overwritten(
        self, run: Run, server: FakeServer, meanwhile: "Meanwhile"
    ) -> None:
        server.divide(KEY, {"v1": 10_000})
        meanwhile(lambda: server.divide(KEY, {"v3": 10_000}))
        done = run("traffic", "shift", KEY, "v2=10")
        assert done.exit_code == 4
        assert division(server)[0] == {"v3": 10_000}

    def test_only_at_the_revision_that_is_expected(self, run: Run, server: FakeServer) -> None:
        server.divide(KEY, {"v1": 10_000})
        assert run("traffic", "shift", KEY, "v2=10", "--expected-revision", "3").exit_code == 4
        assert run("traffic", "shift", KEY, "v2=10", "--expected-revision", "4").exit_code == 0


class TestPromote:
    def test_activates_it_and_gives_it_everything_as_one_change_set(self, run: Run, server: FakeServer) -> None:
        server.divide(KEY, {"v1": 9000, "v2": 1000}, ("v1",))
        done = run("traffic", "promote", KEY, "v2", "--reason", "release 2")
        assert sorted(done.stdout.splitlines()) == [
            "~ a/b/c traffic: v1=90% v2=10%; fallback v1 → v2=100%; fallback v1",
            "~ a/b/c/v2 inactive → active",
        ]
        assert done.stderr == "done: change set 5\n"
        assert {change.change_set_id for change in server.changes[4:]} == {5}
        assert division(server) == ({"v2": 10_000}, ["v1"])

    def test_what_is_active_needs_no_second_change(self, run: Run, server: FakeServer) -> None:
        assert run("traffic", "promote", KEY, "v1").exit_code == 0
        assert len(server.changes) == 4

    def test_a_version_that_is_not_there_is_not_found(self, run: Run, server: FakeServer) -> None:
        assert run("traffic", "promote", KEY, "v9").exit_code == 3
        assert run("traffic", "promote", KEY, "-").exit_code == 2
        assert len(server.changes) == 3


class TestDelete:
    def test_the_only_active_version_needs_no_question(self, run: Run, server: FakeServer) -> None:
        server.divide(KEY, {"v1": 10_000})
        done = run("traffic", "delete", KEY)
        assert (done.exit_code, done.stdout) == (0, "- a/b/c traffic: v1=100% → (not set)\n")
        assert server.traffic == {}

    def test_of_several_active_versions_it_wants_to_be_sure(self, run: Run, server: FakeServer) -> None:
        server.divide(KEY, {"v1": 10_000})
        server.add(f"{KEY}/v4", URL)
        done = run("traffic", "delete", KEY)
        assert done.exit_code == 2
        assert "v1, v4 are active, so no Select would be answered" in done.stderr
        assert server.traffic
        assert run("traffic", "delete", KEY, "--dry-run").exit_code == 0
        assert run("traffic", "delete", KEY, "--yes").exit_code == 0
        assert server.traffic == {}

    def test_where_none_is_set_there_is_none(self, run: Run) -> None:
        assert run("traffic", "delete", KEY).exit_code == 3


COMMANDS = [("set", "v1=90", "v3=10"), ("shift", "v1=90", "v3=10"), ("promote", "v3"), ("delete",)]


@pytest.fixture
def divided(server: FakeServer) -> None:
    server.divide(KEY, {"v1": 10_000})


@pytest.mark.usefixtures("divided")
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
class TestEach:
    def test_a_dry_run_shows_it_and_changes_nothing(
        self, run: Run, server: FakeServer, command: tuple[str, ...]
    ) -> None:
        name, *shares = command
        done = run("traffic", name, KEY, *shares, "--dry-run")
        assert done.exit_code == 0
        assert "a/b/c traffic: v1=100% → " in done.stdout
        assert done.stderr.splitlines()[0] == "nothing is changed: this is what would be done"
        assert len(server.changes) == 4

    def test_takes_a_reason_and_is_safe_to_repeat(self, run: Run, server: FakeServer, command: tuple[str, ...]) -> None:
        name, *shares = command
        assert run("traffic", name, KEY, *shares, "--reason", "why").exit_code == 0
        made = server.changes[4:]
        assert {change.reason for change in made} == {"why"}
        assert run("traffic", name, KEY, *shares).exit_code == (3 if name == "delete" else 0)
        assert server.changes[4:] == made

    def test_the_document_has_the_changes(self, run: Run, server: FakeServer, command: tuple[str, ...]) -> None:
        name, *shares = command
        document = json.loads(run("traffic", name, KEY, *shares, "--json").stdout)
        assert (document["key"], document["dry_run"], document["change_set_id"]) == (KEY, False, 5)
        assert document["revision"] == len(server.changes)
        assert document["changes"][-1]["traffic_before"]["targets"] == [{"version": "v1", "weight": 10_000}]

    def test_waits_for_those_who_watch_it(self, run: Run, server: FakeServer, command: tuple[str, ...]) -> None:
        name, *shares = command
        done = run("traffic", name, KEY, *shares, "--wait")
        assert done.exit_code == 0
        asked = server.called("GetPropagation")[0].request
        assert (asked.revision, asked.tenant, asked.service, asked.env) == (len(server.changes), "a", "b", "c")
        assert run("traffic", name, KEY, *shares, "--wait", "--dry-run").exit_code == 2

    def test_a_key_of_another_form_is_a_usage_error(
        self, run: Run, server: FakeServer, command: tuple[str, ...]
    ) -> None:
        name, *shares = command
        assert run("traffic", name, "a/b/c/v1", *shares).exit_code == 2
        assert server.calls == []


Meanwhile = Callable[[Callable[[], object]], None]


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    """Let somebody else do something between what is read and what is written."""

    def arrange(do: Callable[[], object]) -> None:
        from pointsman.cli.commands.traffic import write

        family_of = write.family_of

        def read(*arguments: object) -> object:
            found = family_of(*arguments)  # type: ignore[arg-type]
            do()
            return found

        monkeypatch.setattr(write, "family_of", read)

    return arrange
