"""Work that is handed to a thread where it would block the event loop for too long."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# Handing work to a thread costs more than this many routes take, about two milliseconds.
LARGE = 250


async def in_thread_if_large(work: Callable[[], T], size: int) -> T:
    """Do ``work`` on ``size`` items: above ``LARGE`` in a thread, so that the event loop is not blocked.

    Nothing else may change what the work reads.
    """
    return work() if size <= LARGE else await asyncio.to_thread(work)
