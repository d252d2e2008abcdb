"""Wait for a condition, as long as a slow machine needs."""

import time
from collections.abc import Callable

PATIENCE_SECONDS = 30.0


def eventually(holds: Callable[[], object], patience: float = PATIENCE_SECONDS) -> bool:
    """Return whether ``holds`` becomes true within ``patience`` seconds. Returns as soon as it is true."""
    give_up = time.monotonic() + patience
    while not holds():
        if time.monotonic() > give_up:
            return False
        time.sleep(0.01)
    return True
