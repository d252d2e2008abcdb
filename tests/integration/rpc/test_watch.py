"""Watch over the wire: snapshots, changes, resuming, and what ends a stream. On both transports."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import RouteKey
from pointsman.v1.watch_pb2 import ResumeToken, WatchRequest, WatchResponse

SECONDS = 20.0


@contextmanager
def watching(stub: Any, **request: Any) -> Iterator[Iterator[WatchResponse]]:
    """Open a stream, which is cancelled at the end."""
    stream = stub.Watch(WatchRequest(**request), timeout=SECONDS)
    try:
        yield stream
    finally:
        stream.cancel()


def until(stream: Iterator[WatchResponse], kind: str) -> list[WatchResponse]:
    """Read up to the first event of a kind."""
    events = []
    for event in stream:
        events.append(event)
        if event.WhichOneof("event") == kind:
            return events
    raise AssertionError(f"the stream ended after {events}")


def changes_of(stream: Iterator[WatchResponse]) -> WatchResponse:
    return until(stream, "changes")[-1]


def create(stub: Any, key: RouteKey, url: str = "https://one.internal", **fields: Any) -> int:
    return int(stub.Create(pb.CreateRequest(key=key, url=url, **fields)).route.revision)


def sibling(key: RouteKey, version: str) -> RouteKey:
    return RouteKey(tenant=key.tenant, service=key.service, env=key.env, version=version)


def test_a_snapshot_then_a_checkpoint_then_each_change(grpc_stub: Any, key: RouteKey) -> None:
    revision = create(grpc_stub, key)
    with watching(grpc_stub, tenant=key.tenant) as stream:
        batch, end = until(stream, "end_of_snapshot")
        assert [route.url for route in batch.snapshot.routes] == ["https://one.internal"]
        assert (end.end_of_snapshot.route_count, end.end_of_snapshot.as_of) == (1, batch.snapshot.as_of)
        assert end.end_of_snapshot.as_of.revision >= revision
        assert until(stream, "checkpoint")[-1].checkpoint.as_of.revision >= revision

        changed = grpc_stub.Update(pb.UpdateRequest(key=key, url="https://two.internal")).route.revision
        event = changes_of(stream).changes

    assert event.as_of.revision == changed
    [change] = event.changes
    assert (change.key, change.after.url, change.before.url) == (key, "https://two.internal", "https://one.internal")


def test_an_empty_table_is_said_to_be_empty(grpc_stub: Any, key: RouteKey) -> None:
    with watching(grpc_stub, tenant=key.tenant) as stream:
        [end] = until(stream, "end_of_snapshot")
    assert end.end_of_snapshot.route_count == 0


@pytest.mark.parametrize("narrow", [["tenant"], ["tenant", "service"], ["tenant", "service", "env"], ["service"]])
def test_only_what_the_filter_matches_is_sent(grpc_stub: Any, key: RouteKey, narrow: list[str]) -> None:
    mine = RouteKey(tenant=key.tenant, service=f"of-{key.tenant}", env=key.env, version="v1")
    others = [
        RouteKey(**{part: getattr(mine, part) for part in ("tenant", "service", "env", "version")} | {part: "other"})
        for part in narrow
    ]
    for other in others:
        grpc_stub.Update(pb.UpdateRequest(key=other, url="https://other.internal", allow_missing=True))
    create(grpc_stub, mine)
    with watching(grpc_stub, **{part: getattr(mine, part) for part in narrow}) as stream:
        snapshot = until(stream, "end_of_snapshot")
        until(stream, "checkpoint")
        for number, other in enumerate(others):
            grpc_stub.Update(pb.UpdateRequest(key=other, url=f"https://again-{key.tenant}-{number}.internal"))
        revision = grpc_stub.Update(pb.UpdateRequest(key=mine, url="https://two.internal")).route.revision
        event = changes_of(stream).changes

    assert [route.key for batch in snapshot for route in batch.snapshot.routes] == [mine]
    assert [(change.revision, change.key) for change in event.changes] == [(revision, mine)]


def test_what_was_missed_comes_first_and_nothing_twice(grpc_stub: Any, key: RouteKey) -> None:
    create(grpc_stub, key)
    with watching(grpc_stub, tenant=key.tenant) as stream:
        token = until(stream, "end_of_snapshot")[-1].end_of_snapshot.as_of
    missed = [
        grpc_stub.Update(pb.UpdateRequest(key=key, url=f"https://{number}.internal")).route.revision
        for number in range(3)
    ]
    with watching(grpc_stub, tenant=key.tenant, resume=token) as stream:
        events = until(stream, "checkpoint")
        after = grpc_stub.Update(pb.UpdateRequest(key=key, url="https://last.internal")).route.revision
        events.append(changes_of(stream))

    received = [change.revision for event in events for change in event.changes.changes]
    assert received == [*missed, after]
    assert not any(event.HasField("snapshot") for event in events)


def test_what_is_activated_together_arrives_together(grpc_stub: Any, key: RouteKey) -> None:
    other = sibling(key, "v2")
    create(grpc_stub, key)
    create(grpc_stub, other, active=False)
    with watching(grpc_stub, tenant=key.tenant) as stream:
        until(stream, "checkpoint")
        grpc_stub.Activate(pb.ActivateRequest(key=other, exclusive=True))
        event = changes_of(stream).changes

    assert [(change.key.version, change.after.active) for change in event.changes] == [("v2", True), ("v1", False)]
    assert {change.change_set_end for change in event.changes} == {event.as_of.revision}


def test_a_token_of_another_epoch_is_refused(grpc_stub: Any, key: RouteKey) -> None:
    with (
        pytest.raises(grpc.RpcError) as refused,
        watching(grpc_stub, tenant=key.tenant, resume=ResumeToken(epoch="another", revision=1)) as stream,
    ):
        next(stream)
    assert refused.value.code() is grpc.StatusCode.ABORTED


def test_a_token_ahead_of_the_store_is_to_be_tried_again(grpc_stub: Any, key: RouteKey) -> None:
    with watching(grpc_stub, tenant=key.tenant) as stream:
        token = until(stream, "end_of_snapshot")[-1].end_of_snapshot.as_of
    token.revision += 1_000_000
    with pytest.raises(grpc.RpcError) as refused, watching(grpc_stub, tenant=key.tenant, resume=token) as stream:
        next(stream)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    "request_", [{"tenant": "no/tenant"}, {"service": "x" * 64}, {"env": "."}, {"resume": ResumeToken(revision=1)}]
)
def test_a_malformed_request_is_refused(grpc_stub: Any, request_: dict[str, Any]) -> None:
    with pytest.raises(grpc.RpcError) as refused, watching(grpc_stub, **request_) as stream:
        next(stream)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
