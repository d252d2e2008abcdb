"""propagation: --wait waits for those who watch, and names those who are behind."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
import typer

from pointsman import Propagation, Unavailable, WatcherProgress
from pointsman.cli.propagation import duration, wait_for
from pointsman.v1.propagation_pb2 import GetPropagationResponse
from tests.support.fake_route_service import T0, Failure, FakeServer
from tests.support.waiting import eventually
from tests.unit.client.conftest import Run

KEY, URL = "a/b/c/v1", "https://x.internal"
BEHIND = WatcherProgress("w" * 16, "cart@h1", "ipv4:10.0.0.1:4711", "cart", 0, datetime.fromtimestamp(T0, UTC))
NOT_YET = Propagation(2, 1, (BEHIND,), all_servers=True)
ALL = Propagation(2, 2, (), all_servers=True)


def response(applied: int, watchers: int = 2, *, all_servers: bool = True) -> GetPropagationResponse:
    made = GetPropagationResponse(watcher_count=watchers, applied_count=applied, all_servers=all_servers)
    if applied < watchers:
        watcher = made.behind.add(watcher_id=BEHIND.watcher_id, name="cart@h1", address=BEHIND.address, subject="cart")
        watcher.watch_time.seconds = T0
    return made


class TestDuration:
    @pytest.mark.parametrize(
        ("text", "seconds"),
        [("", None), ("5s", 5), ("5", 5), ("1.5s", 1.5), ("500ms", 0.5), ("2m", 120), ("3600s", 3600), ("1h", 3600)],
    )
    def test_reads_what_people_write(self, text: str, seconds: float | None) -> None:
        assert duration(text) == seconds

    @pytest.mark.parametrize("text", ["0", "0s", "-1s", "soon", "1e3s", "5 s", "s", "3601s", "2h", "\u0665s", "inf"])
    def test_refuses_the_rest(self, text: str) -> None:
        with pytest.raises(typer.BadParameter):
            duration(text)


class Clock:
    """A time that passes by sleep alone."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class TestWaitFor:
    def asked(self, *answers: Propagation | Exception, seconds: float = 0.3) -> tuple[Propagation, list[float]]:
        """Return the outcome of a wait whose last answer comes again and again, and what was left each time."""
        given: Iterator[Propagation | Exception] = iter(answers)
        left: list[float] = []
        answer = answers[0]

        def ask(revision: int, seconds_left: float) -> Propagation:
            nonlocal answer
            left.append(seconds_left)
            answer = next(given, answer)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return wait_for(7, seconds, ask, [].append), left

    def test_ends_with_the_last_watcher(self) -> None:
        begun = time.monotonic()
        found, left = self.asked(NOT_YET, NOT_YET, ALL, seconds=60)
        assert (found, len(left)) == (ALL, 3)
        assert left == sorted(left, reverse=True)
        assert time.monotonic() - begun < 30

    def test_ends_with_the_time_and_says_who_is_behind(self) -> None:
        begun = time.monotonic()
        found, left = self.asked(NOT_YET)
        assert found == NOT_YET
        assert time.monotonic() - begun >= 0.3
        assert len(left) >= 3

    def test_asks_once_more_when_the_time_is_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("pointsman.cli.propagation.time", Clock())
        found, left = self.asked(NOT_YET, ALL, seconds=0.02)
        assert (found, len(left)) == (ALL, 2)
        assert left[-1] > 0

    def test_a_server_that_is_away_is_asked_again(self) -> None:
        found, _ = self.asked(Unavailable("away"), ALL, seconds=60)
        assert found == ALL

    def test_what_was_known_before_the_server_went_away_is_the_answer(self) -> None:
        found, _ = self.asked(NOT_YET, Unavailable("away"))
        assert found == NOT_YET

    def test_without_an_answer_the_error_is_it(self) -> None:
        with pytest.raises(Unavailable):
            self.asked(Unavailable("away"))


def test_a_change_says_that_everyone_has_it(run: Run, server: FakeServer) -> None:
    server.propagation = [response(1), response(2)]
    done = run("create", KEY, URL, "--wait")
    created, told = done.stdout.splitlines()
    assert (done.exit_code, done.stderr) == (0, "")
    assert created == f"created {KEY} at revision 1: {URL} active"
    assert told.startswith("2 of 2 watchers have revision 1 after 0.")


def test_it_asks_about_those_who_watch_the_key(run: Run, server: FakeServer) -> None:
    server.add(KEY, URL)
    server.add("a/b/c/v2", URL, active=False)
    run("activate", "a/b/c/v2", "--exclusive", "--wait=1s")
    asked = server.called("GetPropagation")[0].request
    assert (asked.revision, asked.tenant, asked.service, asked.env) == (4, "a", "b", "c")


def test_without_it_nobody_is_asked(run: Run, server: FakeServer) -> None:
    run("create", KEY, URL)
    assert server.methods() == ["Create"]


def test_who_is_behind_is_named_with_exit_code_5(run: Run, server: FakeServer) -> None:
    server.propagation = [response(1)]
    done = run("create", KEY, URL, "--wait=100ms")
    assert done.exit_code == 5
    assert done.stdout.startswith("created ")
    first, watcher = done.stderr.splitlines()
    assert first.startswith("only 1 of 2 watchers have revision 1 after 0.")
    assert watcher == "  cart@h1 (ipv4:10.0.0.1:4711, as cart): at revision 0, watches since 2023-11-14 22:13:20Z"


