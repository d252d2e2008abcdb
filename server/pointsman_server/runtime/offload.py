"""Long work beside the event loop."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# What takes less than about two milliseconds is sooner done than handed over.
FEW = 250


async def offload(work: Callable[[], T], size: int) -> T:
    """Do ``work`` on ``size`` items: many of them in a thread, where they hold nobody up for longer than its turn.

    Nothing else may change what the work reads.
    """
    return work() if size <= FEW else await asyncio.to_thread(work)
