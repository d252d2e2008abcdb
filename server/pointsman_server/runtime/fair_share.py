"""Large work in slices, so that small calls never wait for more than one of them.

asyncio runs what is ready in order and to the end: an answer of a thousand routes is some 30 ms in which nobody else is
answered, and ten of them at once are ten times as much. So whoever has much to do takes turns with all the others.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

# How many items are worked on in a turn: of routes, about a third of a millisecond.
SLICE = 10


class FairShare:
    """One turn in each round of the event loop, in the order in which they were asked for."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def take(self) -> None:
        """Wait for a turn. It lasts until the caller waits for something, and should be short."""
        await self._lock.acquire()
        # In the next round, where whoever waits longest is woken.
        asyncio.get_running_loop().call_soon(self._lock.release)

    async def map(self, work: Callable[[T], R], items: Sequence[T], *, size: int = SLICE) -> list[R]:
        """Do ``work`` for every item, in as many turns as it takes."""
        done: list[R] = []
        for start in range(0, len(items), size):
            await self.take()
            done += map(work, items[start : start + size])
        return done
