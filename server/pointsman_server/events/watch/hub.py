"""Fans the changes of the feed out to the streams of this process."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

from pointsman_server.domain.errors import EpochChanged, StoreUnavailable
from pointsman_server.domain.routes import Change
from pointsman_server.events.subscribers import Subscriber
from pointsman_server.events.watch import encoding
from pointsman_server.events.watch.filters import Filter, FilterIndex
from pointsman_server.events.watch.recent import ChangeSet, RecentChanges
from pointsman_server.events.watch.watcher import Watcher
from pointsman_server.ports.store import Clock
from pointsman_server.runtime.fair_share import FairShare

# Changes that are encoded, and streams that are woken, before other work gets its turn: some two milliseconds.
ENCODED_IN_A_TURN = 100
WOKEN_IN_A_TURN = 100
# Streams receive a checkpoint every CHECKPOINT_SECONDS, a share of them at each beat, so that they do not all write at
# once. The protocol promises one every 5 seconds.
CHECKPOINT_SECONDS = 4.0
BEATS = 20
# The hub stays with the feed for so many seconds after its last stream: clients that come back resume from memory.
LINGER_SECONDS = 300.0
START_SECONDS = 2.0


class Source(Protocol):
    """The feed."""

    revision: int

    def subscribe(self, subscriber: Subscriber) -> None: ...

    def unsubscribe(self, subscriber: Subscriber) -> None: ...


class WatchHub:
    """A subscriber of the feed, while there are streams: hands every change set to those whose filter it matches.

    Invariants:

    - A stream receives what follows its revision in order, without a gap and without a repetition, each change set
      whole; or it is interrupted, and goes on from the store.
    - A change set is encoded once for each filter, whatever the number of streams.
    - A checkpoint follows everything up to its revision.
    - Large sets and many streams take turns with other work (``FairShare``). So streams are behind the feed by the
      time that takes.
    """

    def __init__(
        self,
        fair_share: FairShare,
        *,
        recent_changes: int = 10_000,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """``recent_changes``: how many are kept in memory for streams that resume."""
        self._fair_share = fair_share
        self._now = now
        self._source: Source | None = None
        self._subscribed = False
        self._idle_since = now()
        self._started = asyncio.Event()
        self._recent = RecentChanges(recent_changes)
        self._index = FilterIndex()
        self._groups: dict[Filter, dict[Watcher, None]] = {}
        self._beats: list[dict[Watcher, None]] = [{} for _ in range(BEATS)]
        self._beat = 0
        # The changes of a set that is not complete, and the complete sets that wait to be sent.
        self._open: list[Change] = []
        self._sets: deque[ChangeSet] = deque()
        self._work = asyncio.Event()
        # At this moment, in monotonic seconds, the store had no change beyond what streams have been given.
        self._confirmed_at = float("-inf")
        self._report_from = 0
        self.epoch = ""

    @property
    def clock(self) -> Clock:
        """What streams have been given."""
        return Clock(self.epoch, self._recent.revision)

    @property
    def watchers(self) -> int:
        """How many streams there are."""
        return sum(map(len, self._groups.values()))

    def use(self, source: Source | None) -> None:
        """Set the feed; None before it begins."""
        self._source = source

    async def ready(self) -> None:
        """Wait until changes arrive here. Raises StoreUnavailable when the feed cannot begin in time."""
        if not self._subscribed and self._source is not None:
            self._subscribed = True
            self._source.subscribe(self)
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._started.wait()
        except TimeoutError:
            raise StoreUnavailable from None

    # The feed calls these.

    def start_over(self, clock: Clock) -> None:
        """Interrupt every stream that may have missed something."""
        if clock == self.clock and not self._sets and not self._open:
            return
        self._sets.clear()
        self._open.clear()
        self.epoch = clock.epoch
        self._recent.start_over(clock.revision)
        self._started.clear()
        for watcher in self._all():
            watcher.interrupt()
        self._groups.clear()
        self._index = FilterIndex()
        self._beats = [{} for _ in range(BEATS)]

    def apply(self, changes: Sequence[Change]) -> None:
        """Queue the change sets that are complete."""
        for change in changes:
            self._open.append(change)
            if change.ends_set:
                clock = Clock(change.epoch, change.revision)
                self._sets.append(ChangeSet(clock, self._open))
                self._open = []
        self._work.set()

    def advance(self, revision: int) -> None:
        """Do nothing: ``apply`` brought every change."""

    def confirm(self, moment: float) -> None:
        """Note when the feed last knew that it had everything, if streams have been given it."""
        if not self._open and not self._sets:
            self._confirmed_at = moment
            self._started.set()

    # Streams call these.

    def attach(self, watcher: Watcher) -> bool:
        """Queue what follows the watcher's revision, now and from now on.

        Returns False, and does nothing, when that must be read from the store first. Raises EpochChanged.
        """
        if watcher.epoch != self.epoch:
            raise EpochChanged(watcher.epoch, self.epoch)
        if watcher.revision < self._recent.complete_from:
            return False
        for changes in self._recent.after(watcher.revision):
            watcher.put_changes(changes.events_of(watcher.filter), changes.clock.revision)
        self._groups.setdefault(watcher.filter, {})[watcher] = None
        self._index.add(watcher.filter)
        min(self._beats, key=len)[watcher] = None
        watcher.put_checkpoint(self._checkpoint(), self._recent.revision)
        return True

    def detach(self, watcher: Watcher) -> None:
        """Forget a stream that has ended."""
        group = self._groups.get(watcher.filter, {})
        group.pop(watcher, None)
        if not group and self._groups.pop(watcher.filter, None) is not None:
            self._index.discard(watcher.filter)
        for beat in self._beats:
            beat.pop(watcher, None)
        if not self._groups:
            self._idle_since = self._now()

    def covers(self, clock: Clock) -> bool:
        """Return whether a stream can go on from ``clock`` without the store."""
        return clock.epoch == self.epoch and clock.revision >= self._recent.complete_from

    def request_progress(self, revision: int) -> None:
        """Ask every stream to report its progress once it has ``revision``."""
        self._report_from = max(self._report_from, revision)
        self._work.set()

    # Tasks of the process.

    async def send_changes(self) -> None:
        """Encode and hand over change sets until cancelled."""
        while True:
            await self._work.wait()
            self._work.clear()
            while self._sets:
                await self._send(self._sets[0])
            if 0 < self._report_from <= self._recent.revision:
                self._report_from = 0
                await self._wake(self._all(), self._checkpoint(report_progress=True))

    async def send_checkpoints(self) -> None:
        """Send checkpoints, a share of the streams at a time, until cancelled."""
        while True:
            await asyncio.sleep(CHECKPOINT_SECONDS / BEATS)
            await self.beat()

    async def beat(self) -> None:
        """Send a checkpoint to the next share of the streams; leave the feed when there have been none for long."""
        self._beat = (self._beat + 1) % BEATS
        if self._beats[self._beat]:
            await self._wake(self._beats[self._beat], self._checkpoint())
        if self._subscribed and not self._groups and self._now() - self._idle_since > LINGER_SECONDS:
            self._leave_feed()

    def _leave_feed(self) -> None:
        if self._source is not None:
            self._source.unsubscribe(self)
        self._subscribed = False
        self._started.clear()
        self._sets.clear()
        self._open.clear()
        self._recent.start_over(0)
        self.epoch = ""

    async def _send(self, changes: ChangeSet) -> None:
        await changes.encode(self._fair_share, ENCODED_IN_A_TURN)
        if not self._sets or self._sets[0] is not changes:
            return  # the feed started over meanwhile
        self._sets.popleft()
        self._recent.append(changes)
        revision = changes.clock.revision
        for wanted in self._matching(changes):
            events = changes.events_of(wanted)
            put = partial(Watcher.put_changes, events=events, revision=revision)
            await self._in_turns(self._groups.get(wanted, ()), put)

    def _matching(self, changes: ChangeSet) -> Iterable[Filter]:
        return dict.fromkeys(wanted for change in changes.changes for wanted in self._index.matching(change.key))

    async def _wake(self, watchers: Iterable[Watcher], checkpoint: bytes) -> None:
        put = partial(Watcher.put_checkpoint, event=checkpoint, revision=self._recent.revision)
        await self._in_turns(watchers, put)

    async def _in_turns(self, watchers: Iterable[Watcher], do: Callable[[Watcher], None]) -> None:
        everyone = list(watchers)
        for start in range(0, len(everyone), WOKEN_IN_A_TURN):
            if start:
                await self._fair_share.take()
            for watcher in everyone[start : start + WOKEN_IN_A_TURN]:
                do(watcher)

    def _all(self) -> Iterator[Watcher]:
        return (watcher for group in list(self._groups.values()) for watcher in group)

    def _checkpoint(self, *, report_progress: bool = False) -> bytes:
        age = max(0.0, self._now() - self._confirmed_at)
        return encoding.checkpoint(self.clock, datetime.now(UTC), age, report_progress=report_progress)
