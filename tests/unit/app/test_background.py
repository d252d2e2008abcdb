"""Background tasks end when the server stops, also one that lost its cancellation."""

import asyncio

from pointsman_server.app.background import end


async def test_a_task_that_lost_its_cancellation_is_cancelled_again() -> None:
    """As psycopg_pool's tasks do on Python 3.11, when a connection comes free in that moment."""
    begun, lost = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            lost.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await begun.wait()

    async with asyncio.timeout(10):
        await end(task, patience=0.01)

    assert lost.is_set()
    assert task.cancelled()


async def test_a_task_that_takes_its_time_to_end_is_left_in_peace() -> None:
    cancellations = 0

    async def work() -> None:
        nonlocal cancellations
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancellations += 1
            for _ in range(5):
                await asyncio.sleep(0)
            raise

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    await end(task)

    assert cancellations == 1
