"""How caches learn of a group of mutations: announced before the commit, replaced or dropped after it."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from pointsman_server.domain.routes import RouteKey, Snapshot
from pointsman_server.ports.cache import CacheUnavailable, RouteCache
from pointsman_server.ports.store import Clock
from pointsman_server.runtime.fair_share import FairShare
from pointsman_server.runtime.offload import LARGE
from pointsman_server.writes.batch import Batch


class WrittenCaches:
    """Makes every cache hold the state after a group, and nothing older.

    Routes are replaced. Families, which depend on all of their routes, are dropped; so are the routes of large change
    sets. What the shared cache does not hold is not marked for dropping: its loads hold a lease, which ends after the
    commit.

    A mutation that changes nothing is confirmed in the caches, too. Another server may have made its change a moment
    ago and died before it settled the shared cache, which would then still hold the state before.
    """

    def __init__(
        self,
        cache: RouteCache,
        apply_local_write: Callable[[Sequence[Snapshot]], None],
        supersede: Callable[[Sequence[RouteKey], Sequence[int]], None],
        fair_share: FairShare,
    ) -> None:
        self._cache = cache
        self._apply_local_write = apply_local_write
        self._supersede = supersede
        self._fair_share = fair_share

    async def mark(self, batch: Batch, owner: str) -> None:
        """Announce the changes in the shared cache, before the commit: no reader fills it with the state before."""
        if batch.settled:
            await self._cache.mark(list(batch.settled), owner, list(batch.dropped))
        else:
            await self._cache.mark_held(list(batch.dropped), owner)

    def written(self, batch: Batch) -> "Written":
        """Return what is to be done after the commit."""
        return Written(batch, self._cache, self._apply_local_write, self._supersede, self._fair_share)


class Written:
    """The work after a commit: first this process, then the shared cache."""

    def __init__(
        self,
        batch: Batch,
        cache: RouteCache,
        apply_local_write: Callable[[Sequence[Snapshot]], None],
        supersede: Callable[[Sequence[RouteKey], Sequence[int]], None],
        fair_share: FairShare,
    ) -> None:
        ledger = batch.ledger
        self._fair_share = fair_share
        self._clock = Clock(ledger.epoch, ledger.revision)
        self._cache = cache
        self._apply_local_write = apply_local_write
        self._supersede = supersede
        self._settled = ledger.snapshots(batch.settled)
        self._confirmed, dropped = batch.confirmed()
        self._dropped = batch.dropped | dropped

    async def apply_locally(self) -> None:
        """Bring the caches of this process to the state after the group: without a pause, unless it is a large one."""
        if self._settled or self._confirmed:
            self._apply_local_write([*self._settled, *self._confirmed])
        keys, revisions = list(self._dropped), list(self._dropped.values())
        for start in range(0, len(keys), LARGE):
            if start:
                await self._fair_share.take()
            self._supersede(keys[start : start + LARGE], revisions[start : start + LARGE])

    async def settle(self, owner: str) -> None:
        """Bring the shared cache to it. Best effort: without Redis, entries expire by their time to live."""
        await (asyncio.gather(self._settle(owner), self._confirm()) if self._confirmed else self._settle(owner))

    async def _settle(self, owner: str) -> None:
        if self._settled:
            await self._cache.settle(self._settled, owner, self._dropped)
        elif self._dropped:
            keys, revisions = list(self._dropped), list(self._dropped.values())
            await self._cache.drop_older(keys, revisions, self._clock, owner)

    async def _confirm(self) -> None:
        with suppress(CacheUnavailable):
            await self._cache.consume(self._confirmed)
