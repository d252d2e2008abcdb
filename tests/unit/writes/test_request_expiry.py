"""Stored outcomes of requests are deleted again and again, also after a failure."""

import asyncio

import pytest

from pointsman_server.domain.errors import StoreUnavailable
from pointsman_server.writes.request_expiry import forget_old_requests


async def test_it_deletes_after_each_interval_also_when_the_store_was_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pointsman_server.writes.request_expiry.INTERVAL_SECONDS", 0)
    ages: list[float] = []
    third = asyncio.Event()

    class Store:
        async def forget_requests(self, older_than_seconds: float) -> int:
            ages.append(older_than_seconds)
            if len(ages) == 2:
                raise StoreUnavailable
            if len(ages) == 3:
                third.set()
            return 0

    task = asyncio.create_task(forget_old_requests(Store(), 60.0))
    async with asyncio.timeout(10):
        await third.wait()
    task.cancel()
    await asyncio.wait({task})
    assert ages[:3] == [60.0] * 3
    assert task.cancelled()
