"""top: where it runs, and where its metrics are."""

import sys
from typing import Any

import pytest

from pointsman.cli.commands import top as command
from pointsman.cli.top.screen import Top
from tests.support.fake_route_service import FakeServer
from tests.unit.client.conftest import Run


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The applications that ran, each instead of a screen."""
    ran: list[Any] = []
    monkeypatch.setattr(command, "has_screen", lambda: True)
    monkeypatch.setattr(Top, "run", lambda top: ran.append(top))
    monkeypatch.delenv("POINTSMAN_METRICS_URL", raising=False)
    return ran


def metrics_url(top: Any) -> str:
    return str(top._source._metrics_url)


def test_without_a_terminal_it_says_what_else_there_is(run: Run) -> None:
    done = run("top")
    assert done.exit_code == 2
    assert "pointsman watch" in done.stderr


def test_without_textual_it_says_what_to_install(run: Run, ran: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "find_spec", {}.get)
    done = run("top")
    assert done.exit_code == 2
    assert "pip install 'pointsman[cli]'" in done.stderr
    assert ran == []


def test_metrics_are_on_this_machine_if_the_server_is(run: Run, ran: list[Any]) -> None:
    assert run("top").exit_code == 0
    assert metrics_url(ran[0]) == "http://localhost:9464/metrics"


def test_of_another_server_they_must_be_named(run: Run, ran: list[Any], server: FakeServer) -> None:
    run("--server", "far.internal:50051", "top")
    run("top", "--metrics", "http://far.internal:9464/metrics")
    run("top", env={"POINTSMAN_METRICS_URL": "http://near.internal:1/metrics"})
    urls = ["", "http://far.internal:9464/metrics", "http://near.internal:1/metrics"]
    assert list(map(metrics_url, ran)) == urls


def test_a_screen_is_a_terminal_to_read_from_and_to_draw_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for stdin, stderr in ((True, True), (True, False), (False, True)):
        monkeypatch.setattr(sys.stdin, "isatty", lambda answer=stdin: answer, raising=False)
        monkeypatch.setattr(sys.stderr, "isatty", lambda answer=stderr: answer, raising=False)
        assert command.has_screen() is (stdin and stderr)