def test_a_terminal_shows_how_many_have_it(run: Run, server: FakeServer) -> None:
    server.propagation = [response(1)]
    done = run("--color", "always", "create", KEY, URL, "--wait=300ms")
    assert "revision 1" in done.stderr
    assert "1/2" in done.stderr


def test_json_says_the_same_in_one_document(run: Run, server: FakeServer) -> None:
    server.propagation = [response(1)]
    done = run("create", KEY, URL, "--wait=100ms", "--json")
    document = json.loads(done.stdout)
    assert (done.exit_code, done.stderr, document["revision"]) == (5, "", 1)
    told = document["propagation"]
    assert (told["complete"], told["applied_count"], told["watcher_count"], told["revision"]) == (False, 1, 2, 1)
    assert told["behind"][0]["name"] == "cart@h1"
    assert "propagation" not in json.loads(run("deactivate", KEY, "--json").stdout)


def test_those_who_are_not_listed_are_counted(run: Run, server: FakeServer) -> None:
    server.propagation = [response(1, 104)]
    assert run("create", KEY, URL, "--wait=100ms").stderr.splitlines()[-1] == "  and 102 more"


def test_without_redis_it_says_so(run: Run, server: FakeServer) -> None:
    server.propagation = [response(2, all_servers=False)]
    done = run("create", KEY, URL, "--wait")
    assert done.exit_code == 0
    assert "without Redis only the watchers of the server that answered are known" in done.stderr


def test_without_watchers_there_is_nothing_to_wait_for(run: Run) -> None:
    done = run("create", KEY, URL, "--wait")
    assert (done.exit_code, done.stdout.splitlines()[1]) == (0, "nobody watches: there is nobody to wait for")


def test_a_time_that_cannot_be_is_refused_before_the_change(run: Run, server: FakeServer) -> None:
    done = run("create", KEY, URL, "--wait=soon")
    assert done.exit_code == 2
    assert "such as 5s" in done.stderr
    assert server.calls == []


@pytest.mark.parametrize("json_option", [(), ("--json",)])
def test_a_change_that_is_made_is_told_even_if_nobody_can_say_who_has_it(
    run: Run, server: FakeServer, json_option: tuple[str, ...]
) -> None:
    server.fail("GetPropagation", Failure(grpc.StatusCode.PERMISSION_DENIED, "not permitted", "FORBIDDEN"))
    done = run("create", KEY, URL, "--wait", *json_option)
    assert done.exit_code == 6
    assert f"{KEY}" in done.stdout
    assert "the change is made, at revision 1" in done.stderr
    if json_option:
        assert json.loads(done.stdout)["propagation"] is None


def test_ctrl_c_ends_the_wait_and_tells_of_the_change(server: FakeServer) -> None:
    server.propagation = [response(1)]
    command = [sys.executable, "-m", "pointsman.cli", "--server", server.target, "create", KEY, URL, "--wait=60s"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert eventually(lambda: server.called("GetPropagation"))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    # To a shell both are 130: CPython ends by the signal itself if it met the text that makes a dataclass.
    assert process.returncode in {130, -signal.SIGINT}
    assert out.startswith(f"created {KEY} at revision 1")
    assert err.split("\n")[0] == "the change is made, at revision 1; who has it is not known"
    assert "Traceback" not in err


class TestManyRoutes:
    @pytest.fixture
    def file(self, tmp_path: Path) -> str:
        path = tmp_path / "routes.yaml"
        path.write_text(f"routes: [{{key: {KEY}, url: {URL}}}, {{key: a/b/c/v2, url: {URL}}}]")
        return str(path)

    def test_apply_waits_for_its_last_change(self, run: Run, server: FakeServer, file: str) -> None:
        server.propagation = [response(1), response(2)]
        done = run("apply", "-f", file, "--wait", "--json")
        document = json.loads(done.stdout)
        assert (done.exit_code, document["summary"]["create"], document["propagation"]["revision"]) == (0, 2, 2)
        assert server.called("GetPropagation")[0].request.tenant == "a"

    def test_apply_without_a_difference_has_nothing_to_wait_for(self, run: Run, server: FakeServer, file: str) -> None:
        run("apply", "-f", file)
        server.calls.clear()
        assert run("apply", "-f", file, "--wait").exit_code == 0
        assert not server.called("GetPropagation")

    def test_apply_does_not_wait_for_what_it_does_not_do(self, run: Run, server: FakeServer, file: str) -> None:
        assert run("apply", "-f", file, "--dry-run", "--wait").exit_code == 2
        assert server.calls == []

    def test_import_waits_too(self, run: Run, server: FakeServer, file: str) -> None:
        server.propagation = [response(1)]
        done = run("import", file, "--wait=100ms")
        assert done.exit_code == 5
        assert done.stdout == "2 rows: 2 created, 0 updated, 0 unchanged, 0 failed\n"
        assert "only 1 of 2 watchers have revision 2" in done.stderr

    def test_a_row_that_failed_counts_more_than_a_watcher_that_is_behind(
        self, run: Run, server: FakeServer, file: str
    ) -> None:
        server.propagation = [response(1)]
        server.refused_urls = {"https://bad.internal"}
        Path(file).write_text(f"routes: [{{key: {KEY}, url: {URL}}}, {{key: a/b/c/v2, url: https://bad.internal}}]")
        assert run("import", file, "--wait=100ms").exit_code == 1
