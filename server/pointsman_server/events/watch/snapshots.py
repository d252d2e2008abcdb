"""Snapshots of the table as events of a watch: made once, and shared by all streams of the same filter."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from pointsman_server.domain.errors import Overloaded
from pointsman_server.domain.routes import Route
from pointsman_server.events.watch import encoding
from pointsman_server.events.watch.filters import Filter
from pointsman_server.ports.store import Clock, RouteQuery, RouteStore
from pointsman_server.runtime.fair_share import FairShare

# Routes in one event, and routes that are encoded before other work gets its turn: about a millisecond.
BATCH = 500
ENCODED_IN_A_TURN = 100
# A snapshot that nobody has asked for during these seconds is dropped.
KEPT_SECONDS = 10.0
# How long a stream waits for its turn; then its client is told to come back.
PATIENCE_SECONDS = 5.0
# A client that reads its snapshot more slowly than this gives its turn to the next one, and goes on reading.
TURN_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class EncodedSnapshot:
    """The routes of a filter as of ``clock``, as events."""

    clock: Clock
    events: Sequence[bytes]


class Snapshots:
    """Makes snapshots, each once, and admits a few streams at a time.

    A snapshot is given to later streams too, as long as they can go on from it without the store (``usable``): so a
    thousand streams that begin at once cost one scan of the table.
    """

    def __init__(
        self,
        store: RouteStore,
        fair_share: FairShare,
        usable: Callable[[Clock], bool],
        *,
        concurrency: int = 16,
        scans: int = 2,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """``concurrency``: streams that are sent a snapshot at once. ``scans``: snapshots that are made at once."""
        self._store = store
        self._fair_share = fair_share
        self._usable = usable
        self._turns = asyncio.Semaphore(concurrency)
        self._scans = asyncio.Semaphore(scans)
        self._now = now
        self._making: dict[Filter, asyncio.Task[EncodedSnapshot]] = {}
        self._kept: dict[Filter, tuple[EncodedSnapshot, float]] = {}

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn to be sent a snapshot. Raises Overloaded when many others wait."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._turns.acquire()
        except TimeoutError:
            raise Overloaded("watch_snapshots") from None
        turn = _Turn(self._turns.release)
        try:
            yield
        finally:
            turn.end()

    async def get(self, wanted: Filter) -> EncodedSnapshot:
        """Return the snapshot of a filter. Raises StoreUnavailable and Overloaded."""
        self.drop_unused()
        kept = self._kept.get(wanted)
        if kept and self._usable(kept[0].clock):
            self._kept[wanted] = kept[0], self._now()
            return kept[0]
        making = self._making.get(wanted)
        if making is None:
            making = self._making[wanted] = asyncio.create_task(self._make(wanted))
            making.add_done_callback(partial(self._made, wanted))
        snapshot = await asyncio.shield(making)
        self._kept[wanted] = snapshot, self._now()
        return snapshot

    def drop_unused(self) -> None:
        """Drop what nobody has asked for lately."""
        oldest = self._now() - KEPT_SECONDS
        for wanted in [wanted for wanted, (_, used_at) in self._kept.items() if used_at < oldest]:
            del self._kept[wanted]

    def _made(self, wanted: Filter, making: asyncio.Task[EncodedSnapshot]) -> None:
        del self._making[wanted]
        if not making.cancelled():
            making.exception()  # retrieved here: every stream that waited may have been cancelled

    async def _make(self, wanted: Filter) -> EncodedSnapshot:
        async with self._scans, self._store.scan(RouteQuery(*wanted, limit=BATCH)) as table:
            events, count = [], 0
            async for routes in table.batches:
                events += await self._fair_share.map(_encoder(table.clock), _slices(routes), size=1)
                count += len(routes)
            events.append(encoding.end_of_snapshot(table.clock, count))
            return EncodedSnapshot(table.clock, events)


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


def _slices(routes: Sequence[Route]) -> list[Sequence[Route]]:
    return [routes[start : start + ENCODED_IN_A_TURN] for start in range(0, len(routes), ENCODED_IN_A_TURN)]


def _encoder(clock: Clock) -> Callable[[Sequence[Route]], bytes]:
    return lambda routes: encoding.snapshot_batch(clock, routes)
