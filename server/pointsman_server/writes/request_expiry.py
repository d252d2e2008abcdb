"""Delete stored outcomes of requests that are too old to be replayed."""

import asyncio
from contextlib import suppress
from typing import Protocol

from pointsman_server.domain.errors import RetryLater

INTERVAL_SECONDS = 600.0


class OutcomeStore(Protocol):
    """A store that keeps the outcomes of requests."""

    async def forget_requests(self, older_than_seconds: float) -> int:
        """Delete older outcomes. Returns how many."""


async def forget_old_requests(store: OutcomeStore, older_than_seconds: float) -> None:
    """Delete outcomes past their age every ``INTERVAL_SECONDS``. Several servers may do so at once."""
    while True:
        with suppress(RetryLater):  # the next round retries
            await store.forget_requests(older_than_seconds)
        await asyncio.sleep(INTERVAL_SECONDS)
