"""Which history the store tells, and whether it is still the one that was seen before.

Revisions count the changes of one history, and the epoch names it. When PostgreSQL is restored to an older state, or
fails over to a standby that lacks something, the clock goes back: the next writes would be given revisions that
caches, tokens and consumers know as something else. So two things are told apart here:

- **a new epoch** (``pointsman-server restore`` was run): whatever was known of the old one is forgotten;
- **an old revision under the same epoch**: nothing is read from the store and nothing written, until it has a new
  epoch, or is where it was. What caches hold goes on being answered, as while the store is away.

Judging needs care about time: a read may be answered late, and another server may commit while it runs. So a read is
compared with what had been seen *before it began*, which was committed by then.
"""

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from pointsman_server.domain.errors import StoreRestored
from pointsman_server.domain.routes import Change, Route, RouteKey, Snapshot, Wanted
from pointsman_server.ports.store import (
    BulkStore,
    ChangeQuery,
    ChangeStream,
    Clock,
    Existing,
    ImportTransaction,
    Intent,
    LockedImport,
    LockedState,
    Merged,
    MutationScope,
    RouteQuery,
    RouteStore,
    RouteTransaction,
    StoredOutcome,
)
from pointsman_server.runtime.batcher import Batcher

logger = logging.getLogger(__name__)


class EpochTracker:
    """What this process knows of the store's history; ``switched`` is called whenever its epoch has become another.

    Not called for the first epoch: then there is nothing to forget.
    """

    def __init__(self, switched: Callable[[], None] = lambda: None) -> None:
        self._switched = switched
        self._highest: dict[str, int] = {}
        self._left: set[str] = set()
        self._found: Clock | None = None
        self.epoch = ""

    @property
    def seen(self) -> Clock:
        """The epoch, and the highest revision that was surely committed under it."""
        return Clock(self.epoch, self._highest.get(self.epoch, 0))

    @property
    def lost(self) -> str:
        """Say in words how the store fell behind what was seen of it; empty while it did not."""
        if self._found is None:
            return ""
        if self._found.epoch != self.epoch:
            return f"it is back in epoch {self._found.epoch}, which ended when {self.epoch} began"
        return f"it is at revision {self._found.revision}, and was at {self.seen.revision}"

    def is_over(self, epoch: str) -> bool:
        """Say whether the store was in ``epoch`` once and left it, as far as this process saw."""
        return epoch in self._left

    def check(self) -> None:
        """Raise StoreRestored while the store is behind what was seen of it."""
        if self._found is not None:
            raise StoreRestored

    def witness(self, epoch: str, revision: int) -> None:
        """Take note that ``revision`` was committed under ``epoch``, whoever says so."""
        if revision > self._highest.get(epoch, 0):
            self._highest[epoch] = revision

    def held(self, clock: Clock, before: Clock) -> None:
        """Judge the clock that a transaction holds, which read it since ``before`` was seen.

        Raises StoreRestored when it must not go on: nothing was done yet.
        """
        self.read(clock, before)
        self.check()
        if clock.epoch != self.epoch:
            # The epoch became another while it was read, and this is from the one before.
            raise StoreRestored

    def read(self, clock: Clock, before: Clock) -> None:
        """Judge what a read of the store said; ``before`` is ``seen`` when the read began."""
        if before.epoch != self.epoch:
            # The epoch became another meanwhile, so this says nothing about now.
            if clock.epoch == self.epoch:
                self.witness(*_pair(clock))
            return
        if clock.epoch != self.epoch and clock.epoch not in self._left:
            self._switch(clock.epoch)
        elif clock.epoch != self.epoch or clock.revision < before.revision:
            self._lose(clock)
            return
        elif clock.revision >= self.seen.revision:
            self._found = None
        self.witness(*_pair(clock))

    def _switch(self, epoch: str) -> None:
        before, self.epoch, self._found = self.epoch, epoch, None
        if before:
            self._left.add(before)
            logger.warning("the store has a new epoch, %s: dropped what was known of %s", epoch, before)
            self._switched()

    def _lose(self, clock: Clock) -> None:
        first = self._found is None
        self._found = clock
        if first:
            logger.error("the store was restored to an older state: %s; run `pointsman-server restore`", self.lost)


class GuardedStore:
    """A RouteStore that refuses to work, with StoreRestored, on a store that is behind what was seen of it."""

    def __init__(self, store: RouteStore, epochs: EpochTracker) -> None:
        self._store = store
        self._epochs = epochs

    async def load(self, keys: Sequence[RouteKey]) -> list[Snapshot]:
        """See RouteStore.load."""
        while True:
            self._epochs.check()
            before = self._epochs.seen
            found = await self._store.load(keys)
            if not found:
                return found
            self._epochs.read(Clock(found[0].epoch, found[0].as_of), before)
            self._epochs.check()
            if found[0].epoch == self._epochs.epoch:
                return found
            # The epoch became another while it was read, and this is from the one before.

    def begin(self) -> AbstractAsyncContextManager[RouteTransaction]:
        """See RouteStore.begin."""
        return self._begin()

    @asynccontextmanager
    async def _begin(self) -> AsyncIterator[RouteTransaction]:
        self._epochs.check()
        async with self._store.begin() as transaction:
            guarded = _GuardedTransaction(transaction, self._epochs)
            yield guarded
        for change in guarded.changes[-1:]:
            self._epochs.witness(change.epoch, change.revision)

    async def list_routes(self, query: RouteQuery) -> list[Route]:
        """See RouteStore.list_routes."""
        self._epochs.check()
        return await self._store.list_routes(query)

    async def list_changes(self, query: ChangeQuery) -> list[Change]:
        """See RouteStore.list_changes."""
        self._epochs.check()
        return await self._store.list_changes(query)

    async def clock(self) -> Clock:
        """See RouteStore.clock. Never refused: this is how it is noticed that the store is well again."""
        before = self._epochs.seen
        clock = await self._store.clock()
        self._epochs.read(clock, before)
        return clock


