"""What must be thrown away from time to time."""

import asyncio
from contextlib import suppress
from typing import Protocol

from pointsman_server.domain.errors import RetryLater

INTERVAL_SECONDS = 600.0


class Remembering(Protocol):
    """A store that remembers the outcomes of requests."""

    async def forget_requests(self, older_than_seconds: float) -> int:
        """Drop what is older; returns how many."""


async def forget_old_requests(store: Remembering, older_than_seconds: float) -> None:
    """Drop remembered outcomes past their time, again and again. Harmless when several servers do it."""
    while True:
        with suppress(RetryLater):  # the next round does it
            await store.forget_requests(older_than_seconds)
        await asyncio.sleep(INTERVAL_SECONDS)
