"""The client's side of Watch as a state machine without I/O: events go in, and what to do comes out.

It stages snapshots, puts partial change sets together, knows where to resume, and decides how long to pause after a
stream has ended. Times are seconds of a monotonic clock, which the caller reads.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from pointsman.errors import InvalidArgument, PermissionDenied, PointsmanError, Unauthenticated, Unimplemented
from pointsman.v1.route_pb2 import Route, RouteChange
from pointsman.v1.traffic_pb2 import Traffic
from pointsman.v1.watch_pb2 import Checkpoint, EndOfSnapshot, ResumeToken, SnapshotBatch, WatchResponse

SILENCE_SECONDS = 15.0
"""A stream that brings nothing for so long is closed: three checkpoints are missing."""
LONGEST_SILENCE_SECONDS = 120.0
"""What a server that is slow to begin is given in the end: each stream that brought nothing doubles it."""
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0
REFUSED_PAUSE_SECONDS = 10.0
"""Between attempts that the server refuses: they are tried again, because credentials and servers change."""
PROVEN_SECONDS = 5.0
"""A stream that lasted so long has been a success: the pause after it is short again."""
LEFT_SECONDS = 60.0
"""For so long after an epoch was left, a server that still answers from it is behind."""
_SPREAD = 0.5
_REFUSALS = (Unauthenticated, PermissionDenied, InvalidArgument, Unimplemented)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Position:
    """Every change up to ``revision`` of ``epoch`` is known."""

    epoch: str
    revision: int


@dataclass(frozen=True, slots=True)
class Replace(Generic[T]):
    """The table is exactly ``routes`` and ``traffic``, as of ``as_of``: replace all of it at once.

    ``traffic`` is None if the server does not send it.
    """

    as_of: Position
    routes: Sequence[T]
    traffic: Sequence[Traffic] | None = None


@dataclass(frozen=True, slots=True)
class Apply:
    """These changes were made together: apply all of them at once."""

    as_of: Position
    changes: Sequence[RouteChange]


@dataclass(frozen=True, slots=True)
class Confirm:
    """Nothing is missing up to ``as_of``, and ``age`` seconds ago there was nothing after it.

    ``report_progress``: somebody waits for ReportProgress.
    """

    as_of: Position
    age: float
    report_progress: bool


class ProtocolViolation(Exception):
    """The server sent what the protocol rules out, or the stream was damaged: close it, and open another one."""


class WatchProtocol(Generic[T]):
    """One watch, over all the streams that it takes.

    For each stream: ``opened``; then ``received`` for each event, and do what it returns; then ``ended``, and wait for
    as long as it returns. Close the stream when ``silent_at`` has come, and when ``received`` raises.

    ``convert`` makes what a snapshot consists of from its routes, one at a time as they arrive.

    A server of an earlier release does not send traffic, whatever the request says. So what is known may be without it,
    or lose it, where a stream goes on at such a server.
    """

    def __init__(
        self,
        convert: Callable[[Route], T],
        position: Position | None = None,
        *,
        has_traffic: bool = False,
        needs_traffic: bool = False,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """``position``: what is known already, for example from a disk, and whether it ``has_traffic``.

        ``needs_traffic``: start over with a snapshot where a server has traffic, and what is known has not.
        """
        self.has_traffic = has_traffic
        """Whether what is known has all traffic too."""
        self._needs_traffic = needs_traffic
        self._sends_traffic = False
        self._convert = convert
        self._jitter = jitter
        self._position = position
        self._void = position is None
        self._left: dict[str, float] = {}
        self._staged: list[T] = []
        self._staged_traffic: list[Traffic] = []
        self._staged_as_of: Position | None = None
        self._partial: list[RouteChange] = []
        self._failures = 0
        self._mute_streams = 0
        self._opened_at = 0.0
        self._spoken = False
        self._least_lag: float | None = None
        self.silent_at = float("inf")
        self.live = False
        """Whether the open stream has brought everything: a checkpoint has come, and no reset since."""

    @property
    def position(self) -> Position | None:
        """What has been applied; None before the first snapshot."""
        return self._position

    @property
    def resume(self) -> ResumeToken | None:
        """Where the next stream begins; None: with a snapshot."""
        if self._void or self._position is None:
            return None
        return ResumeToken(epoch=self._position.epoch, revision=self._position.revision)

    def opened(self, now: float) -> None:
        """Begin a stream, which was asked for with ``resume``."""
        self._drop_unfinished()
        self._opened_at, self._spoken, self._least_lag = now, False, None
        self._sends_traffic = False
        self.live = False
        self.silent_at = now + min(SILENCE_SECONDS * 2**self._mute_streams, LONGEST_SILENCE_SECONDS)

    def received(self, event: WatchResponse, now: float) -> Replace[T] | Apply | Confirm | None:
        """Take an event. Returns what to do, or None. Raises ProtocolViolation."""
        self._spoken, self._mute_streams = True, 0
        self.silent_at = now + SILENCE_SECONDS
        kind = event.WhichOneof("event")
        if kind == "opened":
            self._begin(sends_traffic=event.opened.traffic)
        elif not self._sends_traffic:
            self.has_traffic = False
        if kind == "checkpoint":
            return self._checkpoint(event.checkpoint, now)
        if kind == "changes":
            return self._changes(event.changes.changes, event.changes.partial, event.changes.as_of)
        if kind == "snapshot":
            self._batch(event.snapshot)
        if kind == "end_of_snapshot":
            return self._end_of_snapshot(event.end_of_snapshot, now)
        if kind == "reset":
            self._drop_unfinished()
            self._void, self.live = True, False
        return None  # an event that this release does not know is ignored

    def start_over(self) -> None:
        """Begin the next stream with a snapshot: what was received could not be applied."""
        self._void = True

    def ended(self, error: Exception | None, now: float) -> float:
        """End the stream, which failed with ``error``. Returns how many seconds to pause before the next one."""
        self._drop_unfinished()
        self.live, self.silent_at = False, float("inf")
        if not self._spoken:
            self._mute_streams += 1
        if self._spoken and now - self._opened_at >= PROVEN_SECONDS:
            self._failures = 0
        self._failures += 1
        reason = error.reason if isinstance(error, PointsmanError) else ""
        void = reason in {"REVISION_COMPACTED", "EPOCH_CHANGED"}
        if void and not self._void:
            self._void = True
            return self._spread(FIRST_PAUSE_SECONDS)
        if isinstance(error, _REFUSALS) and not void:
            return self._spread(REFUSED_PAUSE_SECONDS)
        pause = self._spread(min(FIRST_PAUSE_SECONDS * 2 ** min(self._failures - 1, 16), LONGEST_PAUSE_SECONDS))
        if isinstance(error, PointsmanError) and error.retry_delay is not None:
            asked = min(max(0.0, error.retry_delay.total_seconds()), LONGEST_PAUSE_SECONDS)
            pause = max(pause, asked * (1 + _SPREAD * self._jitter()))
        return pause

    def _spread(self, seconds: float) -> float:
        """Return at least half of ``seconds``, so that clients that were cut off together come back one by one."""
        return seconds * (1 - _SPREAD * self._jitter())

    def _begin(self, *, sends_traffic: bool) -> None:
        self._sends_traffic = sends_traffic
        if sends_traffic and self._needs_traffic and not self.has_traffic and not self._void:
            self._void = True
            raise ProtocolViolation("what is known has no traffic, and this server sends it: a snapshot is needed")

    def _drop_unfinished(self) -> None:
        self._staged, self._staged_traffic, self._staged_as_of, self._partial = [], [], None, []

    def _batch(self, batch: SnapshotBatch) -> None:
        as_of = _position_of(batch.as_of)
        if not self._void:
            raise ProtocolViolation("a snapshot came that was not asked for")
        if self._staged_as_of not in {None, as_of}:
            raise ProtocolViolation("two batches of a snapshot are as of different revisions")
        self._staged_as_of = as_of
        self._staged.extend(map(self._convert, batch.routes))
        self._staged_traffic.extend(batch.traffic)

    def _end_of_snapshot(self, end: EndOfSnapshot, now: float) -> Replace[T]:
        as_of = _position_of(end.as_of)
        if not self._void:
            raise ProtocolViolation("the end of a snapshot came that was not asked for")
        if self._staged_as_of not in {None, as_of}:
            raise ProtocolViolation("a snapshot ends as of another revision than it began")
        if len(self._staged) != end.route_count:
            raise ProtocolViolation(f"a snapshot of {end.route_count} routes arrived with {len(self._staged)}")
        if len(self._staged_traffic) != end.traffic_count:
            raise ProtocolViolation(f"{len(self._staged_traffic)} of {end.traffic_count} traffic entries arrived")
        self._check_not_older(as_of, now)
        if self._position is not None and self._position.epoch != as_of.epoch:
            self._left[self._position.epoch] = now
        routes, traffic = self._staged, self._staged_traffic if self._sends_traffic else None
        self._drop_unfinished()
        self._position, self._void, self.has_traffic = as_of, False, self._sends_traffic
        return Replace(as_of, routes, traffic)

    def _check_not_older(self, as_of: Position, now: float) -> None:
        position = self._position
        if position is not None and position.epoch == as_of.epoch and as_of.revision < position.revision:
            raise ProtocolViolation("a snapshot is older than what is known: the server is behind")
        self._left = {epoch: left_at for epoch, left_at in self._left.items() if now - left_at < LEFT_SECONDS}
        if as_of.epoch in self._left:
            raise ProtocolViolation("a snapshot is of an epoch that is over: the server is behind")

    def _changes(self, changes: Sequence[RouteChange], partial: bool, token: ResumeToken) -> Apply | None:
        position = self._following()
        if partial:
            self._partial.extend(changes)
            return None
        as_of = self._same_epoch(token, position)
        complete = [*self._partial, *changes]
        self._partial = []
        if as_of.revision < position.revision:
            return None  # all of it is known
        news = [change for change in complete if change.revision > position.revision]
        self._position = as_of
        return Apply(as_of, news)

    def _checkpoint(self, checkpoint: Checkpoint, now: float) -> Confirm:
        position = self._following()
        as_of = self._same_epoch(checkpoint.as_of, position)
        if self._partial:
            raise ProtocolViolation("a change set was not completed")
        if as_of.revision < position.revision:
            raise ProtocolViolation("a checkpoint is older than what was sent before")
        age = max(0.0, _seconds(checkpoint.age)) + self._delay(checkpoint, now)
        self._position, self.live = as_of, True
        return Confirm(as_of, age, checkpoint.report_progress)

    def _delay(self, checkpoint: Checkpoint, now: float) -> float:
        """Return how much longer than the fastest one of its stream a checkpoint was under way.

        The two clocks differ by an unknown but constant amount. Checkpoints that waited in a buffer, while this process
        was stopped for example, are so not taken for new ones.
        """
        lag = now - _seconds(checkpoint.server_time)
        self._least_lag = lag if self._least_lag is None else min(self._least_lag, lag)
        delay = lag - self._least_lag
        if delay > SILENCE_SECONDS:
            raise ProtocolViolation("checkpoints arrive late, or the clock of the server was set back")
        return delay

    def _following(self) -> Position:
        """Return the position from which changes go on. Raises ProtocolViolation before the end of a snapshot."""
        if self._void or self._position is None:
            raise ProtocolViolation("changes came before the end of the snapshot")
        return self._position

    def _same_epoch(self, token: ResumeToken, position: Position) -> Position:
        as_of = _position_of(token)
        if as_of.epoch != position.epoch:
            raise ProtocolViolation("the epoch changed without a reset")
        return as_of


def _seconds(time: Timestamp | Duration) -> float:
    """Return the seconds, also of a value that protobuf's own conversions refuse."""
    return time.seconds + time.nanos / 1e9


def _position_of(token: ResumeToken) -> Position:
    return Position(token.epoch, token.revision)
