"""Work that is handed to a thread where it would block the event loop for too long."""

import asyncio
import sys
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# A thread at work keeps others from running for so long. With Python's own 5 ms each call meanwhile would wait for that
# several times: whenever it has read from a socket, or written to one.
SWITCH_SECONDS = 0.0005

# Handing work to a thread costs more than this many routes take, about two milliseconds.
LARGE = 250


async def in_thread_if_large(work: Callable[[], T], size: int) -> T:
    """Do ``work`` on ``size`` items: above ``LARGE`` in a thread, so that the event loop is not blocked.

    Nothing else may change what the work reads.
    """
    return work() if size <= LARGE else await asyncio.to_thread(work)


def interrupt_threads_soon() -> None:
    """Let the event loop interrupt work in threads after ``SWITCH_SECONDS``."""
    sys.setswitchinterval(SWITCH_SECONDS)
