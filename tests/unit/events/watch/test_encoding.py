"""Events as bytes: joined parts are what protobuf encodes."""

from datetime import UTC, datetime

import pytest

from pointsman.v1 import watch_pb2 as pb
from pointsman_server.domain.codec import change_to_message, route_to_message, traffic_to_message
from pointsman_server.events.watch import encoding
from pointsman_server.ports.store import Clock
from tests.support.changes import make_change, make_traffic, make_traffic_change

CLOCK = Clock("e1", 300)
TOKEN = pb.ResumeToken(epoch="e1", revision=300)


@pytest.mark.parametrize("count", [1, 2, 40, 500])
def test_a_set_is_what_protobuf_encodes(count: int) -> None:
    changes = [make_change(revision, f"service-{revision}") for revision in range(1, count + 1)]
    [event] = encoding.change_set(CLOCK, list(map(encoding.change, changes)))
    expected = pb.ChangeSet(changes=map(change_to_message, changes), as_of=TOKEN)
    assert event == pb.WatchResponse(changes=expected).SerializeToString()


def test_a_large_set_has_parts_and_the_last_has_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = list(map(encoding.change, map(make_change, range(1, 11))))
    monkeypatch.setattr(encoding, "CHANGE_SET_BYTES", 3 * len(changes[0]) + 5)
    events = [pb.WatchResponse.FromString(event).changes for event in encoding.change_set(CLOCK, changes)]
    assert [len(event.changes) for event in events] == [3, 3, 3, 1]
    assert [event.partial for event in events] == [True, True, True, False]
    assert [event.HasField("as_of") for event in events] == [False, False, False, True]
    assert [change.revision for event in events for change in event.changes] == list(range(1, 11))


def test_a_change_larger_than_an_event_is_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "CHANGE_SET_BYTES", 10)
    events = encoding.change_set(CLOCK, [encoding.change(make_change(number)) for number in (1, 2)])
    assert [len(pb.WatchResponse.FromString(event).changes.changes) for event in events] == [1, 1]


@pytest.mark.parametrize("count", [0, 1, 1_000])
def test_a_batch_is_what_protobuf_encodes(count: int) -> None:
    routes = [route for number in range(count) if (route := make_change(number + 1).after)]
    batch = pb.SnapshotBatch(as_of=TOKEN, routes=map(route_to_message, routes))
    assert encoding.snapshot_batch(CLOCK, map(encoding.route, routes)) == (
        pb.WatchResponse(snapshot=batch).SerializeToString()
    )


def test_traffic_is_what_protobuf_encodes() -> None:
    traffic = [make_traffic(number, f"service-{number}") for number in range(1, 4)]
    batch = pb.SnapshotBatch(as_of=TOKEN, traffic=map(traffic_to_message, traffic))
    assert encoding.snapshot_batch(CLOCK, map(encoding.traffic, traffic)) == (
        pb.WatchResponse(snapshot=batch).SerializeToString()
    )
    changes = [make_change(1), make_traffic_change(2)]
    expected = pb.ChangeSet(changes=map(change_to_message, changes), as_of=TOKEN)
    [event] = encoding.change_set(CLOCK, list(map(encoding.change, changes)))
    assert event == pb.WatchResponse(changes=expected).SerializeToString()


def test_the_other_events() -> None:
    end = pb.WatchResponse.FromString(encoding.end_of_snapshot(CLOCK, 7, 3)).end_of_snapshot
    assert (end.as_of, end.route_count, end.traffic_count) == (TOKEN, 7, 3)
    assert pb.WatchResponse.FromString(encoding.OPENED) == pb.WatchResponse(opened=pb.Opened(traffic=True))
    moment = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    checkpoint = pb.WatchResponse.FromString(encoding.checkpoint(CLOCK, moment, 1.5, report_progress=True)).checkpoint
    assert checkpoint.as_of == TOKEN
    assert checkpoint.server_time.ToDatetime(UTC) == moment
    assert checkpoint.age.ToMilliseconds() == 1_500
    assert checkpoint.report_progress
    reset = pb.WatchResponse.FromString(encoding.reset(pb.Reset.REASON_EPOCH_CHANGED)).reset
    assert reset.reason == pb.Reset.REASON_EPOCH_CHANGED
