"""Snapshots of the table as events of a watch: made once, and shared by all streams of the same filter."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from pointsman_server.domain.errors import Overloaded
from pointsman_server.events.watch import encoding
from pointsman_server.events.watch.filters import Filter
from pointsman_server.events.watch.observer import SILENT, WatchObserver
from pointsman_server.ports.store import Clock, RouteQuery, RouteStore
from pointsman_server.runtime.fair_share import FairShare

# Routes that are read at once, and routes that are encoded before other work gets its turn: about half a millisecond.
PAGE = 1_000
ENCODED_IN_A_TURN = 100
# A snapshot is given to later streams for so many seconds.
KEPT_SECONDS = 10.0
# How long a stream waits for its turn; then its client is told to come back after RETRY_SECONDS.
PATIENCE_SECONDS = 5.0
RETRY_SECONDS = (1.0, 3.0)
# A client that reads its snapshot more slowly than this gives its turn to the next one, and goes on reading.
TURN_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class EncodedSnapshot:
    """The routes and the traffic of a filter as of ``clock``, made at ``moment`` in monotonic seconds.

    ``routes`` and ``traffic`` are the events that have them; the snapshot ends with ``end``, or with ``traffic_end``.
    """

    clock: Clock
    routes: Sequence[bytes]
    end: bytes
    traffic: Sequence[bytes]
    traffic_end: bytes
    moment: float

    def events_of(self, wanted: Filter) -> Sequence[bytes]:
        """Return the events for a stream: with traffic if it wants that."""
        return (*self.routes, *self.traffic, self.traffic_end) if wanted.traffic else (*self.routes, self.end)


class Snapshots:
    """Makes snapshots, each once, and admits a few streams at a time.

    A snapshot is given to later streams too, for KEPT_SECONDS and as long as they can go on from it without the store
    (``usable``): so a thousand streams that begin at once cost one scan of the table, whether or not they want traffic.
    """

    def __init__(
        self,
        store: RouteStore,
        fair_share: FairShare,
        usable: Callable[[Clock], bool],
        *,
        concurrency: int = 16,
        scans: int = 2,
        observer: WatchObserver = SILENT,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """``concurrency``: streams that are sent a snapshot at once. ``scans``: snapshots that are made at once."""
        self._store = store
        self._fair_share = fair_share
        self._usable = usable
        self._observer = observer
        self._turns = asyncio.Semaphore(concurrency)
        self._scans = asyncio.Semaphore(scans)
        self._now = now
        self._making: dict[Filter, asyncio.Task[EncodedSnapshot]] = {}
        self._kept: dict[Filter, EncodedSnapshot] = {}
        self._timer: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn to be sent a snapshot. Raises Overloaded when many others wait."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._turns.acquire()
        except TimeoutError:
            error = Overloaded("watch_snapshots")
            error.retry_delay = random.uniform(*RETRY_SECONDS)  # noqa: S311 - spreads load
            raise error from None
        turn = _Turn(self._turns.release)
        try:
            yield
        finally:
            turn.end()

    async def get(self, wanted: Filter) -> EncodedSnapshot:
        """Return the snapshot of a filter. Raises StoreUnavailable and Overloaded."""
        wanted = wanted.of_routes
        kept = self._kept.get(wanted)
        if kept and self._now() - kept.moment < KEPT_SECONDS and self._usable(kept.clock):
            return kept
        making = self._making.get(wanted)
        if making is None:
            making = self._making[wanted] = asyncio.create_task(self._make(wanted))
            making.add_done_callback(partial(self._made, wanted))
        return await asyncio.shield(making)

    def drop_old(self) -> None:
        """Drop what is given to no stream any more."""
        oldest = self._now() - KEPT_SECONDS
        self._kept = {wanted: kept for wanted, kept in self._kept.items() if kept.moment > oldest}
        self._timer = asyncio.get_running_loop().call_later(KEPT_SECONDS, self.drop_old) if self._kept else None

    def _made(self, wanted: Filter, making: asyncio.Task[EncodedSnapshot]) -> None:
        del self._making[wanted]
        # The exception is retrieved here, too: every stream that waited may have been cancelled.
        if not making.cancelled() and making.exception() is None:
            self._kept[wanted] = making.result()
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(KEPT_SECONDS, self.drop_old)

    async def _make(self, wanted: Filter) -> EncodedSnapshot:
        async with self._scans:
            moment = self._now()
            query = RouteQuery(wanted.tenant, wanted.service, wanted.env, limit=PAGE)
            async with self._store.scan(query) as table:
                clock, routes, count = table.clock, _Batches(table.clock), 0
                async for some in table.batches:
                    routes.add(await self._fair_share.map(encoding.route, some, size=ENCODED_IN_A_TURN))
                    count += len(some)
            traffic = _Batches(clock)
            traffic.add(await self._fair_share.map(encoding.traffic, table.traffic, size=ENCODED_IN_A_TURN))
            self._observer.made_snapshot()
            return EncodedSnapshot(
                clock,
                routes.ended(),
                encoding.end_of_snapshot(clock, count),
                traffic.ended(),
                encoding.end_of_snapshot(clock, count, len(table.traffic)),
                moment,
            )


class _Batches:
    """Joins encoded routes, or traffic, to events of SNAPSHOT_BYTES."""

    def __init__(self, clock: Clock) -> None:
        self._events: list[bytes] = []
        self._clock = clock
        self._entries: list[bytes] = []
        self._size = 0

    def add(self, entries: Sequence[bytes]) -> None:
        for entry in entries:
            if self._size + len(entry) > encoding.SNAPSHOT_BYTES:
                self._end()
            self._entries.append(entry)
            self._size += len(entry)

    def ended(self) -> Sequence[bytes]:
        """Return the events; the last one has what is left, if there is any."""
        self._end()
        return self._events

    def _end(self) -> None:
        if self._entries:
            self._events.append(encoding.snapshot_batch(self._clock, self._entries))
            self._entries, self._size = [], 0


class _Turn:
    """Ends by itself after TURN_SECONDS."""

    def __init__(self, release: Callable[[], None]) -> None:
        self._release: Callable[[], None] | None = release
        self._timer = asyncio.get_running_loop().call_later(TURN_SECONDS, self.end)

    def end(self) -> None:
        """End the turn, once."""
        self._timer.cancel()
        release, self._release = self._release, None
        if release:
            release()
