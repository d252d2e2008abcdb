"""watch: changes for people and as JSON lines, through outages, until somebody has seen enough."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import grpc
import pytest
import typer

from pointsman.cli.commands.watch import position_of, token_text
from pointsman.near_cache.watch.protocol import Position
from tests.support.fake_route_service import Failure, FakeServer
from tests.unit.client.conftest import Run

KEY, URL = "a/b/c/v1", "https://x.internal"
AWAY = Failure(grpc.StatusCode.UNAVAILABLE, "draining")
DENIED = Failure(grpc.StatusCode.PERMISSION_DENIED, "not permitted", "FORBIDDEN")
SECONDS = 30


class Watching:
    """A ``pointsman watch`` of its own process."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.out: IO[str] = process.stdout  # type: ignore[assignment]
        self.err: IO[str] = process.stderr  # type: ignore[assignment]

    def line(self) -> str:
        return self.out.readline()

    def event(self, kind: str) -> Any:
        """Return the next JSON line of a kind."""
        for line in self.out:
            document = json.loads(line)
            if document["event"] == kind:
                return document
        raise AssertionError(self.err.read())

    def ended(self) -> tuple[int, str]:
        return self.process.wait(SECONDS), self.err.read()


@contextmanager
def watching(server: FakeServer, *arguments: str) -> Iterator[Watching]:
    process = subprocess.Popen(
        [sys.executable, "-m", "pointsman.cli", "--server", server.target, "watch", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
    )
    try:
        yield Watching(process)
    finally:
        process.kill()
        process.wait(SECONDS)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def test_people_read_how_many_routes_there_are_and_then_each_change(run: Run, server: FakeServer) -> None:
    server.add(KEY, URL)
    with watching(server, "--tenant", "a") as shown:
        assert shown.line() == "1 route as of revision 1\n"
        run("update", KEY, "--url", "https://new.internal", "--reason", "move \x1b[2J")
        assert shown.line() == (
            f"2023-11-14 22:13:22Z  2  ada  UPDATED  {KEY}  url: {URL} → https://new.internal  (move \\x1b[2J)\n"
        )
        run("delete", KEY)
        assert shown.line().split("  ")[1:5] == ["3", "ada", "DELETED", KEY]


def test_traffic_is_shown_as_routes_are(run: Run, server: FakeServer) -> None:
    server.add(KEY, URL)
    server.divide("a/b/c", {"d": 10_000})
    with watching(server) as shown:
        assert shown.line() == "1 route, traffic of 1 service, as of revision 2\n"
        run("create", "a/b/c/e", URL)
        assert shown.line().split("  ")[3] == "CREATED"
        server.divide("a/b/c", {"d": 7500, "e": 2500})
        assert shown.line() == ("2023-11-14 22:13:24Z  4  ada  TRAFFIC_SET  a/b/c  traffic: d=100% → d=75% e=25%\n")
    with watching(server, "--json") as shown:
        [traffic] = shown.event("snapshot")["traffic"]
        assert traffic["targets"] == [{"version": "d", "weight": 7500}, {"version": "e", "weight": 2500}]


def test_json_lines_are_events_with_where_to_go_on(run: Run, server: FakeServer) -> None:
    server.add(KEY, URL, labels={"tier": "gold"})
    with watching(server, "--json") as shown:
        snapshot = shown.event("snapshot")
        assert (snapshot["route_count"], snapshot["resume"]) == (1, "1/epoch-1")
        assert snapshot["routes"][0]["labels"] == {"tier": "gold"}
        assert shown.event("checkpoint")["age_seconds"] < 60
        run("deactivate", KEY)
        changes = shown.event("changes")
    assert [(change["kind"], change["revision"]) for change in changes["changes"]] == [("DEACTIVATED", 2)]

    run("activate", KEY)
    with watching(server, "--json", "--from", changes["resume"]) as shown:
        assert shown.event("changes")["changes"][0]["kind"] == "ACTIVATED"


def test_an_older_server_shows_routes_alone(server: FakeServer) -> None:
    server.add(KEY, URL)
    server.divide("a/b/c", {"v1": 10_000})
    server.knows_traffic = False
    with watching(server, "--json") as shown:
        snapshot = shown.event("snapshot")
        assert (len(snapshot["routes"]), snapshot["traffic"]) == (1, None)


def test_goes_on_by_itself_and_says_so_on_stderr(server: FakeServer) -> None:
    with watching(server) as shown:
        assert shown.line() == "0 routes as of revision 0\n"
        server.fail("Watch", AWAY, AWAY)
        server.end_streams(AWAY)
        assert shown.err.readline() == ("interrupted: draining: going on after revision 0 once the server answers\n")
        assert shown.err.readline().startswith("going on after ")
        server.add(KEY, URL)
        assert "CREATED" in shown.line()


def test_an_outage_is_a_document_on_stderr_with_json(server: FakeServer) -> None:
    with watching(server, "--json") as shown:
        shown.event("checkpoint")
        server.end_streams(AWAY)
        told = json.loads(shown.err.readline())["interrupted"]
        assert (told["code"], told["resume"]) == ("UNAVAILABLE", "0/epoch-1")


def test_what_is_not_kept_any_more_is_said_to_be_missing(run: Run, server: FakeServer) -> None:
    server.add(KEY, URL)
    server.compacted = 1
    with watching(server, "--from", "0/epoch-1") as shown:
        assert shown.line() == "1 route as of revision 1\n"
        notes = [shown.err.readline().strip() for _ in range(3)]
    assert notes[0] == "interrupted: compacted: going on with a new snapshot once the server answers"
    assert notes[1].startswith("going on after ")
    assert notes[2] == "some changes after revision 0 are not shown: they are not kept any more"


def test_ctrl_c_is_a_good_end(server: FakeServer) -> None:
    with watching(server) as shown:
        shown.line()
        shown.process.send_signal(signal.SIGINT)
        assert shown.ended() == (0, "")


def test_a_reader_that_has_read_enough_ends_it_without_a_word_and_without_a_change(server: FakeServer) -> None:
    with watching(server) as shown:
        shown.line()
        shown.out.close()
        assert shown.ended() == (0, "")


def test_a_disk_that_is_full_is_an_error(server: FakeServer) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "pointsman.cli", "--server", server.target, "watch"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    assert done.returncode == 1
    assert "the output cannot be written" in done.stderr


@pytest.mark.parametrize(("failure", "code"), [(AWAY, 5), (DENIED, 6)])
def test_what_cannot_begin_ends_as_any_command(run: Run, server: FakeServer, failure: Failure, code: int) -> None:
    server.fail("Watch", failure)
    done = run("watch")
    assert (done.exit_code, done.stdout) == (code, "")
    assert done.stderr.startswith(f"error: {failure.message}")


@pytest.mark.parametrize("text", ["7", "7/", "/epoch-1", "x/epoch-1", f"{2**63}/epoch-1", "7/" + "e" * 37])
def test_a_token_that_is_none_is_refused(run: Run, server: FakeServer, text: str) -> None:
    with pytest.raises(typer.BadParameter):
        position_of(text)
    assert run("watch", "--from", text).exit_code == 2
    assert server.calls == []


def test_a_token_is_read_as_it_is_written() -> None:
    position = Position("7e0c2a14-93bd-4f6e-8d51-2b9f6c0a4e17", 2**63 - 1)
    assert position_of(str(token_text(position))) == position
    assert token_text(None) is None
