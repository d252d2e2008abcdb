"""Wait for a condition, as long as a slow machine needs."""

import asyncio
import time
from collections.abc import Awaitable, Callable

PATIENCE_SECONDS = 30.0


def eventually(holds: Callable[[], object], patience: float = PATIENCE_SECONDS) -> bool:
    """Return whether ``holds`` becomes true within ``patience`` seconds. Returns as soon as it is true."""
    give_up = time.monotonic() + patience
    while not holds():
        if time.monotonic() > give_up:
            return False
        time.sleep(0.01)
    return True


async def becomes(holds: Callable[[], Awaitable[object]], patience: float = PATIENCE_SECONDS) -> bool:
    """Return whether what ``holds`` returns becomes true within ``patience`` seconds. Returns as soon as it is true."""
    give_up = time.monotonic() + patience
    while not await holds():
        if time.monotonic() > give_up:
            return False
        await asyncio.sleep(0.01)
    return True
