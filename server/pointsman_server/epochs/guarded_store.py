"""Wrappers of the store and the stream that check the epoch: nothing is read or written after a restore is detected."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime

from pointsman_server.domain.errors import StoreRestored
from pointsman_server.domain.routes import Change, Route, RouteKey, Snapshot, Traffic, Wanted
from pointsman_server.epochs.tracker import EpochTracker
from pointsman_server.ports.broker import ChangeStream
from pointsman_server.ports.bulk_store import BulkStore, Existing, ImportTransaction, LockedImport, Merged
from pointsman_server.ports.history import RouteHistory
from pointsman_server.ports.store import (
    ChangeQuery,
    Clock,
    Intent,
    LockedState,
    MutationScope,
    RouteQuery,
    RouteStore,
    RouteTransaction,
    StoredOutcome,
    Table,
    TrafficQuery,
)


class GuardedStore:
    """A RouteStore that raises StoreRestored while the store is behind its known state."""

    def __init__(self, store: RouteStore, epochs: EpochTracker) -> None:
        self._store = store
        self._epochs = epochs

    async def load(self, keys: Sequence[RouteKey]) -> list[Snapshot]:
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
            # The epoch changed during the read: read again.

    def begin(self) -> AbstractAsyncContextManager[RouteTransaction]:
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
        self._epochs.check()
        return await self._store.list_routes(query)

    async def list_traffic(self, query: TrafficQuery) -> list[Traffic]:
        self._epochs.check()
        return await self._store.list_traffic(query)

    @asynccontextmanager
    async def scan(self, query: RouteQuery) -> AsyncIterator[Table]:
        self._epochs.check()
        before = self._epochs.seen
        async with self._store.scan(query) as table:
            self._epochs.read(table.clock, before)
            self._epochs.check()
            yield table

    async def compacted(self) -> int:
        return await self._store.compacted()

    async def list_changes(self, query: ChangeQuery) -> list[Change]:
        self._epochs.check()
        return await self._store.list_changes(query)

    async def clock(self) -> Clock:
        """Does not raise StoreRestored: it shows when the store is usable again."""
        before = self._epochs.seen
        clock = await self._store.clock()
        self._epochs.read(clock, before)
        return clock


class GuardedHistory:
    """A RouteHistory that raises StoreRestored while the store is behind its known state."""

    def __init__(self, history: RouteHistory, epochs: EpochTracker) -> None:
        self._history = history
        self._epochs = epochs

    async def revision_at(self, moment: datetime) -> int:
        self._epochs.check()
        return await self._history.revision_at(moment)

    async def load_as_of(self, keys: Sequence[RouteKey], revision: int) -> list[Snapshot]:
        self._epochs.check()
        return await self._history.load_as_of(keys, revision)

    async def list_routes_as_of(self, query: RouteQuery, revision: int) -> list[Route]:
        self._epochs.check()
        return await self._history.list_routes_as_of(query, revision)


class GuardedBulkStore:
    """A BulkStore that raises StoreRestored while the store is behind its known state."""

    def __init__(self, store: BulkStore, epochs: EpochTracker) -> None:
        self._store = store
        self._epochs = epochs

    def begin_import(self) -> AbstractAsyncContextManager[ImportTransaction]:
        return self._begin()

    @asynccontextmanager
    async def _begin(self) -> AsyncIterator[ImportTransaction]:
        self._epochs.check()
        async with self._store.begin_import() as transaction:
            guarded = _GuardedImport(transaction, self._epochs)
            yield guarded
        if guarded.merged:
            self._epochs.witness(guarded.merged.epoch, guarded.merged.imported.revision)


class WitnessedStream:
    """A ChangeStream that notes the revisions it receives: a published change was committed before."""

    def __init__(self, stream: ChangeStream, epochs: EpochTracker) -> None:
        self._stream = stream
        self._epochs = epochs

    async def receive(self, seconds: float) -> Sequence[Change]:
        changes = await self._stream.receive(seconds)
        for change in changes:
            self._epochs.witness(change.epoch, change.revision)
        return changes

    async def close(self) -> None:
        await self._stream.close()


class _GuardedTransaction:
    """Raises StoreRestored, so that the block rolls back, rather than assign a revision a second time."""

    def __init__(self, transaction: RouteTransaction, epochs: EpochTracker) -> None:
        self._transaction = transaction
        self._epochs = epochs
        self._locked: Clock  # set by ``lock``, which comes first
        self.changes: Sequence[Change] = ()

    async def lock(self, scopes: Sequence[MutationScope]) -> LockedState:
        """The clock is locked, so the epoch cannot change before the commit."""
        before = self._epochs.seen
        locked = await self._transaction.lock(scopes)
        self._locked = locked.clock
        self._epochs.held(self._locked, before)
        return locked

    async def record(self, changes: Sequence[Change], remembered: Sequence[StoredOutcome]) -> None:
        self._epochs.check_lock(self._locked)
        await self._transaction.record(changes, remembered)
        self.changes = changes


class _GuardedImport:
    """Raises StoreRestored, so that the block rolls back, rather than assign a revision a second time."""

    def __init__(self, transaction: ImportTransaction, epochs: EpochTracker) -> None:
        self._transaction = transaction
        self._epochs = epochs
        self._clock: Clock  # set by ``lock``, which comes before ``merge``
        self.merged: Merged | None = None

    async def remembered(self, tenant: str, intent: Intent) -> Merged | None:
        known = await self._transaction.remembered(tenant, intent)
        if known and known.epoch != self._epochs.epoch:
            # It may be a new epoch or an old one. The health monitor reads the clock every second and finds out.
            raise StoreRestored
        return known

    async def stage(self, wanted: Sequence[Wanted]) -> None:
        await self._transaction.stage(wanted)

    async def lock(self, tenant: str, intent: Intent, existing: Existing) -> LockedImport:
        """The clock is locked, so the epoch cannot change before the commit."""
        before = self._epochs.seen
        locked = await self._transaction.lock(tenant, intent, existing)
        self._clock = locked.clock
        self._epochs.held(self._clock, before)
        return locked

    async def merge(self) -> Merged:
        self._epochs.check_lock(self._clock)
        self.merged = await self._transaction.merge()
        return self.merged
