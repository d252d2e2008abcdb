"""What streams missed, from the history in the store."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from pointsman_server.domain.errors import EpochChanged, RevisionCompacted
from pointsman_server.domain.routes import Change
from pointsman_server.events.watch.change_set import ChangeSet
from pointsman_server.events.watch.filters import Filter
from pointsman_server.events.watch.recent import RecentChanges
from pointsman_server.ports.store import ChangeQuery, Clock, RouteStore
from pointsman_server.runtime.fair_share import FairShare

PAGE = 500
# Pages that are read at once: streams that resume leave connections to the other calls.
READS = 4


@dataclass(frozen=True, slots=True)
class Retention:
    """How much history streams may resume from; 0 is without a limit other than what the store has compacted."""

    changes: int = 1_000_000
    hours: float = 72.0

    def keeps(self, change: Change, revision: int, now: datetime) -> bool:
        """Return whether ``change`` is kept when the store is at ``revision``."""
        if self.changes and change.revision <= revision - self.changes:
            return False
        return not self.hours or change.occur_time > now - timedelta(hours=self.hours)


class History:
    """Reads change sets from the store, a few pages at once."""

    def __init__(
        self,
        store: RouteStore,
        fair_share: FairShare,
        retention: Retention = Retention(),
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._fair_share = fair_share
        self._retention = retention
        self._now = now
        self._reads = asyncio.Semaphore(READS)
        self._recalling = asyncio.Lock()

    async def check_kept(self, revision: int, clock: Clock) -> None:
        """Raise RevisionCompacted unless the change after ``revision`` is kept, with the store at ``clock``."""
        if revision >= clock.revision:
            return
        following = await self._page(ChangeQuery(after_revision=revision, limit=1))
        if (
            not following
            or following[0].epoch != clock.epoch
            or following[0].revision != revision + 1
            or not self._retention.keeps(following[0], clock.revision, self._now())
        ):
            raise RevisionCompacted(revision)

    async def recall(self, recent: RecentChanges, position: Clock) -> bool:
        """Read into memory what follows ``position``, once for all streams that resume; False if it is too much.

        Raises EpochChanged and RevisionCompacted.
        """
        revision = position.revision
        async with self._recalling:
            until, starts = recent.complete_from, recent.starts
            if revision >= until:
                return True
            if until - revision + recent.count > recent.most:
                return False
            query = ChangeQuery(after_revision=revision, before_revision=until + 1, limit=PAGE)
            async with aclosing(self.sets(query, position.epoch)) as sets:
                found = [changes async for changes in sets]
            # Meanwhile what is in memory may have become another epoch's, or less.
            return recent.starts == starts and recent.prepend(revision, found)

    def missed(self, wanted: Filter, position: Clock) -> AsyncGenerator[ChangeSet]:
        """Read the sets after ``position`` in which a change matches, encoded.

        They have changes of traffic whether or not ``wanted`` does: streams send what ``ChangeSet.events_of`` picks.
        Raises EpochChanged and RevisionCompacted.
        """
        tenant, service, env, _ = wanted
        query = ChangeQuery(tenant, service, env, after_revision=position.revision, limit=PAGE)
        return self.sets(query, position.epoch)

    async def sets(self, query: ChangeQuery, epoch: str) -> AsyncGenerator[ChangeSet]:
        """Read what matches, put together to sets: a page may end within one."""
        unfinished: list[Change] = []
        while True:
            before = len(unfinished)
            page = await self._page(query)
            for change in page:
                if change.epoch != epoch:
                    raise EpochChanged(epoch, change.epoch)
                if unfinished and _end_of(change) != _end_of(unfinished[0]):
                    yield await self._closed(unfinished)
                    unfinished = []
                unfinished.append(change)
            if len(page) < query.limit:
                break
            query = replace(query, after_revision=page[-1].revision)
        if unfinished:
            if before:
                await self._check_not_restored(Clock(epoch, _end_of(unfinished[0])))
            yield await self._closed(unfinished)

    async def _check_not_restored(self, end: Clock) -> None:
        """Raise EpochChanged unless the store has ``end``: else the rest of a set went away between two pages."""
        clock = await self._store.clock()
        if clock.epoch != end.epoch or clock.revision < end.revision:
            raise EpochChanged(end.epoch, clock.epoch)

    async def _closed(self, changes: Sequence[Change]) -> ChangeSet:
        one = ChangeSet(Clock(changes[0].epoch, _end_of(changes[0])), changes)
        await self._fair_share.take()
        await one.encode(self._fair_share)
        return one

    async def _page(self, query: ChangeQuery) -> Sequence[Change]:
        """Read a page. Raises RevisionCompacted when changes may be missing from it."""
        async with self._reads:
            page = await self._store.list_changes(query)
            if query.after_revision < await self._store.compacted():
                raise RevisionCompacted(query.after_revision)
            return page


def _end_of(change: Change) -> int:
    """Return the revision of the last change of its set."""
    return change.change_set_end or change.revision
