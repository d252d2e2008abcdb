"""Events of a watch as bytes: each is encoded once, however many streams send it.

A route, traffic or a change is encoded once for all events that it is in: an event is these parts, joined as protobuf
joins the elements of a repeated field (protobuf.dev/programming-guides/encoding).
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from pointsman.v1 import watch_pb2 as pb
from pointsman_server.domain.codec import (
    change_to_message,
    encoded_field,
    route_to_message,
    timestamp,
    traffic_to_message,
)
from pointsman_server.domain.routes import Change, Route, Traffic
from pointsman_server.ports.store import Clock

# Bytes of one event, before one part more. Far below the 4 MiB that gRPC clients accept by default; the routes before
# and after a change may have 70 kB of labels each.
SNAPSHOT_BYTES = 64 * 1024
CHANGE_SET_BYTES = 256 * 1024

_CHANGES_IN_SET = pb.ChangeSet.CHANGES_FIELD_NUMBER
_SET_IN_RESPONSE = pb.WatchResponse.CHANGES_FIELD_NUMBER
_ROUTES_IN_BATCH = pb.SnapshotBatch.ROUTES_FIELD_NUMBER
_TRAFFIC_IN_BATCH = pb.SnapshotBatch.TRAFFIC_FIELD_NUMBER
_BATCH_IN_RESPONSE = pb.WatchResponse.SNAPSHOT_FIELD_NUMBER
_PARTIAL = pb.ChangeSet(partial=True).SerializeToString()

# The first event of a stream that has traffic.
OPENED = pb.WatchResponse(opened=pb.Opened(traffic=True)).SerializeToString()


def token_of(clock: Clock) -> pb.ResumeToken:
    return pb.ResumeToken(epoch=clock.epoch, revision=clock.revision)


def route(one: Route) -> bytes:
    """Encode a route as a part of ``snapshot_batch``."""
    return encoded_field(_ROUTES_IN_BATCH, route_to_message(one).SerializeToString())


def traffic(one: Traffic) -> bytes:
    """Encode traffic as a part of ``snapshot_batch``."""
    return encoded_field(_TRAFFIC_IN_BATCH, traffic_to_message(one).SerializeToString())


def change(one: Change) -> bytes:
    """Encode a change as a part of ``change_set``."""
    return encoded_field(_CHANGES_IN_SET, change_to_message(one).SerializeToString())


def snapshot_batch(clock: Clock, entries: Iterable[bytes]) -> bytes:
    """Join the results of ``route``, or those of ``traffic``."""
    as_of = pb.SnapshotBatch(as_of=token_of(clock)).SerializeToString()
    return encoded_field(_BATCH_IN_RESPONSE, b"".join((as_of, *entries)))


def end_of_snapshot(clock: Clock, route_count: int, traffic_count: int = 0) -> bytes:
    end = pb.EndOfSnapshot(as_of=token_of(clock), route_count=route_count, traffic_count=traffic_count)
    return pb.WatchResponse(end_of_snapshot=end).SerializeToString()


def change_set(clock: Clock, changes: Sequence[bytes]) -> list[bytes]:
    """Join the results of ``change`` for the changes of one set, which is complete as of ``clock``.

    One event, or several if they are large: all but the last are partial, and have no token to resume from.
    """
    parts = list(_parts(changes))
    as_of = pb.ChangeSet(as_of=token_of(clock)).SerializeToString()
    events = [encoded_field(_SET_IN_RESPONSE, b"".join((*part, _PARTIAL))) for part in parts[:-1]]
    return [*events, encoded_field(_SET_IN_RESPONSE, b"".join((*parts[-1], as_of)))]


def checkpoint(clock: Clock, moment: datetime, age: float, *, report_progress: bool = False) -> bytes:
    """Encode that every change up to ``clock`` has been sent; ``age`` seconds before ``moment`` these were all."""
    event = pb.Checkpoint(as_of=token_of(clock), server_time=timestamp(moment), report_progress=report_progress)
    event.age.FromMicroseconds(int(age * 1e6))
    return pb.WatchResponse(checkpoint=event).SerializeToString()


def reset(reason: pb.Reset.Reason.ValueType) -> bytes:
    return pb.WatchResponse(reset=pb.Reset(reason=reason)).SerializeToString()


def _parts(encoded: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    begin = size = 0
    for number, one in enumerate(encoded):
        if number > begin and size + len(one) > CHANGE_SET_BYTES:
            yield encoded[begin:number]
            begin, size = number, 0
        size += len(one)
    yield encoded[begin:]
