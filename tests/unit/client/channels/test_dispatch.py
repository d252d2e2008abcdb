"""The way of one call: its URL, its backend, its time."""

import gc
from typing import Any

import grpc
import pytest

from pointsman.channels.backends import Backends
from pointsman.channels.dispatch import Dispatch, callable_of, checked_timeout, time_left
from pointsman.channels.failure import NoBackend
from pointsman.channels.options import Metadata
from pointsman.errors import AmbiguousVersion, DeadlineExceeded, FailedPrecondition, Unavailable
from tests.support.fake_routes import FakeRoutes

ONE, TWO = "http://one", "http://two"


class Rig:
    def __init__(self) -> None:
        self.routes = FakeRoutes({"": ONE, "user-2": TWO})
        self.now = 0.0
        self.opened: list[str] = []
        self.backends: Backends[Any] = Backends(self.open, lambda: None, drain_seconds=60.0)
        self.dispatch = Dispatch(self.routes, self.backends, self.sticky_key, clock=lambda: self.now)

    def open(self, url: str) -> Any:
        if not url.startswith("http:"):
            raise FailedPrecondition("this is a test")
        self.opened.append(url)
        return object()

    def sticky_key(self, metadata: Metadata | None) -> str:
        return str(dict(metadata or ()).get("user", ""))

    def takes(self, seconds: float) -> None:
        def on_ask() -> None:
            self.now += seconds

        self.routes.known = False
        self.routes.on_ask = on_ask

    def code(self, timeout: float | None = None) -> grpc.StatusCode:
        with pytest.raises(NoBackend) as failed:
            self.dispatch.begin(timeout, None)
        return failed.value.code()


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_call_gets_the_backend_of_its_sticky_key(rig: Rig) -> None:
    first = rig.dispatch.begin(1.0, None)
    assert (first.backend.url, first.timeout, first.backend.calls) == (ONE, 1.0, 1)
    assert rig.dispatch.begin(None, [("user", "user-2")]).backend.url == TWO
    rig.dispatch.end(first.backend)
    assert first.backend.calls == 0
    assert rig.routes.asked == []


def test_what_the_near_cache_cannot_answer_the_server_is_asked_in_the_time_of_the_call(rig: Rig) -> None:
    rig.takes(0.25)
    assert rig.dispatch.begin(1.0, [("user", "user-2")]) == (rig.backends.open(TWO), 0.75)
    assert rig.dispatch.begin(None, None).timeout is None
    assert rig.dispatch.begin(60.0, None).timeout == 59.75
    assert rig.routes.asked == [("user-2", 1.0), ("", None), ("", 60.0)]
    rig.takes(2.0)
    assert rig.code(1.0) is grpc.StatusCode.DEADLINE_EXCEEDED


def test_the_status_is_that_of_the_near_cache(rig: Rig) -> None:
    rig.routes.set("")
    assert rig.code() is grpc.StatusCode.NOT_FOUND
    rig.routes.error = AmbiguousVersion("several")
    assert rig.code() is grpc.StatusCode.FAILED_PRECONDITION
    rig.takes(0.0)
    rig.routes.error = Unavailable("no server")
    assert rig.code() is grpc.StatusCode.UNAVAILABLE
    assert rig.opened == []


def test_a_server_that_does_not_answer_in_time_is_unavailable_while_the_call_has_time_left(rig: Rig) -> None:
    rig.takes(0.5)
    rig.routes.error = DeadlineExceeded("no answer")
    assert rig.code() is grpc.StatusCode.UNAVAILABLE
    assert rig.code(1.0) is grpc.StatusCode.UNAVAILABLE
    assert [rig.code(each) for each in (0.5, 0.25)] == [grpc.StatusCode.DEADLINE_EXCEEDED] * 2
    with pytest.raises(NoBackend, match=r": the server did not say in time which URL is live>$"):
        rig.dispatch.begin(1.0, None)


def test_a_url_that_cannot_be_carried_is_a_status_too(rig: Rig) -> None:
    rig.routes.set("ftp://one")
    assert rig.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_a_closed_channel_is_not_called(rig: Rig) -> None:
    rig.backends.close()
    with pytest.raises(ValueError, match="closed channel"):
        rig.dispatch.begin(None, None)
    assert rig.routes.reads == 0


def test_the_server_is_asked_no_longer_than_the_call_takes() -> None:
    assert [checked_timeout(each) for each in (None, 0.5, 60.0)] == [None, 0.5, 60.0]
    with pytest.raises(DeadlineExceeded):
        checked_timeout(0.0)
    assert (time_left(None, 5.0), time_left(2.0, 0.5)) == (None, 1.5)
    with pytest.raises(DeadlineExceeded):
        time_left(1.0, 1.0)


def test_what_calls_a_method_is_made_once_and_kept_for_no_longer_than_the_method(rig: Rig) -> None:
    class Method:
        pass

    made: list[Any] = []

    def make(channel: Any) -> str:
        made.append(channel)
        return "callable"

    backend, method = rig.backends.open(ONE), Method()
    assert [callable_of(backend, method, make) for _ in range(2)] == ["callable", "callable"]
    assert made == [backend.channel]
    del method
    gc.collect()
    assert len(backend.callables) == 0
