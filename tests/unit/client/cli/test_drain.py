"""drain: no more calls by the traffic, then nobody who reads, then it goes; and where it stands if that fails."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
import typer

from pointsman import Client, FailedPrecondition, RevisionMismatch, UsageNotCounted
from pointsman.cli.drain import Drain, Draining, Quiet
from pointsman.cli.output.terminal import Color, Terminal
from pointsman.keys import RouteKey
from pointsman.v1.usage_pb2 import GetUsageResponse
from pointsman.watchers import Reader, Usage
from tests.support.fake_route_service import Failure, FakeServer
from tests.support.waiting import eventually
from tests.unit.client.conftest import Run

URL = "https://x.internal"
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
GONE = Failure(grpc.StatusCode.UNAVAILABLE, "gone", trailers=(("grpc-retry-pushback-ms", "-1"),))


def usage(*readers: tuple[str, float], window: int = 86_400) -> GetUsageResponse:
    """Return what is known of the readers; each has last read so many seconds before NOW."""
    response = GetUsageResponse(all_servers=True)
    response.window.seconds = window
    for subject, ago in readers:
        reader = response.readers.add(subject=subject, read_count=7)
        reader.last_read_time.FromDatetime(NOW - timedelta(seconds=ago))
    return response


@pytest.fixture(autouse=True)
def _routes(server: FakeServer) -> None:
    """Revisions 1 to 4: two active versions, one that is not, and traffic."""
    server.add("a/b/c/v1", URL)
    server.add("a/b/c/v2", URL)
    server.add("a/b/c/v3", URL, active=False)
    server.divide("a/b/c", {"v1": 9000, "v2": 1000}, ("v2",))
    server.usage = usage()


def division(server: FakeServer) -> tuple[dict[str, int], list[str]]:
    traffic = server.traffic["a", "b", "c"]
    return {target.version: target.weight for target in traffic.targets}, list(traffic.fallbacks)


class Time:
    """A clock that moves when somebody sleeps; ``then`` is done once so many seconds have passed."""

    def __init__(self) -> None:
        self.seconds = 100.0
        self.then: list[tuple[float, Callable[[], object]]] = []

    def clock(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.seconds - 100)

    def sleep(self, seconds: float) -> None:
        self.seconds += max(seconds, 0.01)
        for due in [each for each in self.then if self.seconds - 100 >= each[0]]:
            self.then.remove(due)
            due[1]()


class Drains:
    """Drains on the fake server, in a time of its own."""

    def __init__(self, client: Client) -> None:
        self.time = Time()
        self.client = client

    def run(self, key: str = "a/b/c/v2", *, deletes: bool = False, as_json: bool = False, **options: Any) -> None:
        def finish(span: timedelta) -> tuple[dict[str, Any], str]:
            route = self.client.deactivate(key, if_unused_for=span)
            return {"key": key}, f"deactivated {key} at revision {route.revision}"

        drain = Drain(RouteKey.parse(key), deletes, "why", **options)
        time = self.time
        terminal = Terminal(as_json, Color.NEVER)
        Draining(self.client, terminal, drain, finish, time.clock, time.sleep, time.now).run()


@pytest.fixture
def drains(client: Client) -> Drains:
    return Drains(client)


class TestCommands:
    def test_deactivate_lets_the_others_take_the_calls_first(self, run: Run, server: FakeServer) -> None:
        done = run("deactivate", "a/b/c/v2", "--drain", "--wait", "10m", "--reason", "release 2")
        assert (done.exit_code, done.stdout.splitlines()) == (
            0,
            [
                "~ a/b/c traffic: v1=90% v2=10%; fallback v2 → v1=100%; fallback v2",
                "deactivated a/b/c/v2 at revision 6: https://x.internal inactive",
            ],
        )
        assert done.stderr.splitlines() == [
            "done: change set 5",
            "waiting until nobody has read a/b/c/v2 for 60 s, up to 600 s",
        ]
        assert server.called("Deactivate")[0].request.if_unused_for.seconds == 60
        assert {change.reason for change in server.changes[4:]} == {"release 2"}

    def test_delete_takes_it_out_of_the_fallbacks_too(self, run: Run, server: FakeServer) -> None:
        done = run("delete", "a/b/c/v2", "--drain", "--if-unused-for", "2m")
        assert done.exit_code == 0
        assert done.stdout.splitlines()[-1] == "deleted a/b/c/v2 at revision 6"
        assert division(server) == ({"v1": 10_000}, [])
        assert server.called("Delete")[0].request.if_unused_for.seconds == 120

    def test_the_document_says_what_was_done(self, run: Run) -> None:
        document = json.loads(run("deactivate", "a/b/c/v2", "--drain", "--json").stdout)
        assert (document["key"], document["active"], document["drained"]) == ("a/b/c/v2", False, True)
        assert (document["traffic"]["change_set_id"], document["unused_for_seconds"]) == (5, 60)

    def test_without_drain_it_is_refused_while_somebody_reads_it(self, run: Run, server: FakeServer) -> None:
        server.usage = usage(("cart", 3))
        for command in ("deactivate", "delete"):
            done = run(command, "a/b/c/v2", "--if-unused-for", "10m")
            assert done.exit_code == 4
            assert "cart" in done.stderr
        assert len(server.changes) == 4

    def test_a_time_that_cannot_be_is_refused_before_anything_is_sent(self, run: Run, server: FakeServer) -> None:
        done = run("deactivate", "a/b/c/v2", "--drain", "--if-unused-for", "soon")
        assert (done.exit_code, server.calls) == (2, [])
        assert "--if-unused-for" in done.stderr

    def test_a_terminal_shows_for_how_long_nobody_has_read_it(self, run: Run, server: FakeServer) -> None:
        server.usage = usage(("cart", 0))
        done = run("--color", "always", "deactivate", "a/b/c/v2", "--drain", "--wait=100ms")
        assert "last read by cart" in done.stderr
        assert done.exit_code == 5

    def test_ctrl_c_says_where_it_stands_and_how_to_go_on_or_back(self, server: FakeServer) -> None:
        server.usage = usage(("cart", 0))
        command = [sys.executable, "-m", "pointsman.cli", "--server", server.target]
        process = subprocess.Popen(
            [*command, "deactivate", "a/b/c/v2", "--drain"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            assert eventually(lambda: len(server.called("GetUsage")) >= 2)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
        finally:
            process.kill()
            process.wait()
        assert process.returncode in {130, -signal.SIGINT}
        assert "Traceback" not in err
        assert (
            "a/b/c/v2 is not deactivated, but the traffic gives it no calls: run the same command again to go on\n"
            "to undo what is done: pointsman revert 5\n"
        ) in err


class TestTraffic:
    def test_the_last_version_with_calls_is_refused_and_says_what_to_do(
        self, drains: Drains, server: FakeServer
    ) -> None:
        server.divide("a/b/c", {"v2": 10_000})
        with pytest.raises(FailedPrecondition, match="v2 is the only active version with a weight") as raised:
            drains.run()
        advice = "give its calls to another one first: pointsman traffic promote a/b/c v1"
        assert raised.value.__notes__ == [advice]
        assert len(server.changes) == 5

    def test_others_that_are_not_active_do_not_count(self, drains: Drains, server: FakeServer) -> None:
        server.divide("a/b/c", {"v2": 9000, "v3": 1000})
        with pytest.raises(FailedPrecondition, match="the only active version"):
            drains.run()
        assert len(server.changes) == 5

    def test_without_traffic_the_callers_must_leave_by_themselves(
        self, drains: Drains, server: FakeServer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        server.traffic.clear()
        drains.run()
        assert "no traffic is set for a/b/c: its callers must leave v2 by themselves" in capsys.readouterr().err
        assert not server.state()["a/b/c/v2"][1]

    def test_again_it_goes_on_where_it_was(self, drains: Drains, server: FakeServer) -> None:
        server.usage = usage(("cart", 0))
        with pytest.raises(typer.Exit):
            drains.run(wait=30)
        server.usage = usage()
        drains.run(wait=30)
        assert len(server.called("Commit")) == 1
        assert not server.state()["a/b/c/v2"][1]

    def test_a_change_by_somebody_else_meanwhile_is_not_overwritten(
        self, drains: Drains, server: FakeServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        commit = drains.client.commit

        def late(*arguments: Any, **options: Any) -> Any:
            server.divide("a/b/c", {"v2": 10_000})
            return commit(*arguments, **options)

        monkeypatch.setattr(drains.client, "commit", late)
        with pytest.raises(RevisionMismatch) as raised:
            drains.run()
        assert raised.value.__notes__ == ["a/b/c/v2 is not deactivated: run the same command again to go on"]
        assert division(server) == ({"v2": 10_000}, [])


class TestWaiting:
    def test_ends_once_the_last_reader_has_been_away_for_long_enough(self, drains: Drains, server: FakeServer) -> None:
        server.usage = usage(("cart", 0), ("web", 50))
        # The fake refuses while there is a reader at all.
        drains.time.then.append((70, lambda: setattr(server, "usage", usage())))
        drains.run()
        assert 70 <= drains.time.seconds - 100 < 75
        # It was asked no earlier than the last read was a minute ago, and then only now and then.
        assert 2 <= len(server.called("Deactivate")) <= 4

    def test_a_reader_that_comes_back_begins_the_time_again(self, drains: Drains, server: FakeServer) -> None:
        server.usage = usage(("cart", 0))
        drains.time.then.append((50, lambda: setattr(server, "usage", usage(("cart", -50)))))
        drains.time.then.append((111, lambda: setattr(server, "usage", usage())))
        drains.run()
        assert drains.time.seconds - 100 >= 110
        assert len(server.called("Deactivate")) <= 2

    def test_when_the_time_is_up_it_says_who_reads(
        self, drains: Drains, server: FakeServer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        server.usage = usage(*[(f"reader-{number}", 0) for number in range(7)])
        with pytest.raises(typer.Exit) as raised:
            drains.run(wait=30)
        assert raised.value.exit_code == 5
        lines = capsys.readouterr().err.splitlines()
        told = lines[lines.index("a/b/c/v2 is still read after 30 s, by:") :]
        assert told == [
            "a/b/c/v2 is still read after 30 s, by:",
            *(f"  reader-{number}: last at 2026-01-01 12:00:00Z" for number in range(5)),
            "  and 2 more",
            "a/b/c/v2 is not deactivated, but the traffic gives it no calls: run the same command again to go on",
            "to undo what is done: pointsman revert 5",
        ]
        assert not server.called("Deactivate")
        assert server.state()["a/b/c/v2"][1]

    def test_to_a_pipe_it_writes_who_reads_and_seldom(
        self, drains: Drains, server: FakeServer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        server.usage = usage(("cart", 0))
        drains.time.then.append((10, lambda: setattr(server, "usage", usage(("web", -10)))))
        with pytest.raises(typer.Exit):
            drains.run(wait=30)
        told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("last read by")]
        assert [line.split(",")[0] for line in told] == ["last read by cart", "last read by web"]

    def test_with_json_there_is_one_document_and_exit_code_5(
        self, drains: Drains, server: FakeServer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        server.usage = usage(("cart", 0))
        with pytest.raises(typer.Exit):
            drains.run(wait=30, as_json=True)
        printed = capsys.readouterr()
        document = json.loads(printed.out)
        assert (document["key"], document["drained"], document["traffic"]["change_set_id"]) == ("a/b/c/v2", False, 5)
        assert [reader["subject"] for reader in document["usage"]["readers"]] == ["cart"]
        assert printed.err == ""

    def test_a_server_that_is_away_for_a_while_is_asked_again(self, drains: Drains, server: FakeServer) -> None:
        server.usage = usage(("cart", 0))
        drains.time.then.append((10, lambda: server.fail("GetUsage", *[GONE] * 3)))
        drains.time.then.append((40, lambda: server.fail("Deactivate", GONE)))
        drains.time.then.append((40, lambda: setattr(server, "usage", usage())))
        drains.run()
        assert not server.state()["a/b/c/v2"][1]

    def test_what_cannot_be_waited_for_is_said_at_once(self, drains: Drains, server: FakeServer) -> None:
        server.usage = usage(window=0)
        with pytest.raises(UsageNotCounted, match="servers do not count reads"):
            drains.run()
        server.usage = usage(window=30)
        with pytest.raises(typer.BadParameter, match="for the last 30 s only"):
            drains.run()
        assert len(server.changes) == 4

    def test_a_time_that_no_server_accepts_is_refused_before_anything_is_sent(
        self, drains: Drains, server: FakeServer
    ) -> None:
        with pytest.raises(typer.BadParameter, match="must be at least 20s"):
            drains.run(unused=19)
        assert server.calls == []


class TestQuiet:
    @pytest.mark.parametrize("hours", [-3, 0, 3])
    def test_a_clock_that_differs_from_that_of_the_servers_ends_no_wait_for_ever(self, hours: int) -> None:
        time = Time()
        quiet = Quiet(time.clock, lambda: time.now() + timedelta(hours=hours))
        found = Usage((Reader("cart", 1, NOW),), timedelta(days=1), all_servers=True)
        quiet.seconds(found)
        time.sleep(60)
        seconds = quiet.seconds(found)
        assert seconds is not None
        assert seconds >= 60

    def test_without_a_reader_there_is_no_time(self) -> None:
        time = Time()
        assert Quiet(time.clock, time.now).seconds(Usage((), timedelta(days=1), all_servers=True)) is None
