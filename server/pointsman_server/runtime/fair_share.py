"""Splits large work into slices, so that a small call waits for at most one of them.

asyncio runs each callback to its end: an answer of a thousand routes blocks the event loop for some 30 ms, ten of them
for ten times as long. So large work takes turns.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

# Items per turn: for routes, about a third of a millisecond.
SLICE = 10


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
