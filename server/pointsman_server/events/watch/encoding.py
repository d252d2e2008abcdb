"""Events of a watch as bytes: each is encoded once, however many streams send it."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from pointsman.v1 import watch_pb2 as pb
from pointsman.v1.route_pb2 import RouteChange
from pointsman_server.domain.codec import route_to_message, timestamp
from pointsman_server.domain.routes import Route
from pointsman_server.ports.store import Clock

# Bytes of one event. Far below the 4 MiB that gRPC clients accept by default; one route may have 70 kB of labels.
EVENT_BYTES = 256 * 1024


def token_of(clock: Clock) -> pb.ResumeToken:
    return pb.ResumeToken(epoch=clock.epoch, revision=clock.revision)


def snapshot_batch(clock: Clock, routes: Iterable[Route]) -> bytes:
    batch = pb.SnapshotBatch(as_of=token_of(clock), routes=map(route_to_message, routes))
    return pb.WatchResponse(snapshot=batch).SerializeToString()


def end_of_snapshot(clock: Clock, route_count: int) -> bytes:
    end = pb.EndOfSnapshot(as_of=token_of(clock), route_count=route_count)
    return pb.WatchResponse(end_of_snapshot=end).SerializeToString()


def change_set(clock: Clock, changes: Sequence[RouteChange]) -> list[bytes]:
    """Encode the changes of one set, which is complete as of ``clock``.

    One event, or several if they are many: all but the last are partial, and have no token to resume from.
    """
    parts = list(_parts(changes))
    events = [pb.ChangeSet(changes=part, partial=True) for part in parts[:-1]]
    events.append(pb.ChangeSet(changes=parts[-1], as_of=token_of(clock)))
    return [pb.WatchResponse(changes=event).SerializeToString() for event in events]


def checkpoint(clock: Clock, moment: datetime, age: float, *, report_progress: bool = False) -> bytes:
    """Encode that every change up to ``clock`` has been sent; ``age`` seconds before ``moment`` these were all."""
    event = pb.Checkpoint(as_of=token_of(clock), server_time=timestamp(moment), report_progress=report_progress)
    event.age.FromMicroseconds(int(age * 1e6))
    return pb.WatchResponse(checkpoint=event).SerializeToString()


def reset(reason: pb.Reset.Reason.ValueType) -> bytes:
    return pb.WatchResponse(reset=pb.Reset(reason=reason)).SerializeToString()


def _parts(changes: Sequence[RouteChange]) -> Iterator[list[RouteChange]]:
    part: list[RouteChange] = []
    size = 0
    for change in changes:
        length = change.ByteSize()
        if part and size + length > EVENT_BYTES:
            yield part
            part, size = [], 0
        part.append(change)
        size += length
    yield part
