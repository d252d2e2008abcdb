"""Loads the table, and keeps it up to date by the feed."""

import asyncio
import logging
import math
from collections.abc import Collection, Sequence
from itertools import islice

from pointsman_server.domain.errors import RetryLater
from pointsman_server.domain.routes import Change, RouteKey
from pointsman_server.ports.store import Clock, RouteQuery, RouteStore
from pointsman_server.runtime.backoff import Backoff
from pointsman_server.runtime.fair_share import FairShare
from pointsman_server.xds.snapshot import ResourceSnapshot
from pointsman_server.xds.table import Table

logger = logging.getLogger(__name__)

# Routes, or changes, of a batch: about a millisecond between two turns of other work.
BATCH = 100
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 15.0


class TableLoader:
    """A subscriber of the feed.

    Invariants:

    - Nobody is answered before the first table is complete (``loaded``).
    - A table that is loaded again is complete before it replaces the one before, which is served meanwhile: a new
      epoch, a gap or a store that cannot be reached withdraws nothing, and streams are told of differences alone.
    - The snapshot receives change sets whole. A table that is loaded is as of the end of a set, as transactions are; of
      the set that the feed was in the middle of by then, and of those before it, it has everything already.
    - Revisions follow each other: after a gap the table is loaded again.
    - Memory: while a table is loaded, the last change of each key waits.
    """

    def __init__(
        self, store: RouteStore, fair_share: FairShare | None = None, *, backoff: Backoff | None = None
    ) -> None:
        """``fair_share``: whom the loading takes turns with."""
        self._store = store
        self._fair_share = fair_share or FairShare()
        self._backoff = backoff or Backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        self.snapshot = ResourceSnapshot(Table(Clock("", 0)), self._fair_share)
        self._loaded = asyncio.Event()
        self._must_load = asyncio.Event()
        # What the feed has brought: from here, up to here, of which these are of a set that is not complete.
        self._begun = self._received = Clock("", 0)
        self._open: list[Change] = []
        # Whether a table is missing, or lacks changes; then those of the feed wait here. ``starts`` counts how often.
        self._is_behind = True
        # When the table was last known to have every change, in monotonic seconds.
        self.confirmed = -math.inf
        self._waiting: dict[RouteKey, Change] = {}
        self._starts = 0

    @property
    def has_loaded(self) -> bool:
        """Whether there is a table, so that clients can be answered."""
        return self._loaded.is_set()

    @property
    def is_current(self) -> bool:
        """Whether the table follows the feed, and is not to be loaded again."""
        return self.has_loaded and not self._is_behind

    async def loaded(self) -> None:
        """Wait for the first table."""
        await self._loaded.wait()

    async def run(self) -> None:
        """Load whenever that is needed, and wake streams, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.snapshot.run())
            tasks.create_task(self._keep_loaded())

    async def _keep_loaded(self) -> None:
        while True:
            await self._must_load.wait()
            try:
                done = await self.load()
            except RetryLater as error:
                logger.warning("the routes for xDS cannot be loaded yet: %s", error)
                done = False
            except Exception:
                logger.exception("the routes for xDS could not be loaded")
                done = False
            if done:
                self._backoff.reset()
            else:
                await self._backoff.wait()

    # The feed calls these.

    def start_over(self, clock: Clock) -> None:
        """Load the table again, unless nothing was missed."""
        if clock == self._received:
            return
        self._begin_again(clock)

    def apply(self, changes: Sequence[Change]) -> None:
        """Receive changes, and apply the sets that are complete."""
        first = changes[0]
        if Clock(first.epoch, first.revision - 1) != self._received:
            logger.error("changes for xDS begin at %d, and %d was the last", first.revision, self._received.revision)
            self._begin_again(Clock(changes[-1].epoch, changes[-1].revision))
            return
        for change in changes:
            self._open.append(change)
            if change.ends_set:
                complete, self._open = self._open, []
                self._take(complete)
        self._received = Clock(changes[-1].epoch, changes[-1].revision)

    def advance(self, revision: int) -> None:
        """Do nothing: ``apply`` brought every change."""

    def confirm(self, moment: float) -> None:
        """Note when the table lacked nothing."""
        if self.is_current:
            self.confirmed = moment

    def _begin_again(self, clock: Clock) -> None:
        """Go on after ``clock``, with a table that is loaded from now on."""
        self._starts += 1
        self._begun = self._received = clock
        self._open = []
        self._is_behind, self._waiting = True, {}
        self._must_load.set()

    def _take(self, changes: Sequence[Change]) -> None:
        if self._is_behind:
            self._waiting.update((change.key, change) for change in changes)
            return
        reached = self.snapshot.clock.revision
        if later := [change for change in changes if change.revision > reached]:
            self.snapshot.apply(later)

    async def load(self) -> bool:
        """Load a table and serve it. Returns False when that is to be tried again. Raises StoreUnavailable, Overloaded.

        It is, if the feed starts over meanwhile, or has not noticed yet that the store has another epoch.
        """
        starts = self._starts
        async with self._store.scan(RouteQuery(limit=BATCH)) as scanned:
            table = Table(scanned.clock, (), scanned.traffic)
            async for batch in scanned.batches:
                await self._fair_share.take()
                table.add(batch)
        clock = scanned.clock
        if clock.epoch != self._begun.epoch or clock.revision < self._begun.revision:
            return False
        while len(self._waiting) > BATCH and self._starts == starts:
            await self._fair_share.take()
            self._catch_up(table, clock)
        compared = await self.snapshot.compare(table)
        if self._starts != starts:
            return False
        while self._waiting:
            for root in self._catch_up(table, clock):
                compared.pop(root, None)
        self._must_load.clear()
        self._is_behind = False
        self.snapshot.replace(table, compared)
        self._loaded.set()
        return True

    def _catch_up(self, table: Table, clock: Clock) -> Collection[str]:
        """Apply some of what waits, where it is later than ``clock``, of which the table was read."""
        keys = list(islice(self._waiting, BATCH))
        changes = [self._waiting.pop(key) for key in keys]
        return table.apply(change for change in changes if change.revision > clock.revision)
