"""What one stream of a watch sends: a snapshot or what it missed, and then every change."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing

from pointsman.v1.watch_pb2 import Reset
from pointsman_server.domain.errors import EpochChanged, Overloaded, RevisionCompacted, RevisionNotReached
from pointsman_server.events.watch import encoding
from pointsman_server.events.watch.change_set import ChangeSet
from pointsman_server.events.watch.filters import Filter
from pointsman_server.events.watch.history import History
from pointsman_server.events.watch.hub import WatchHub
from pointsman_server.events.watch.observer import SILENT, WatchObserver
from pointsman_server.events.watch.snapshots import Snapshots
from pointsman_server.events.watch.watcher import Interrupted, Watcher
from pointsman_server.ports.store import Clock, RouteStore
from pointsman_server.runtime.fair_share import FairShare

# Changes in memory that a stream missed and that are sent at once when it attaches; more are sent before.
ATTACHED_AT_ONCE = 100
# How often a stream whose snapshot is of an epoch that the feed has not found yet looks again.
POLL_SECONDS = 0.1

Write = Callable[[bytes], Awaitable[None]]


class WatchStreams:
    """Serves streams."""

    def __init__(
        self,
        hub: WatchHub,
        snapshots: Snapshots,
        history: History,
        store: RouteStore,
        fair_share: FairShare,
        observer: WatchObserver = SILENT,
    ) -> None:
        self._hub = hub
        self._snapshots = snapshots
        self._history = history
        self._store = store
        self._fair_share = fair_share
        self._observer = observer

    async def serve(self, wanted: Filter, resume: Clock | None, write: Write) -> None:
        """Write a snapshot, or what follows ``resume``, and then every change, until cancelled.

        Raises EpochChanged and RevisionCompacted when ``resume`` cannot be continued, RevisionNotReached when the store
        is behind it, Overloaded when the stream is too slow or too many begin, and StoreUnavailable.
        """
        self._hub.enter()
        try:
            async with asyncio.timeout(None) as end:
                await self._serve(_Stream(wanted, write, end), resume)
        except TimeoutError:
            if not end.expired():
                raise
            raise Overloaded("watch_queue") from None
        finally:
            self._hub.leave()

    async def _serve(self, stream: "_Stream", resume: Clock | None) -> None:
        await self._hub.ready()
        if resume is not None:
            await self._check_reached(resume)
            stream.position = resume
        self._observer.began("snapshot" if resume is None else "ring" if self._hub.covers(resume) else "history")
        while True:
            try:
                await (self._follow(stream, stream.position) if stream.position else self._snapshot(stream))
            except (EpochChanged, RevisionCompacted) as error:
                if not stream.live:
                    raise
                # The view of the client is void: it is replaced, in the same stream.
                await stream.send((encoding.reset(_REASONS[type(error)]),))
                stream.position = None
            await self._hub.ready()

    async def _check_reached(self, resume: Clock) -> None:
        clock = self._hub.clock
        if resume.epoch != clock.epoch or resume.revision > clock.revision:
            clock = await self._store.clock()
        if resume.epoch != clock.epoch:
            raise EpochChanged(resume.epoch, clock.epoch)
        if resume.revision > clock.revision:
            raise RevisionNotReached(resume.revision, clock.revision)

    async def _snapshot(self, stream: "_Stream") -> None:
        async with self._snapshots.turn():
            snapshot = await self._snapshots.get(stream.filter)
            await stream.send(snapshot.events_of(stream.filter))
        stream.position = snapshot.clock

    async def _follow(self, stream: "_Stream", position: Clock) -> None:
        """Send what follows ``position``, until the hub interrupts the stream."""
        if not self._hub.covers(position):
            await self._catch_up(stream, position)
            return
        missed = self._hub.recent.after(position.revision)
        if sum(map(len, missed)) > ATTACHED_AT_ONCE:
            await self._replay(stream, missed)
            return

        def end() -> None:
            self._observer.ended_slow()
            stream.end_now()

        watcher = Watcher(stream.filter, position, end)
        self._hub.attach(watcher)
        try:
            while True:
                await stream.send(await watcher.take())
        except Interrupted:
            stream.position = watcher.position
        finally:
            self._hub.detach(watcher)

    async def _replay(self, stream: "_Stream", missed: Sequence[ChangeSet]) -> None:
        """Send sets that are in memory."""
        waiting = ATTACHED_AT_ONCE
        for changes in missed:
            waiting += len(changes)
            if waiting > ATTACHED_AT_ONCE:
                await self._fair_share.take()
                waiting = 0
            await stream.send_set(changes.clock, changes.events_of(stream.filter))

    async def _catch_up(self, stream: "_Stream", position: Clock) -> None:
        """Send from the history what follows ``position``, or read it into memory, where all streams find it."""
        clock = await self._store.clock()
        if clock.epoch != position.epoch:
            raise EpochChanged(position.epoch, clock.epoch)
        if clock.epoch != self._hub.epoch:
            await asyncio.sleep(POLL_SECONDS)
            return
        await self._history.check_kept(position.revision, clock)
        if await self._history.recall(self._hub.recent, position):
            return
        async with aclosing(self._history.missed(stream.filter, position)) as sets:
            async for changes in sets:
                await stream.send_set(changes.clock, changes.events_of(stream.filter))
        reached = stream.position or position
        if reached.revision < clock.revision:
            stream.position = clock


_REASONS = {
    EpochChanged: Reset.REASON_EPOCH_CHANGED,
    RevisionCompacted: Reset.REASON_REVISION_COMPACTED,
}


class _Stream:
    """``position``: what has been sent; None before a snapshot. ``live``: whether anything has been."""

    __slots__ = ("_end", "_write", "filter", "live", "position")

    def __init__(self, wanted: Filter, write: Write, end: asyncio.Timeout) -> None:
        self.filter = wanted
        self.position: Clock | None = None
        self.live = False
        self._write = write
        self._end = end

    async def send(self, events: Sequence[bytes]) -> None:
        if events and not self.live and self.filter.traffic:
            await self._write(encoding.OPENED)
        for event in events:
            await self._write(event)
            self.live = True

    async def send_set(self, clock: Clock, events: Sequence[bytes]) -> None:
        await self.send(events)
        self.position = clock

    def end_now(self) -> None:
        """End the stream also where it waits for its client."""
        self._end.reschedule(0)
