"""who: the readers of a key."""

import json
from datetime import timedelta

import pytest

from pointsman.cli.commands.who import window_text
from tests.support.fake_route_service import T0, FakeServer
from tests.unit.client.conftest import Run

KEY = "a/b/c/v1"


@pytest.fixture(autouse=True)
def _window(server: FakeServer) -> None:
    server.usage.window.seconds = 3600
    server.usage.all_servers = True


def read(server: FakeServer, subject: str, count: int) -> None:
    server.usage.readers.add(subject=subject, read_count=count).last_read_time.seconds = T0


def test_is_a_table_of_those_who_read_last_first(run: Run, server: FakeServer) -> None:
    read(server, "cart", 1200)
    read(server, "a \x1b[2J", 3)
    done = run("who", KEY)
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["READER", "READS", "LAST", "READ"],
        ["cart", "~1200", "2023-11-14", "22:13:20Z"],
        ["a", "\\x1b[2J", "~3", "2023-11-14", "22:13:20Z"],
    ]
    assert done.stderr == "reads of the last 1 h, as far as servers have counted them\n"


def test_nobody_is_said_in_words(run: Run) -> None:
    done = run("who", KEY)
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", f"nobody has read {KEY} in the last 1 h\n")


def test_without_redis_it_says_so(run: Run, server: FakeServer) -> None:
    server.usage.all_servers = False
    assert "without Redis" in run("who", KEY).stderr


def test_json_has_all_of_it(run: Run, server: FakeServer) -> None:
    read(server, "cart", 12)
    assert json.loads(run("who", KEY, "--json").stdout) == {
        "key": KEY,
        "readers": [{"subject": "cart", "read_count": 12, "last_read_time": "2023-11-14T22:13:20+00:00"}],
        "window_seconds": 3600.0,
        "all_servers": True,
    }


@pytest.mark.parametrize(
    ("seconds", "text"), [(86400, "1 d"), (5400, "90 min"), (90, "90 s"), (0, "0 s"), (0.4, "0 s"), (7200, "2 h")]
)
def test_a_window_is_told_in_a_unit_that_fits(seconds: float, text: str) -> None:
    assert window_text(timedelta(seconds=seconds)) == text
