"""Reads the moments of the history that requests name."""

from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from pointsman.v1.route_pb2 import AsOf
from pointsman_server.domain.codec import moment
from pointsman_server.domain.errors import FieldViolation, InvalidField, TimeInFuture
from pointsman_server.domain.routes import RouteKey, Snapshot
from pointsman_server.ports.history import RouteHistory
from pointsman_server.reads.resolver import Resolver

# How far the clocks of callers and of the database may be ahead of the server's.
AHEAD = timedelta(minutes=1)


class MayNameMoment(Protocol):
    """A request that may name a moment."""

    @property
    def as_of(self) -> AsOf: ...

    def HasField(self, field_name: Literal["as_of"], /) -> bool: ...  # noqa: N802 - protobuf's name


async def load(key: RouteKey, request: MayNameMoment, resolver: Resolver, history: RouteHistory) -> Snapshot:
    """Read a key from the store: as it is now, or was at the moment that the request names.

    Raises what ``revision_of`` and ``load_as_of`` raise, and what the resolver raises.
    """
    if not request.HasField("as_of"):
        return (await resolver.resolve(key, fully_consistent=True)).snapshot
    revision = await revision_of(request.as_of, history)
    (snapshot,) = await history.load_as_of([key], revision)
    return snapshot


async def revision_of(as_of: AsOf, history: RouteHistory) -> int:
    """Return the revision of a moment.

    Raises InvalidField for one that is not set, TimeInFuture, and what ``revision_at`` raises. Whether the revision is
    kept, and there is one, is for the read to find out.
    """
    kind = as_of.WhichOneof("moment")
    if kind is None:
        raise InvalidField([FieldViolation("as_of", "must have a revision or a time")])
    return as_of.revision if kind == "revision" else await revision_at(as_of.time, "as_of.time", history)


async def revision_at(time: Timestamp, field: str, history: RouteHistory) -> int:
    """Return the last revision at ``time`` or before it. Raises what ``revision_of`` raises."""
    when = read_time(time, field)
    now = datetime.now(UTC)
    if when > now + AHEAD:
        raise TimeInFuture(when, now)
    return await history.revision_at(when)


def read_time(time: Timestamp, field: str) -> datetime:
    """Read a time, to the microsecond below. Raises InvalidField for one that is none."""
    try:
        if 0 <= time.nanos < 1_000_000_000:
            return moment(time)
    except ValueError:
        pass
    raise InvalidField([FieldViolation(field, "must be a time of the years 1 to 9999")])
