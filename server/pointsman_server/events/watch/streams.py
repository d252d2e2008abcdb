"""What one stream of a watch sends: a snapshot or what it missed, and then every change."""

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pointsman.v1.watch_pb2 import Reset
from pointsman_server.domain.codec import change_to_message
from pointsman_server.domain.errors import EpochChanged, RevisionCompacted, RevisionNotReached
from pointsman_server.domain.routes import Change
from pointsman_server.events.watch import encoding
from pointsman_server.events.watch.filters import Filter
from pointsman_server.events.watch.hub import WatchHub
from pointsman_server.events.watch.snapshots import Snapshots
from pointsman_server.events.watch.watcher import Interrupted, Watcher
from pointsman_server.ports.store import ChangeQuery, Clock, RouteStore

PAGE = 500


@dataclass(frozen=True, slots=True)
class Retention:
    """How much history streams may resume from; what is older is compacted. 0 is without a limit.

    The history in the store stays whole: it is the audit trail.
    """

    changes: int = 1_000_000
    hours: float = 72.0

    def keeps(self, change: Change, revision: int, now: datetime) -> bool:
        """Return whether ``change`` is kept when the store is at ``revision``."""
        if self.changes and change.revision <= revision - self.changes:
            return False
        return not self.hours or change.occur_time > now - timedelta(hours=self.hours)


class WatchStreams:
    """Makes the events of streams."""

    def __init__(
        self,
        hub: WatchHub,
        snapshots: Snapshots,
        store: RouteStore,
        retention: Retention = Retention(),
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._hub = hub
        self._snapshots = snapshots
        self._store = store
        self._retention = retention
        self._now = now

    async def open(self, wanted: Filter, resume: Clock | None = None) -> AsyncGenerator[bytes]:
        """Send a snapshot, or what follows ``resume``, and then every change until the stream is closed.

        Raises EpochChanged and RevisionCompacted when ``resume`` cannot be continued, RevisionNotReached when the store
        is behind it, Overloaded when the stream is too slow or too many begin, and StoreUnavailable.
        """
        await self._hub.ready()
        stream = _Stream(wanted)
        if resume is not None:
            await self._check_reached(resume)
            stream.position = resume
        while True:
            work = self._follow(stream, stream.position) if stream.position else self._snapshot(stream)
            try:
                async with aclosing(work) as events:
                    async for event in events:
                        yield event
                        stream.live = True
            except (EpochChanged, RevisionCompacted) as error:
                if not stream.live:
                    raise
                # The view of the client is void: it is replaced, in the same stream.
                yield encoding.reset(_REASONS[type(error)])
                stream.position = None
            await self._hub.ready()

    async def _check_reached(self, resume: Clock) -> None:
        clock = self._hub.clock
        if resume.epoch == clock.epoch and resume.revision > clock.revision:
            clock = await self._store.clock()
        if resume.epoch != clock.epoch:
            raise EpochChanged(resume.epoch, clock.epoch)
        if resume.revision > clock.revision:
            raise RevisionNotReached(resume.revision, clock.revision)

    async def _snapshot(self, stream: "_Stream") -> AsyncGenerator[bytes]:
        async with self._snapshots.turn():
            snapshot = await self._snapshots.get(stream.filter)
            for event in snapshot.events:
                yield event
        stream.position = snapshot.clock

    async def _follow(self, stream: "_Stream", position: Clock) -> AsyncGenerator[bytes]:
        """Send what follows ``position``, until the hub interrupts the stream."""
        while not self._hub.covers(position):
            async with aclosing(self._missed(stream, position)) as events:
                async for event in events:
                    yield event
            position = stream.position or position
        watcher = Watcher(stream.filter, position.epoch, position.revision)
        self._hub.attach(watcher)
        try:
            while True:
                for event in await watcher.take():
                    yield event
                stream.position = Clock(watcher.epoch, watcher.revision)
        except Interrupted:
            return
        finally:
            self._hub.detach(watcher)

    async def _missed(self, stream: "_Stream", position: Clock) -> AsyncGenerator[bytes]:
        """Send from the history what follows ``position``, up to where the store is now."""
        clock = await self._store.clock()
        if clock.epoch != position.epoch:
            raise EpochChanged(position.epoch, clock.epoch)
        sets, after, full = _Sets(clock), position.revision, True
        while full:
            await self._check_kept(after, clock)
            changes = await self._store.list_changes(ChangeQuery(*stream.filter, after_revision=after, limit=PAGE))
            full = len(changes) == PAGE
            for event in sets.take(changes, whole=not full):
                yield event
            after = changes[-1].revision if full else max(clock.revision, sets.sent_to)
            stream.position = Clock(clock.epoch, after if not full else max(position.revision, sets.sent_to))

    async def _check_kept(self, revision: int, clock: Clock) -> None:
        """Raise RevisionCompacted unless the change after ``revision`` is kept."""
        if revision >= clock.revision:
            return
        following = await self._store.list_changes(ChangeQuery(after_revision=revision, limit=1))
        if (
            not following
            or following[0].revision != revision + 1
            or not self._retention.keeps(following[0], clock.revision, self._now())
        ):
            raise RevisionCompacted(revision)


_REASONS = {
    EpochChanged: Reset.REASON_EPOCH_CHANGED,
    RevisionCompacted: Reset.REASON_REVISION_COMPACTED,
}


@dataclass(slots=True)
class _Stream:
    """``position``: what has been sent; None before a snapshot. ``live``: whether anything has been."""

    filter: Filter
    position: Clock | None = None
    live: bool = False


class _Sets:
    """Puts pages of the history together to change sets: a page may end within one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._open: list[Change] = []
        self.sent_to = 0

    def take(self, changes: Sequence[Change], *, whole: bool) -> Iterator[bytes]:
        """Return the events of the sets that are complete; ``whole``: no change follows."""
        for change in changes:
            if self._open and _set_of(change) != _set_of(self._open[0]):
                yield from self._close()
            self._open.append(change)
        if self._open and (whole or self._open[-1].ends_set):
            yield from self._close()

    def _close(self) -> Iterator[bytes]:
        end = _set_of(self._open[-1])
        yield from encoding.change_set(Clock(self._clock.epoch, end), list(map(change_to_message, self._open)))
        self._open, self.sent_to = [], end


def _set_of(change: Change) -> int:
    return change.change_set_end or change.revision
