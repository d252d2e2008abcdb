"""sources: the metrics and the stream, each without the other."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import pytest

from pointsman import Change, ChangeKind, Client, Propagation
from pointsman.cli.top.board import CHANGES, HISTORY, METRICS, WATCHERS, Missing, Table
from pointsman.cli.top.exposition import Reading
from pointsman.cli.top.sources import Sources, Wanted, fetched
from tests.support.fake_route_service import Failure, FakeServer

KEY, URL = "a/b/c/v1", "https://x.internal"
SECONDS = 20
DENIED = Failure(grpc.StatusCode.PERMISSION_DENIED, "not permitted", "FORBIDDEN")
OLDER = Failure(grpc.StatusCode.UNIMPLEMENTED, "no such method")


@contextmanager
def exposed(text: str, status: int = 200) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *arguments: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/metrics"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def _direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


class News:
    """What the sources of a test have said."""

    def __init__(self) -> None:
        self.news: queue.Queue[Any] = queue.Queue()

    def until(self, wanted: Callable[[Any], object]) -> Any:
        end = time.monotonic() + SECONDS
        seen = []
        while True:
            try:
                seen.append(self.news.get(timeout=end - time.monotonic()))
            except (queue.Empty, ValueError):
                raise AssertionError(f"only {seen} came") from None
            if wanted(seen[-1]):
                return seen[-1]

    def of(self, kind: type[Any]) -> Any:
        return self.until(lambda news: isinstance(news, kind))

    def missing(self, source: str) -> str:
        return str(self.until(lambda news: isinstance(news, Missing) and news.source == source and news.why).why)

    def change(self) -> Change:
        found: Change = self.until(lambda news: isinstance(news, tuple) and news)[-1]
        return found


@contextmanager
def sourced(client: Client, url: str = "", **wanted: Any) -> Iterator[News]:
    news = News()
    sources = Sources(client, url, Wanted(**{"interval": 0.05, **wanted}))
    sources.start(news.news.put)
    try:
        yield news
    finally:
        sources.stop()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("pointsman-")]


def test_metrics_are_read_again_and_again(client: Client) -> None:
    with exposed("calls 7\n") as url, sourced(client, url) as news:
        first, second = news.of(Reading), news.of(Reading)
    assert first.total("calls") == 7
    assert second.at > first.at


def test_without_metrics_the_rest_goes_on(client: Client, server: FakeServer) -> None:
    server.add(KEY, URL)
    with sourced(client) as news:
        assert "--metrics" in news.missing(METRICS)
        assert news.change().revision == 1
        assert news.of(Propagation).complete
        server.add("a/b/c/v2", URL)
        assert news.change().revision == 2


def test_changes_of_traffic_are_shown_as_they_are_made(client: Client, server: FakeServer) -> None:
    server.add(KEY, URL)
    with sourced(client) as news:
        assert news.change().revision == 1
        server.divide("a/b/c", {"v1": 10_000})
        change = news.change()
    assert (change.kind, str(change.key)) == (ChangeKind.TRAFFIC_SET, "a/b/c")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/metrics", "file:///etc/passwd", "nonsense"])
def test_metrics_that_are_not_there_are_missing(client: Client, url: str) -> None:
    with sourced(client, url) as news:
        assert url in news.missing(METRICS)


def test_an_error_of_http_is_no_reading(client: Client) -> None:
    with exposed("calls 7\n", status=503) as url, sourced(client, url) as news:
        assert "metrics" in news.missing(METRICS)
        with pytest.raises(OSError, match="503"):
            fetched(url)


def test_the_table_is_counted_and_its_age_is_known(client: Client, server: FakeServer) -> None:
    server.add(KEY, URL)
    server.add("z/b/c/v1", URL)
    with sourced(client, tenant="a") as news:
        assert news.of(Table) == Table(1, 2)
        assert news.until(lambda each: isinstance(each, Table) and each.age is not None).revision == 2
    assert {call.request.tenant for call in server.calls} == {"a"}


def test_without_watch_the_history_is_shown(client: Client, server: FakeServer) -> None:
    server.add(KEY, URL)
    server.fail("Watch", *[OLDER] * 9)
    with sourced(client) as news:
        assert "no such method" in news.missing(CHANGES)
        assert news.change().revision == 1


def test_without_the_history_the_stream_goes_on(client: Client, server: FakeServer) -> None:
    server.fail("ListChanges", *[DENIED] * 9)
    with sourced(client) as news:
        assert "not permitted" in news.missing(HISTORY)
        server.add(KEY, URL)
        assert news.change().revision == 1


def test_who_may_not_ask_for_watchers_sees_the_rest(client: Client, server: FakeServer) -> None:
    server.add(KEY, URL)
    server.fail("GetPropagation", *[DENIED] * 99)
    with sourced(client) as news:
        assert "not permitted" in news.missing(WATCHERS)
        server.add("a/b/c/v2", URL)
        assert news.change()


def test_an_outage_is_said_and_passes(client: Client, server: FakeServer) -> None:
    with sourced(client) as news:
        news.of(Table)
        server.end_streams(Failure(grpc.StatusCode.UNAVAILABLE, "draining"))
        assert "draining" in news.missing(CHANGES)
        assert news.until(lambda each: each == Missing(CHANGES, ""))


def test_a_server_that_is_away_from_the_beginning_is_missing() -> None:
    with Client("127.0.0.1:1", timeout=0.5) as client, sourced(client) as news:
        assert news.missing(CHANGES)
        assert news.missing(HISTORY)
