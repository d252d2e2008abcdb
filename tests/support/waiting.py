"""Waiting for what must come, however slow the machine is."""

import time
from collections.abc import Callable

PATIENCE_SECONDS = 30.0


def eventually(holds: Callable[[], object], patience: float = PATIENCE_SECONDS) -> bool:
    """Say whether ``holds`` becomes true; only a failure takes the whole ``patience``, in seconds."""
    give_up = time.monotonic() + patience
    while not holds():
        if time.monotonic() > give_up:
            return False
        time.sleep(0.01)
    return True
