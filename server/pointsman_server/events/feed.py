"""The feed: every change, in the order of revisions and without a gap, in every server process.

Changes come from Kafka, from the commits of this process, and from the history in the store. Revisions are dense, so a
gap is visible; it is filled from the history. Without Kafka the history alone feeds.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pointsman_server.domain.errors import RetryLater
from pointsman_server.domain.routes import Change
from pointsman_server.events.subscribers import Subscriber, Subscribers
from pointsman_server.ports.broker import BrokerUnavailable, ChangeStream
from pointsman_server.ports.store import ChangeQuery, Clock, RouteStore

logger = logging.getLogger(__name__)

PAGE = 500
MAX_PENDING = 10_000


@dataclass(frozen=True, slots=True)
class _LocalCommit:
    """A commit of this process that the feed has not reached. Without ``changes`` it is read from the history."""

    epoch: str
    first: int
    last: int
    changes: Sequence[Change] = ()


class Feed:
    """Hands every change to every subscriber once, in the order of revisions.

    Invariants:

    - Subscribers receive the changes of one **change set** by one call of ``apply``. Revisions of a set are
      consecutive.
    - What one commit of this process made (a transaction of the group committer, a chunk of an import) is one set, and
      nothing else is in it. Kafka and the pages of the history do not split it, provided that ``on_committed`` or
      ``on_imported`` was called before the feed reached its first revision; they are called right after the commit. If
      a part was already read from Kafka or the history by then, the rest is a set.
    - Changes of other processes do not say which commit they belong to: a set of them holds what was available, so it
      may hold several commits, or a part of one.
    - A subscriber that raises is logged, called with ``start_over`` at the revision reached, and continues from there.
      Until ``start_over`` succeeds it receives nothing else. The other subscribers and the feed are not affected.
    - Memory: at most ``MAX_PENDING`` changes of other processes, and as many of this process, wait behind a gap; the
      rest is read from the history. A chunk of an import is held while it is read.
    """

    def __init__(
        self,
        history: RouteStore,
        stream: ChangeStream | None,
        *,
        poll_seconds: float = 0.5,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """``stream``: None to read the history only. ``poll_seconds``: the longest time between two reads of it."""
        self._history = history
        self._stream = stream
        self._now = now
        self._read_at = float("-inf")
        self._poll_seconds = poll_seconds
        self._subscribers = Subscribers()
        self._pending: dict[int, Change] = {}
        # By first revision: commits of this process that wait for what was committed before them.
        self._local: dict[int, _LocalCommit] = {}
        self._held_changes = 0
        self._epoch = ""
        self.revision = 0
        self.connected = False

    def subscribe(self, subscriber: Subscriber, *, local_writes: bool = True) -> None:
        """Add a subscriber, called after those that are there. It starts at the revision that the feed has reached.

        ``local_writes``: False for one that this process's writes reach directly. For those the feed calls only
        ``advance``, and imports need not be read from the history.
        """
        clock = Clock(self._epoch, self.revision) if self._epoch else None
        self._subscribers.add(subscriber, clock, local_writes=local_writes)

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Remove a subscriber: it is not called any more."""
        self._subscribers.remove(subscriber)

    def on_clock(self, clock: Clock) -> None:
        """Receive the clock of the store. On another epoch, the next step starts over."""
        if clock.epoch != self._epoch:
            self._epoch = ""

    def on_committed(self, changes: Sequence[Change]) -> None:
        """Receive the changes of one commit of this process, at least one, in order."""
        first, last = changes[0], changes[-1]
        # Read from the history instead, when no subscriber needs them now or too many are held.
        if not self._subscribers.need_local_writes or self._held_changes + len(changes) > MAX_PENDING:
            changes = ()
        self._add_local(_LocalCommit(last.epoch, first.revision, last.revision, changes))

    def on_imported(self, epoch: str, first: int, last: int) -> None:
        """Receive the revisions of one import of this process. Its changes are read from the history where needed."""
        self._add_local(_LocalCommit(epoch, first, last))

    async def run(self) -> None:
        """Feed until cancelled. After an error, try again; caches expire by their time to live meanwhile."""
        while True:
            try:
                await self.step()
            except RetryLater:
                await asyncio.sleep(self._poll_seconds)
            except Exception:
                logger.exception("the feed failed")
                await asyncio.sleep(self._poll_seconds)

    async def step(self) -> None:
        """Wait for changes and hand them over. Raises StoreUnavailable and Overloaded."""
        if not self._epoch:
            await self._begin()
        changes = await self._receive()
        if not self._epoch:
            return  # it ended meanwhile: nothing may be confirmed before the next step starts over
        self._hold(changes)
        progress = self._hand_over_ready()
        has_gap = bool(self._pending) or self.revision + 1 in self._local
        if has_gap or not progress or self._now() - self._read_at > self._poll_seconds / 2:
            await self._catch_up()

    async def _begin(self) -> None:
        clock = await self._history.clock()
        self._pending.clear()
        self._epoch, self.revision = clock.epoch, clock.revision
        waiting, self._local, self._held_changes = self._local, {}, 0
        self._subscribers.start_over(clock)
        for commit in waiting.values():
            self._add_local(commit)

    async def _receive(self) -> Sequence[Change]:
        if self._stream is None:
            await asyncio.sleep(self._poll_seconds)
            return ()
        try:
            changes = await self._stream.receive(self._poll_seconds)
        except BrokerUnavailable as error:
            self._set_connected(connected=False, error=error)
            await asyncio.sleep(self._poll_seconds)
            return ()
        self._set_connected(connected=True)
        return changes

    def _hold(self, changes: Iterable[Change]) -> None:
        for change in changes:
            if change.epoch == self._epoch and change.revision > self.revision:
                self._pending[change.revision] = change
        if len(self._pending) > MAX_PENDING:
            self._pending.clear()  # the history has them

    def _add_local(self, commit: _LocalCommit) -> None:
        """Hold what the feed has not reached of a commit, and hand it over if it is next."""
        if self._epoch and commit.epoch != self._epoch:
            return
        first = max(commit.first, self.revision + 1) if self._epoch else commit.first
        # A commit that is not held comes as one of another process does.
        if first > commit.last or len(self._local) >= MAX_PENDING:
            return
        changes = commit.changes[first - commit.first :]
        self._local[first] = _LocalCommit(commit.epoch, first, commit.last, changes)
        self._held_changes += len(changes)
        if self._epoch:
            self._hand_over_ready()

    def _hand_over_ready(self) -> bool:
        """Hand over what continues the revision. Returns whether there was any."""
        before = self.revision
        while True:
            first = self.revision + 1
            if first in self._local:
                if not self._hand_over_local(self._local[first]):
                    break
            elif first in self._pending:
                self._hand_over_pending(first)
            else:
                break
        return self.revision > before

    def _hand_over_local(self, commit: _LocalCommit) -> bool:
        """Hand over a commit of this process as one set. Returns False when its changes must be read first."""
        revisions = range(commit.first, commit.last + 1)
        changes = commit.changes
        if not changes and self._subscribers.need_local_writes:
            if not all(revision in self._pending for revision in revisions):
                return False
            changes = [self._pending[revision] for revision in revisions]
        del self._local[commit.first]
        self._held_changes -= len(commit.changes)
        if self._pending:
            for revision in revisions:
                self._pending.pop(revision, None)
        self._hand_over(changes, commit.last, local=True)
        return True

    def _hand_over_pending(self, first: int) -> None:
        """Hand over changes of other processes, up to the next gap or commit of this process."""
        changes = []
        revision = first
        while revision in self._pending and revision not in self._local:
            changes.append(self._pending.pop(revision))
            revision += 1
        self._hand_over(changes, revision - 1, local=False)

    def _hand_over(self, changes: Sequence[Change], last: int, *, local: bool) -> None:
        # Before the calls: a subscriber that is added by one of them starts after these changes.
        self.revision = last
        self._subscribers.hand_over(changes, Clock(self._epoch, last), local=local)

    async def _catch_up(self) -> None:
        """Read the history from where the feed is to its end."""
        epoch, reached = self._epoch, self.revision
        while True:
            read_at = self._now()
            changes = await self._history.list_changes(ChangeQuery(after_revision=reached, limit=PAGE))
            if self._epoch != epoch:
                return  # the changes are of the epoch before
            if any(change.epoch != epoch for change in changes):
                self._epoch = ""  # the next step starts over
                return
            self._pending.update((change.revision, change) for change in changes if change.revision > self.revision)
            self._hand_over_ready()
            # Ahead of ``self.revision`` in the middle of an import of this process.
            reached = max(self.revision, changes[-1].revision if changes else 0)
            if len(changes) < PAGE:
                if self.revision < reached:
                    logger.error("the history lacks revision %d: the feed starts over", self.revision + 1)
                    self._epoch = ""
                    return
                self._read_at = read_at
                self._subscribers.confirm(read_at, Clock(epoch, self.revision))
                return

    def _set_connected(self, *, connected: bool, error: Exception | None = None) -> None:
        # One log line per outage.
        if connected != self.connected:
            news = "is connected" if connected else f"is disconnected: {error}"
            logger.log(logging.INFO if connected else logging.WARNING, "the feed %s", news)
        self.connected = connected
