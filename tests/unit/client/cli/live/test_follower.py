"""follower: goes on where it was, and gives up where that is of no use."""

import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from pointsman import Client, InvalidArgument, PermissionDenied, Unauthenticated, Unavailable
from pointsman.cli.live.follower import Follower, Interrupted
from pointsman.near_cache.watch.protocol import Apply, Confirm, Position, Replace
from pointsman.v1.watch_pb2 import WatchRequest
from tests.support.fake_route_service import Failure, FakeServer

KEY, URL = "a/b/c/v1", "https://x.internal"
AWAY = Failure(grpc.StatusCode.UNAVAILABLE, "draining")
DENIED = Failure(grpc.StatusCode.PERMISSION_DENIED, "not permitted", "FORBIDDEN")
EXPIRED = Failure(grpc.StatusCode.UNAUTHENTICATED, "expired", "UNAUTHENTICATED", {"problem": "expired"})


class Followed:
    """The steps of a follower, one at a time."""

    def __init__(self, client: Client, position: Position | None = None, **options: Any) -> None:
        request = WatchRequest(tenant="a")
        self.follower = Follower(client, request, lambda route: route.key.version, position, **options)
        self._steps = self.follower.steps()

    def next(self, kind: type[Any]) -> Any:
        """Return the next step of a kind, and leave out those before."""
        return next(step for step in self._steps if isinstance(step, kind))

    def close(self) -> None:
        self._steps.close()  # type: ignore[attr-defined]


@pytest.fixture
def followed(client: Client, server: FakeServer) -> Iterator[Followed]:
    server.add(KEY, URL)
    followed = Followed(client)
    yield followed
    followed.close()


def test_a_snapshot_then_changes_of_what_matches(followed: Followed, server: FakeServer) -> None:
    assert followed.next(Replace) == Replace(Position("epoch-1", 1), ["v1"])
    server.add("z/b/c/v1", URL)
    server.add("a/b/c/v2", URL)
    step = followed.next(Apply)
    assert (step.as_of, [change.key.version for change in step.changes]) == (Position("epoch-1", 3), ["v2"])


def test_goes_on_where_it_was(followed: Followed, server: FakeServer) -> None:
    followed.next(Confirm)
    server.fail("Watch", AWAY)
    server.end_streams(AWAY)
    step = followed.next(Interrupted)
    assert (type(step.error), step.resume) == (Unavailable, Position("epoch-1", 1))
    server.add("a/b/c/v2", URL)
    assert followed.next(Apply).as_of.revision == 2
    assert [call.request.resume.revision for call in server.called("Watch")] == [0, 1, 1]


def test_what_is_not_kept_any_more_is_replaced_by_a_snapshot(followed: Followed, server: FakeServer) -> None:
    followed.next(Confirm)
    server.add("a/b/c/v2", URL)
    server.compacted = 3
    server.end_streams(AWAY)
    assert followed.next(Interrupted).error.reason == ""
    step = followed.next(Interrupted)
    assert (step.error.reason, step.resume) == ("REVISION_COMPACTED", None)
    assert followed.next(Replace).routes == ["v1", "v2"]


def test_begins_where_it_is_told(client: Client, server: FakeServer) -> None:
    server.add(KEY, URL)
    server.add("a/b/c/v2", URL)
    followed = Followed(client, Position("epoch-1", 1))
    assert followed.next(Apply).as_of.revision == 2
    followed.close()


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (AWAY, Unavailable),
        (DENIED, PermissionDenied),
        (Failure(grpc.StatusCode.INVALID_ARGUMENT, "malformed", "INVALID_FIELD"), InvalidArgument),
    ],
)
def test_what_cannot_begin_fails_at_once(client: Client, server: FakeServer, failure: Failure, kind: type) -> None:
    server.fail("Watch", failure)
    with pytest.raises(kind):
        Followed(client).next(Confirm)
    assert len(server.called("Watch")) == 1


def test_a_refusal_is_final_the_second_time(
    followed: Followed, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pointsman.near_cache.watch.protocol.REFUSED_PAUSE_SECONDS", 0.01)
    followed.next(Confirm)
    server.end_streams(EXPIRED)
    assert isinstance(followed.next(Interrupted).error, Unauthenticated)
    followed.next(Confirm)
    server.fail("Watch", DENIED)
    server.end_streams(DENIED)
    with pytest.raises(PermissionDenied):
        followed.next(Confirm)


def test_a_silent_stream_is_closed_and_resumed(client: Client, server: FakeServer) -> None:
    now = 0.0
    followed = Followed(client, clock=lambda: now)
    followed.next(Confirm)
    server.silent = True
    now = 16.0
    step = followed.next(Interrupted)
    assert step.error.message == "the server has sent nothing for too long"
    server.silent = False
    assert followed.next(Confirm)
    followed.close()


def test_stops_from_another_thread_and_leaves_none(followed: Followed, server: FakeServer) -> None:
    followed.next(Confirm)
    server.silent = True
    threading.Timer(0.05, followed.follower.stop).start()
    with pytest.raises(StopIteration):
        followed.next(Apply)
    assert not [thread for thread in threading.enumerate() if thread.name == "pointsman-watch-guard"]
