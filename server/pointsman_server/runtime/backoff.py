"""Exponential back-off with jitter."""

import asyncio
import random
from collections.abc import Awaitable, Callable


class Backoff:
    """Waits that double from ``first`` to ``most`` seconds, each shortened at random by up to half.

    The jitter spreads the retries of servers that failed together.
    """

    def __init__(
        self, first: float = 0.1, most: float = 5.0, *, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    ) -> None:
        self._first = first
        self._most = most
        self._sleep = sleep
        self._next = first

    async def wait(self) -> None:
        """Wait after one more failure."""
        seconds = self._next * random.uniform(0.5, 1)  # noqa: S311 - spreads load, guards nothing
        self._next = min(self._next * 2, self._most)
        await self._sleep(seconds)

    def reset(self) -> None:
        """Start over, after a success."""
        self._next = self._first
