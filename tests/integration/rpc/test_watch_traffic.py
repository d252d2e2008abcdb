"""Watch with traffic over the wire, and without it. On both transports."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import CHANGE_KIND_TRAFFIC_DELETED, CHANGE_KIND_TRAFFIC_SET, RouteKey
from pointsman.v1.traffic_methods_pb2 import DeleteTrafficRequest, SetTrafficRequest
from pointsman.v1.traffic_pb2 import TrafficTarget
from pointsman.v1.watch_pb2 import WatchRequest, WatchResponse

SECONDS = 20.0
URL = "https://one.internal"


@contextmanager
def watching(stub: Any, key: RouteKey, **request: Any) -> Iterator[Iterator[WatchResponse]]:
    """Open a stream of the tenant of a key, which is cancelled at the end."""
    stream = stub.Watch(WatchRequest(tenant=key.tenant, **request), timeout=SECONDS)
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


def reached(stream: Iterator[WatchResponse], revision: int) -> list[WatchResponse]:
    """Read up to the checkpoint that has a revision."""
    events: list[WatchResponse] = []
    while not (events and events[-1].checkpoint.as_of.revision >= revision):
        events += until(stream, "checkpoint")
    return events


def kinds(events: list[WatchResponse]) -> list[str | None]:
    return [event.WhichOneof("event") for event in events]


def version(key: RouteKey, name: str) -> RouteKey:
    return RouteKey(tenant=key.tenant, service=key.service, env=key.env, version=name)


def division(key: RouteKey, **weights: int) -> SetTrafficRequest:
    targets = [TrafficTarget(version=name, weight=weight) for name, weight in weights.items()]
    return SetTrafficRequest(tenant=key.tenant, service=key.service, env=key.env, targets=targets)


@pytest.fixture
def two(grpc_stub: Any, key: RouteKey) -> RouteKey:
    """A family of two versions."""
    for name in ("v1", "v2"):
        grpc_stub.Create(pb.CreateRequest(key=version(key, name), url=URL))
    return key


def test_a_snapshot_has_traffic_after_the_routes(grpc_stub: Any, two: RouteKey) -> None:
    traffic = grpc_stub.SetTraffic(division(two, v1=9_000, v2=1_000)).traffic
    with watching(grpc_stub, two, traffic=True) as stream:
        events = until(stream, "checkpoint")
    assert kinds(events) == ["opened", "snapshot", "snapshot", "end_of_snapshot", "checkpoint"]
    assert events[0].opened.traffic
    assert [(len(each.snapshot.routes), len(each.snapshot.traffic)) for each in events[1:3]] == [(2, 0), (0, 1)]
    assert events[2].snapshot.traffic[0] == traffic
    end = events[3].end_of_snapshot
    assert (end.route_count, end.traffic_count) == (2, 1)


def test_who_does_not_ask_gets_none_but_checkpoints_go_on(grpc_stub: Any, two: RouteKey) -> None:
    grpc_stub.SetTraffic(division(two, v1=10_000))
    with watching(grpc_stub, two) as stream:
        first = until(stream, "checkpoint")
        revision = grpc_stub.SetTraffic(division(two, v2=10_000)).revision
        then = reached(stream, revision)
    assert kinds(first) == ["snapshot", "end_of_snapshot", "checkpoint"]
    assert not first[0].snapshot.traffic
    assert first[1].end_of_snapshot.traffic_count == 0
    assert set(kinds(then)) == {"checkpoint"}


def test_changes_of_traffic_follow(grpc_stub: Any, two: RouteKey) -> None:
    with watching(grpc_stub, two, traffic=True) as stream:
        until(stream, "checkpoint")
        traffic = grpc_stub.SetTraffic(division(two, v1=10_000)).traffic
        [made] = until(stream, "changes")[-1].changes.changes
        request = DeleteTrafficRequest(tenant=two.tenant, service=two.service, env=two.env)
        deleted = grpc_stub.DeleteTraffic(request).revision
        [removed] = until(stream, "changes")[-1].changes.changes
    assert (made.kind, made.key, made.traffic_after) == (CHANGE_KIND_TRAFFIC_SET, version(two, ""), traffic)
    assert (removed.kind, removed.revision, removed.traffic_before) == (CHANGE_KIND_TRAFFIC_DELETED, deleted, traffic)
    assert not removed.HasField("traffic_after")


@pytest.mark.parametrize("count", [2, 400])
def test_a_commit_of_routes_and_traffic_arrives_whole(grpc_stub: Any, two: RouteKey, count: int) -> None:
    """Also one of several parts: a stream with traffic has all of it, and one without has its routes."""
    labels = pb.Labels(labels={f"note-{n}": "x" * 250 for n in range(4)})
    updates = [
        pb.UpdateRequest(key=version(two, f"v{n}"), url=URL, labels=labels, allow_missing=True)
        for n in range(1, count + 1)
    ]
    mutations = [pb.Mutation(update=update) for update in updates]
    mutations.insert(1, pb.Mutation(set_traffic=division(two, v1=10_000)))
    with watching(grpc_stub, two, traffic=True) as asking, watching(grpc_stub, two) as other:
        for stream in (asking, other):
            until(stream, "checkpoint")
        grpc_stub.Commit(pb.CommitRequest(mutations=mutations))
        for stream, expected in ((asking, count + 1), (other, count)):
            events = until(stream, "changes")
            while events[-1].changes.partial:
                assert not events[-1].changes.HasField("as_of")
                events.append(next(stream))
            sets = [event.changes for event in events if event.HasField("changes")]
            changes = [change for part in sets for change in part.changes]
            assert len(changes) == expected
            assert (len(sets) > 1) == (count > 2)
            assert {change.change_set_id for change in changes} == {sets[-1].as_of.revision - count}
            of_traffic = [change for change in changes if not change.key.version]
            assert len(of_traffic) == expected - count


def test_what_was_missed_has_traffic_for_those_that_ask(grpc_stub: Any, two: RouteKey) -> None:
    with watching(grpc_stub, two, traffic=True) as stream:
        token = until(stream, "end_of_snapshot")[-1].end_of_snapshot.as_of
    set_at = grpc_stub.SetTraffic(division(two, v1=10_000)).revision
    updated = grpc_stub.Update(pb.UpdateRequest(key=version(two, "v2"), url="https://two.internal")).route.revision
    for asks, expected in ((True, [set_at, updated]), (False, [updated])):
        with watching(grpc_stub, two, traffic=asks, resume=token) as stream:
            events = until(stream, "checkpoint")
        assert [change.revision for event in events for change in event.changes.changes] == expected
        assert (events[0].WhichOneof("event") == "opened") == asks