class GuardedBulkStore:
    """A BulkStore as ``GuardedStore`` is a RouteStore."""

    def __init__(self, store: BulkStore, epochs: EpochTracker) -> None:
        self._store = store
        self._epochs = epochs

    def begin_import(self) -> AbstractAsyncContextManager[ImportTransaction]:
        """See BulkStore.begin_import."""
        return self._begin()

    @asynccontextmanager
    async def _begin(self) -> AsyncIterator[ImportTransaction]:
        self._epochs.check()
        async with self._store.begin_import() as transaction:
            guarded = _GuardedImport(transaction, self._epochs)
            yield guarded
        if guarded.merged:
            self._epochs.witness(guarded.merged.epoch, guarded.merged.imported.revision)


class RevisionTokens:
    """Says what a token, a revision and the epoch that it counts in, asks of a read now.

    A token of an epoch that is over asks for nothing: its revisions are lost or have been given away again. Whether an
    epoch that is not ours is over or has just begun only the store can tell; many ask it at once by one question.
    """

    def __init__(self, epochs: EpochTracker, store: RouteStore) -> None:
        self._epochs = epochs
        self._store = store
        self._ask: Batcher[str, Clock] = Batcher(self._clocks, size=1000, concurrency=1, queue=1000, limit="epochs")

    async def floor(self, min_revision: int, epoch: str) -> int:
        """Give the revision that an answer must have reached. Raises StoreUnavailable and Overloaded."""
        if epoch != self._epochs.epoch and not self._epochs.is_over(epoch):
            await self._ask.get(epoch)
        return min_revision if epoch == self._epochs.epoch else 0

    async def _clocks(self, epochs: Sequence[str]) -> Sequence[Clock]:
        return [await self._store.clock()] * len(epochs)


class WitnessedStream:
    """A ChangeStream that takes note of what it brings: a change was committed before it was published."""

    def __init__(self, stream: ChangeStream, epochs: EpochTracker) -> None:
        self._stream = stream
        self._epochs = epochs

    async def receive(self, seconds: float) -> Sequence[Change]:
        """See ChangeStream.receive."""
        changes = await self._stream.receive(seconds)
        for change in changes:
            self._epochs.witness(change.epoch, change.revision)
        return changes

    async def close(self) -> None:
        """See ChangeStream.close."""
        await self._stream.close()


class _GuardedTransaction:
    """Rolls back rather than give a revision away a second time."""

    def __init__(self, transaction: RouteTransaction, epochs: EpochTracker) -> None:
        self._transaction = transaction
        self._epochs = epochs
        self._locked = Clock("", 0)
        self.changes: Sequence[Change] = ()

    async def lock(self, asked: Sequence[MutationScope]) -> LockedState:
        """See RouteTransaction.lock. It owns the clock, so what it says of the epoch is true up to the commit."""
        before = self._epochs.seen
        locked = await self._transaction.lock(asked)
        self._locked = locked.clock
        self._epochs.held(self._locked, before)
        return locked

    async def record(self, changes: Sequence[Change], remembered: Sequence[StoredOutcome]) -> None:
        """See RouteTransaction.record. What was seen since the lock must have been committed before it, too."""
        self._epochs.held(self._locked, self._epochs.seen)
        await self._transaction.record(changes, remembered)
        self.changes = changes


class _GuardedImport:
    """As ``_GuardedTransaction``: it rolls back rather than give a revision away a second time."""

    def __init__(self, transaction: ImportTransaction, epochs: EpochTracker) -> None:
        self._transaction = transaction
        self._epochs = epochs
        self._clock = Clock("", 0)
        self.merged: Merged | None = None

    async def remembered(self, tenant: str, intent: Intent) -> Merged | None:
        """See ImportTransaction.remembered."""
        known = await self._transaction.remembered(tenant, intent)
        if known and known.epoch != self._epochs.epoch:
            # Whether that is a new epoch or one that is over is not known here. Somebody else asks each second.
            raise StoreRestored
        return known

    async def stage(self, wanted: Sequence[Wanted]) -> None:
        """See ImportTransaction.stage."""
        await self._transaction.stage(wanted)

    async def lock(self, tenant: str, intent: Intent, existing: Existing) -> LockedImport:
        """See ImportTransaction.lock. It owns the clock, so what it says of the epoch is true up to the commit."""
        before = self._epochs.seen
        locked = await self._transaction.lock(tenant, intent, existing)
        self._clock = locked.clock
        self._epochs.held(self._clock, before)
        return locked

    async def merge(self) -> Merged:
        """See ImportTransaction.merge. What was seen since the lock must have been committed before it, too."""
        self._epochs.held(self._clock, self._epochs.seen)
        self.merged = await self._transaction.merge()
        return self.merged


def _pair(clock: Clock) -> tuple[str, int]:
    return clock.epoch, clock.revision
