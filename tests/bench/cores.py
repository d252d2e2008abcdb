"""One core for the servers and the engines, another for the load: neither takes the other's time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

PINS = hasattr(os, "sched_setaffinity")


def available() -> list[int]:
    """List the cores that this process may use; where nothing can be pinned, none."""
    return sorted(os.sched_getaffinity(0)) if PINS else []


@contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """Run this thread on one core until the block ends; what it starts meanwhile stays there, as under taskset."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
