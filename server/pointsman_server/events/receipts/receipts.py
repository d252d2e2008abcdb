"""Asks watchers what they have applied, when somebody wants to know, and collects what they report."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Protocol

from pointsman_server.domain.errors import FieldViolation, InvalidField, StoreUnavailable
from pointsman_server.events.receipts import propagation
from pointsman_server.events.receipts.local_watches import LocalWatches
from pointsman_server.events.receipts.propagation import Propagation
from pointsman_server.events.watch.filters import Filter
from pointsman_server.events.watch.hub import ASKED_PER_SECOND
from pointsman_server.ports.store import Clock
from pointsman_server.ports.watcher_registry import (
    OpenWatch,
    RegisteredWatch,
    RegistryUnavailable,
    Report,
    WatcherRegistry,
    WatchName,
)
from pointsman_server.runtime.batcher import Batcher
from pointsman_server.runtime.offload import in_thread_if_large

# Seconds between two looks at the registry, while there are watches: how late an inquiry of another server is found.
LOOK_SECONDS = 0.25
# Seconds after which the watches are published again, also when nothing has changed. Much less than their time to live,
# and than the patience of who waits for a revision: the registry may have lost them.
RENEW_SECONDS = 2.0
# Seconds until watchers that have not reported are asked again: first, and at most. Beside the time that asking takes.
AGAIN_SECONDS, LONGEST_AGAIN_SECONDS = 1.0, 8.0
# Seconds for each watch of a process until all of them may be asked about another revision: the hub asks so many.
SECONDS_PER_WATCH = 1 / ASKED_PER_SECOND
# Reports that wait for the registry, and those of one round trip.
MOST_REPORTS, REPORTS_AT_ONCE = 20_000, 500


class Hub(Protocol):
    """Reaches the streams of this process."""

    @property
    def epoch(self) -> str:
        """The epoch of what its streams have been sent."""

    def request_progress(self, revision: int) -> None: ...


class Receipts:
    """What watchers have applied. Nobody reports before somebody asks, so watchers that are idle cost nothing.

    An inquiry is passed on to every server. There each stream receives a checkpoint that asks for a report, behind
    everything up to the revision; the client reports to any server what it has applied. The caller asks again until
    the answer satisfies them. Those that have not reported are asked again meanwhile: a report, or all that the
    registry has, may be lost, and a client may move to another server.
    """

    def __init__(
        self,
        hub: Hub,
        registry: WatcherRegistry,
        store_clock: Callable[[], Awaitable[Clock]],
        known_clock: Callable[[], Clock],
        *,
        server: str,
        reported: Callable[[], None] = lambda: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """``store_clock`` asks the store; ``known_clock`` is the last that is known of it.

        ``reported`` is called for each report.
        """
        self._hubs = [hub]
        self._registry = registry
        self._store_clock = store_clock
        self._known_clock = known_clock
        self._reported = reported
        self._now = now
        self._local = LocalWatches(server)
        self._reports: Batcher[Report, bool] = Batcher(
            self._send_reports, size=REPORTS_AT_ONCE, concurrency=2, queue=MOST_REPORTS, limit="watch_reports"
        )
        # One question to the store is for all reports that wait for it, and one to the registry for all inquiries.
        self._clocks: Batcher[str, Clock] = Batcher(
            self._read_clock, size=1, concurrency=1, queue=1, limit="watch_reports"
        )
        self._watches: Batcher[str, Sequence[RegisteredWatch]] = Batcher(
            self._read_watches, size=1, concurrency=1, queue=1, limit="watch_inquiries"
        )
        self._opened = asyncio.Event()
        # How many watches the registry has of this server; None when that is not known.
        self._published: int | None = 0
        self._renew_at = -math.inf
        self._asked: Clock | None = None
        self._asked_at = -math.inf
        self._pause = AGAIN_SECONDS

    @contextmanager
    def watching(self, watch: OpenWatch) -> Iterator[None]:
        """Count a watch during the block."""
        self.open(watch)
        try:
            yield
        finally:
            self.close(watch)

    def open(self, watch: OpenWatch) -> None:
        """Count a watch until ``close``."""
        self._local.open(watch)
        self._opened.set()

    def close(self, watch: OpenWatch) -> None:
        """Count a watch no more."""
        self._local.close(watch)

    def ask_also(self, hub: Hub) -> None:
        """Ask another hub of this process, too."""
        self._hubs.append(hub)

    async def note(self, names: Sequence[WatchName], applied: Clock) -> bool:
        """Note what this server knows of its own watches, which do not report by themselves.

        Returns whether all servers know it now: a watch that has just been opened is not published yet. Raises
        Overloaded.
        """
        for name in names:
            self._reported()
            self._local.report(name, applied)
        try:
            return all(await asyncio.gather(*(self._reports.get(Report(name, applied)) for name in names)))
        except RegistryUnavailable:
            return False

    async def report(self, name: WatchName, applied: Clock) -> None:
        """Note that the client of a watch, which may be another server's, has applied everything up to ``applied``.

        A report of another epoch, or for a watch that is not known, is ignored. Raises InvalidField for a revision that
        does not exist yet: it would be counted as applied once it does. Raises Overloaded, and StoreUnavailable.
        """
        if not await self._is_of_now(applied):
            return
        self._reported()
        self._local.report(name, applied)
        with suppress(RegistryUnavailable):
            # Without the registry, only the reports of this server's own watches are known.
            await self._reports.get(Report(name, applied))

    async def propagation(self, revision: int, of: Filter) -> Propagation:
        """Ask every watcher, and return what is known now of those whose filters overlap with ``of``.

        Raises StoreUnavailable when the epoch is not known.
        """
        clock = await self._clock()
        # No higher than what there is: an inquiry about the future would hide those about the present.
        inquiry = Clock(clock.epoch, min(revision, clock.revision))
        self._ask(inquiry)
        others: Sequence[RegisteredWatch] = ()
        all_servers = True
        try:
            await self._registry.inquire(inquiry)
            others = await self._watches.get("")
        except RegistryUnavailable:
            all_servers = False
        # What the registry has of this server may be behind, but for reports that came to other servers.
        local = self._local
        for entry in others:
            if entry.server == local.server and entry.applied is not None:
                local.report(entry.watch.name, entry.applied)
        known = [*local.registered(), *(entry for entry in others if entry.server != local.server)]
        wanted = Clock(clock.epoch, revision)
        count = partial(propagation.count, known, wanted, of, all_servers=all_servers)
        return await in_thread_if_large(count, len(known))

    async def run(self) -> None:
        """Publish the watches of this process, and look for inquiries, until cancelled."""
        try:
            while True:
                if self._published is not None and not self._local and not self._local.unpublished:
                    self._opened.clear()
                    await self._opened.wait()
                with suppress(RegistryUnavailable):
                    await self.step()
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            with suppress(RegistryUnavailable):
                await self._registry.withdraw(self._local.server)

    async def step(self) -> None:
        """Publish what has changed, look for an inquiry, and ask. Raises RegistryUnavailable."""
        await self._publish()
        inquiry = await self._registry.inquiry()
        if inquiry is None:
            self._asked = None
            return
        if inquiry == self._asked and self._now() >= self._asked_at + self._pause:
            await self._collect(self._local.behind(inquiry))
        self._ask(inquiry)

    def _ask(self, inquiry: Clock) -> None:
        """Ask the watchers of this process for a report, unless they have been asked and all have reported.

        All of them are asked: a checkpoint is the same for all. So they are asked again after a pause that grows.
        """
        hubs = [hub for hub in self._hubs if hub.epoch == inquiry.epoch]
        if not self._local or not hubs:
            return
        asked, since = self._asked, self._now() - self._asked_at
        least = len(self._local) * SECONDS_PER_WATCH
        if asked is None or asked.epoch != inquiry.epoch:
            self._pause = AGAIN_SECONDS + least
        elif inquiry.revision > asked.revision:
            if since < least:
                return
            self._pause = AGAIN_SECONDS + least
        elif since < self._pause or not self._local.behind(inquiry):
            return
        else:
            self._pause = max(min(2 * self._pause, LONGEST_AGAIN_SECONDS), AGAIN_SECONDS + least)
            inquiry = asked
        self._asked, self._asked_at = inquiry, self._now()
        for hub in hubs:
            hub.request_progress(inquiry.revision)

    async def _collect(self, names: Sequence[WatchName]) -> None:
        """Fetch what watchers of this process have reported to other servers."""
        found = await self._registry.applied(self._local.server, names)
        for name, applied in zip(names, found, strict=True):
            if applied is not None:
                self._local.report(name, applied)

    async def _publish(self) -> None:
        if self._published is not None and not self._local.unpublished and self._now() < self._renew_at:
            return
        server = self._local.server
        if self._published is None:
            await self._registry.withdraw(server)
            opened, closed = self._local.take_all()
        else:
            opened, closed = self._local.take_changes()
        expected, self._published = len(self._local), None
        found = await self._registry.publish(server, opened, closed)
        # Another number: the registry has lost some, and all are published anew in the next step.
        self._published = found if found == expected else None
        self._renew_at = self._now() + (RENEW_SECONDS if found == expected else 0)

    async def _send_reports(self, reports: Sequence[Report]) -> Sequence[bool]:
        return await self._registry.report(reports)

    async def _clock(self) -> Clock:
        try:
            return await self._store_clock()
        except StoreUnavailable:
            clock = self._known_clock()
            if not clock.epoch:
                raise
            return clock

    async def _is_of_now(self, applied: Clock) -> bool:
        """Return whether the epoch is that of the store. Raises InvalidField for a revision that it does not have."""
        clock = self._known_clock()
        if applied.epoch != clock.epoch or applied.revision > clock.revision:
            clock = await self._clocks.get("")
        if clock.is_before(applied):
            problem = f"must be a revision that exists: the last one is {clock.revision}"
            raise InvalidField([FieldViolation("applied.revision", problem)])
        return applied.epoch == clock.epoch

    async def _read_clock(self, _same: Sequence[str]) -> Sequence[Clock]:
        return [await self._store_clock()]

    async def _read_watches(self, _same: Sequence[str]) -> Sequence[Sequence[RegisteredWatch]]:
        return [await self._registry.watches()]
