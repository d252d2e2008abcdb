"""Splits large work into slices, so that a small call waits for at most one of them.

asyncio runs each callback to its end: an answer of a thousand routes blocks the event loop for some 30 ms, ten of them
for ten times as long. So large work takes turns.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from pointsman_server.runtime.batcher import settle

T = TypeVar("T")
R = TypeVar("R")

# Items per turn: for routes, about a third of a millisecond.
SLICE = 10
# Streams that are woken before other work gets its turn. Where more than UNBOUNDED are to be woken, only MOST_WRITING
# write to their clients at a time; those whose clients do not read within PATIENCE_SECONDS do not count.
WOKEN_IN_A_TURN = 10
UNBOUNDED = 100
MOST_WRITING = 20
PATIENCE_SECONDS = 0.01
PAUSE_SECONDS = 0.001


class FairShare:
    """Gives one turn per iteration of the event loop, first come, first served."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def take(self) -> None:
        """Wait for a turn, which lasts until the caller awaits something, and should be short."""
        await self._lock.acquire()
        # In the next iteration, which wakes the one that has waited longest.
        asyncio.get_running_loop().call_soon(self._lock.release)

    async def map(self, work: Callable[[T], R], items: Sequence[T], *, size: int = SLICE) -> list[R]:
        """Do ``work`` for every item, one slice a turn."""
        done: list[R] = []
        for start in range(0, len(items), size):
            await self.take()
            done += map(work, items[start : start + size])
        return done


class Window:
    """Counts the streams that write what they were handed, so that only a few do at a time."""

    __slots__ = ("_free", "_low", "writing")

    def __init__(self) -> None:
        self.writing = 0
        self._low = 0
        self._free: asyncio.Future[None] | None = None

    def begin(self) -> None:
        self.writing += 1

    def end(self) -> None:
        self.writing -= 1
        if self._free is not None and self.writing <= self._low:
            settle(self._free, None)

    async def falls_to(self, low: int, patience: float) -> bool:
        """Wait until so many are left; False after ``patience`` seconds, because of clients that do not read."""
        if self.writing > low:
            # asyncio.wait would take five times as long, once for each stream.
            loop = asyncio.get_running_loop()
            self._low, self._free = low, loop.create_future()
            timer = loop.call_later(patience, settle, self._free, None)
            try:
                await self._free
            finally:
                timer.cancel()
                self._free = None
        return self.writing <= low


class Pacing:
    """Wakes streams in turns. One task at a time calls ``wake``."""

    def __init__(
        self,
        fair_share: FairShare,
        *,
        in_a_turn: int | None = None,
        writing: int | None = None,
        pause_after: int | None = None,
    ) -> None:
        """``in_a_turn``: WOKEN_IN_A_TURN by default. ``writing``: MOST_WRITING by default.

        ``pause_after``: after as many streams comes a pause of PAUSE_SECONDS; none by default.
        """
        self._fair_share = fair_share
        self._in_a_turn = in_a_turn
        self._writing = writing
        self._pause_after = pause_after
        self._window = Window()

    async def wake(self, streams: Sequence[T], wake: Callable[[T, Window], None]) -> None:
        """Call ``wake`` for each stream, which counts in the window until it has written."""
        size, writing = self._in_a_turn or WOKEN_IN_A_TURN, self._writing or MOST_WRITING
        for start in range(0, len(streams), size):
            if start:
                await self._fair_share.take()
            if self._pause_after and start and start % self._pause_after < size:
                await asyncio.sleep(PAUSE_SECONDS)
            if len(streams) > UNBOUNDED and not await self._window.falls_to(writing - size, PATIENCE_SECONDS):
                self._window = Window()
            for stream in streams[start : start + size]:
                wake(stream, self._window)
