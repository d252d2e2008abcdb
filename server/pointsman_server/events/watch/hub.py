"""Fans the changes of the feed out to the streams of this process."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Protocol

from pointsman_server.domain.errors import StoreUnavailable
from pointsman_server.domain.routes import Change
from pointsman_server.events.subscribers import Subscriber
from pointsman_server.events.watch import encoding
from pointsman_server.events.watch.change_set import ChangeSet
from pointsman_server.events.watch.filters import Filter, FilterIndex
from pointsman_server.events.watch.observer import SILENT, WatchObserver
from pointsman_server.events.watch.recent import RecentChanges
from pointsman_server.events.watch.watcher import Watcher
from pointsman_server.ports.store import Clock
from pointsman_server.runtime.fair_share import WOKEN_IN_A_TURN, FairShare, Pacing, Window
from pointsman_server.telemetry.tracing import spans
from pointsman_server.telemetry.tracing.spans import Kind

logger = logging.getLogger(__name__)

# Streams receive a checkpoint every CHECKPOINT_SECONDS, a share of them at each beat, so that they do not all write at
# once. The protocol promises one every 5 seconds.
CHECKPOINT_SECONDS = 4.0
BEATS = 20
# The hub stays with the feed for so many seconds after its last stream: clients that come back resume from memory.
LINGER_SECONDS = 300.0
START_SECONDS = 2.0
# Streams that are asked to report their progress: their reports leave most of a core to other calls.
ASKED_PER_SECOND = 2_000.0
# Confirmations of the feed that wait until streams have been handed what they are about.
MOST_CONFIRMING = 1_000


class Source(Protocol):
    """The feed."""

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
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
        observer: WatchObserver = SILENT,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """``recent_changes``: how many are kept in memory for streams that resume."""
        self._fair_share = fair_share
        self._checkpoint_seconds = checkpoint_seconds
        self._observer = observer
        self._now = now
        self._source: Source | None = None
        self._subscribed = False
        self._streams = 0
        self._idle_since = now()
        self._started = asyncio.Event()
        self.recent = RecentChanges(recent_changes)
        self._beat = 0
        # The changes of a set that is not complete, and the complete sets that wait to be sent.
        self._open: list[Change] = []
        self._sets: deque[ChangeSet] = deque()
        self._received = 0
        self._work = asyncio.Event()
        # Held while streams are handed a set or a checkpoint: between the two, a checkpoint would overtake the set.
        self._handing_over = asyncio.Lock()
        # Every stream has been handed what there is up to this revision.
        self._handed_over = 0
        # At this moment, in monotonic seconds, the store had no change beyond what streams have been handed. Before
        # that: moments at which it had none beyond a revision that they have not been handed yet.
        self._confirmed_at = float("-inf")
        self._confirming: deque[tuple[int, float]] = deque(maxlen=MOST_CONFIRMING)
        self._pacing = Pacing(fair_share)
        self._report_from = 0
        self._asking = asyncio.Event()
        self.epoch = ""
        self._forget_watchers()

    @property
    def clock(self) -> Clock:
        """What a stream that begins now is given."""
        return Clock(self.epoch, self.recent.revision)

    @property
    def watchers(self) -> int:
        """How many streams receive changes."""
        return sum(map(len, self._groups.values()))

    def use(self, source: Source | None) -> None:
        """Set the feed; None before it begins."""
        self._source = source

    def enter(self) -> None:
        """Count a stream, and subscribe to the feed with the first one."""
        self._streams += 1
        self._observer.opened()
        if not self._subscribed and self._source is not None:
            self._subscribed = True
            self._source.subscribe(self)

    def leave(self) -> None:
        """Count a stream that has ended."""
        self._streams -= 1
        self._observer.closed()
        self._idle_since = self._now()

    async def ready(self) -> None:
        """Wait until changes arrive here. Raises StoreUnavailable when the feed does not begin in time."""
        if self._started.is_set():
            return
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._started.wait()
        except TimeoutError:
            raise StoreUnavailable from None

    # The feed calls these.

    def start_over(self, clock: Clock) -> None:
        """Interrupt every stream, unless nothing was missed."""
        if clock == Clock(self.epoch, self._received):
            return
        self._forget(clock)

    def apply(self, changes: Sequence[Change]) -> None:
        """Queue the change sets that are complete."""
        for change in changes:
            self._open.append(change)
            self._received = change.revision
            if change.ends_set:
                self._sets.append(ChangeSet(Clock(change.epoch, change.revision), self._open))
                self._open = []
        self._work.set()

    def advance(self, revision: int) -> None:
        """Do nothing: ``apply`` brought every change."""

    def confirm(self, moment: float) -> None:
        """Note when the feed last knew that it had everything; it counts once streams have been handed that."""
        self._confirming.append((self._received, moment))
        self._settle_confirmed()

    # Streams call these.

    def covers(self, clock: Clock) -> bool:
        """Return whether a stream can go on from ``clock`` without the store."""
        return clock.epoch == self.epoch and clock.revision >= self.recent.complete_from

    def attach(self, watcher: Watcher) -> None:
        """Queue what follows the watcher's position, which must be covered; then a checkpoint, and what comes later."""
        for changes in self.recent.after(watcher.queued):
            watcher.put_changes(changes.events_of(watcher.filter), changes.clock.revision)
        group = self._groups.setdefault(watcher.filter, {})
        group[watcher] = None
        self._index.add(watcher.filter)
        watcher.beat = min(range(BEATS), key=lambda beat: len(self._beats[beat]))
        self._beats[watcher.beat][watcher] = None
        watcher.put_checkpoint(self._checkpoint(), self.recent.revision)

    def detach(self, watcher: Watcher) -> None:
        """Forget a stream that has ended."""
        watcher.interrupt()
        self._to_ask.pop(watcher, None)
        group = self._groups.get(watcher.filter)
        if group is None or watcher not in group:
            return
        del group[watcher], self._beats[watcher.beat][watcher]
        if not group:
            del self._groups[watcher.filter]
            self._index.discard(watcher.filter)

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
            try:
                await self.step()
            except Exception:
                # Streams read from the store what they have not been handed.
                logger.exception("watch failed to send changes: every stream resumes")
                self._forget(Clock(self.epoch, self._received))

    async def step(self) -> None:
        """Hand over the change sets that wait, and then begin to ask for progress."""
        while self._sets:
            first = self._sets[0]
            with spans.of_changes("send to watchers", Kind.PRODUCER, first.unsent) as span:
                if span.recording:
                    span.set({"pointsman.revision": first.clock.revision, "pointsman.watchers": self.watchers})
                await self._send(first)
        if 0 < self._report_from <= self._handed_over:
            self._report_from = 0
            self._to_ask.update(dict.fromkeys(self._all()))
            self._asking.set()

    async def send_requests(self) -> None:
        """Ask streams to report their progress, some at a time, until cancelled: each report is a call."""
        while True:
            await self._asking.wait()
            self._asking.clear()
            while asked := await self.ask_some():  # noqa: ASYNC110 - a pace
                await asyncio.sleep(asked / ASKED_PER_SECOND)

    async def ask_some(self) -> int:
        """Ask the next streams that are to be asked; return how many."""
        some = list(islice(self._to_ask, WOKEN_IN_A_TURN))
        for watcher in some:
            del self._to_ask[watcher]
        if some:
            async with self._handing_over:
                await self._put_checkpoints(some, report_progress=True)
        return len(some)

    async def send_checkpoints(self) -> None:
        """Send checkpoints, a share of the streams at a time, until cancelled."""
        while True:
            await asyncio.sleep(self._checkpoint_seconds / BEATS)
            await self.beat()

    async def beat(self) -> None:
        """Send a checkpoint to the next share of the streams; leave the feed when there have been none for long."""
        self._beat = (self._beat + 1) % BEATS
        if self._beats[self._beat]:
            async with self._handing_over:
                await self._put_checkpoints(self._beats[self._beat])
        if self._subscribed and not self._streams and self._now() - self._idle_since > LINGER_SECONDS:
            self._leave_feed()

    def _leave_feed(self) -> None:
        if self._source is not None:
            self._source.unsubscribe(self)
        self._subscribed = False
        self._forget(Clock("", 0))

    def _forget(self, clock: Clock) -> None:
        """Go on after ``clock``, with nothing from before; streams go on from the store."""
        self.epoch, self._received, self._handed_over = clock.epoch, clock.revision, clock.revision
        self.recent.start_over(clock.revision)
        self._sets.clear()
        self._open = []
        self._confirming.clear()
        # A revision of another epoch may never be reached.
        self._report_from = 0
        self._started.clear()
        for watcher in self._all():
            watcher.interrupt()
        self._forget_watchers()

    def _forget_watchers(self) -> None:
        self._groups: dict[Filter, dict[Watcher, None]] = {}
        self._to_ask: dict[Watcher, None] = {}
        self._index = FilterIndex()
        self._beats: list[dict[Watcher, None]] = [{} for _ in range(BEATS)]

    def _settle_confirmed(self) -> None:
        while self._confirming and self._confirming[0][0] <= self._handed_over:
            _, self._confirmed_at = self._confirming.popleft()
            self._started.set()

    async def _send(self, changes: ChangeSet) -> None:
        await changes.encode(self._fair_share)
        async with self._handing_over:
            # After each pause the feed may have started over: then the set is of no use, and another may be the first.
            if not self._is_next(changes):
                return
            self.recent.append(changes)
            index, groups = self._index, self._groups
            events = await changes.pick(index, self._fair_share)
            if not self._is_next(changes):
                return
            revision = changes.clock.revision
            puts = [(watcher, events[wanted]) for wanted in events for watcher in groups.get(wanted, ())]
            self._observer.queued(len(puts))
            await self._wake(puts, lambda watcher, its: watcher.put_changes(its, revision))
            if self._is_next(changes):
                self._sets.popleft()
                self._handed_over = revision
                self._settle_confirmed()

    def _is_next(self, changes: ChangeSet) -> bool:
        return bool(self._sets) and self._sets[0] is changes

    async def _put_checkpoints(self, watchers: Iterable[Watcher], *, report_progress: bool = False) -> None:
        event, revision = self._checkpoint(report_progress=report_progress), self.recent.revision
        puts = [(watcher, (event,)) for watcher in watchers]
        await self._wake(puts, lambda watcher, its: watcher.put_checkpoint(its[0], revision))

    async def _wake(
        self, puts: Sequence[tuple[Watcher, Sequence[bytes]]], put: Callable[[Watcher, Sequence[bytes]], None]
    ) -> None:
        def wake(its: tuple[Watcher, Sequence[bytes]], window: Window) -> None:
            put(*its)
            its[0].join(window)

        await self._pacing.wake(puts, wake)

    def _all(self) -> list[Watcher]:
        return [watcher for group in self._groups.values() for watcher in group]

    def _checkpoint(self, *, report_progress: bool = False) -> bytes:
        age = max(0.0, self._now() - self._confirmed_at)
        return encoding.checkpoint(self.clock, datetime.now(UTC), age, report_progress=report_progress)
