"""Loads the table, and keeps it up to date by the feed."""

import asyncio
import logging
from collections.abc import Sequence

from pointsman_server.domain.errors import RetryLater
from pointsman_server.domain.routes import Change
from pointsman_server.ports.store import Clock, RouteQuery, RouteStore
from pointsman_server.xds.snapshot import ResourceSnapshot
from pointsman_server.xds.table import Table

logger = logging.getLogger(__name__)

PAGE = 1_000
RETRY_SECONDS = 1.0
# Changes that wait while the table is loaded; with more, it is loaded again.
MOST_WAITING = 100_000


class TableLoader:
    """A subscriber of the feed.

    Invariants:

    - Nobody is answered before the first table is complete (``loaded``).
    - A table that is loaded again is complete before it replaces the one before, which is served meanwhile: a restore
      of the database, a gap or a store that cannot be reached withdraws nothing.
    - The snapshot receives change sets whole.
    """

    def __init__(self, store: RouteStore) -> None:
        self._store = store
        self.snapshot = ResourceSnapshot(Table(Clock("", 0)))
        self._loaded = asyncio.Event()
        self._must_load = asyncio.Event()
        # Changes of the feed since the last start: all that a table being loaded may lack; and an incomplete set.
        self._waiting: list[Change] = []
        self._open: list[Change] = []
        self._starts = 0
        self._up_to_date = False

    @property
    def has_loaded(self) -> bool:
        """Whether there is a table."""
        return self._loaded.is_set()

    async def loaded(self) -> None:
        """Wait for the first table."""
        await self._loaded.wait()

    async def run(self) -> None:
        """Load whenever that is needed, until cancelled."""
        while True:
            await self._must_load.wait()
            try:
                await self._load()
            except RetryLater as error:
                logger.warning("the table of routes cannot be loaded yet: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
            except Exception:
                logger.exception("the table of routes could not be loaded")
                await asyncio.sleep(RETRY_SECONDS)

    # The feed calls these.

    def start_over(self, clock: Clock) -> None:
        """Load the table again, unless nothing was missed."""
        if self._up_to_date and clock == self.snapshot.clock and not self._open:
            return
        self._begin_again()

    def apply(self, changes: Sequence[Change]) -> None:
        for change in changes:
            self._open.append(change)
            if change.ends_set:
                complete, self._open = self._open, []
                self._apply(complete)

    def advance(self, revision: int) -> None:
        """Nothing is known by that."""

    def confirm(self, moment: float) -> None:
        """Nothing is known by that."""

    def _begin_again(self) -> None:
        self._starts += 1
        self._up_to_date = False
        self._waiting, self._open = [], []
        self._must_load.set()

    def _apply(self, changes: Sequence[Change]) -> None:
        if self._up_to_date:
            self.snapshot.apply(changes)
            return
        self._waiting += changes
        if len(self._waiting) > MOST_WAITING:
            self._begin_again()

    async def _load(self) -> None:
        starts = self._starts
        async with self._store.scan(RouteQuery(limit=PAGE)) as scanned:
            table = Table(scanned.clock, (), scanned.traffic)
            async for batch in scanned.batches:
                table.add(batch)
                await asyncio.sleep(0)
        if starts != self._starts:
            return
        later = [change for change in self._waiting if change.revision > table.clock.revision]
        if later and (later[0].revision != table.clock.revision + 1 or later[0].epoch != table.clock.epoch):
            self._begin_again()
            return
        if later:
            table.apply(later)
        self._waiting = []
        self._up_to_date = True
        self._must_load.clear()
        self.snapshot.replace(table)
        self._loaded.set()
