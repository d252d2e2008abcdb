"""One core for the servers and the engines, another for the load: neither takes the other's time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PINS = hasattr(os, "sched_setaffinity")


def available() -> list[int]:
    """List the cores that this process may use; where nothing can be pinned, none."""
    return sorted(os.sched_getaffinity(0)) if PINS else []


def go_first() -> bool:
    """Have this process run before all ordinary ones (SCHED_RR), if it may; says whether it does."""
    with suppress(PermissionError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        return True
    return False


def stand_back() -> None:
    """Have this process run only while no other does (SCHED_IDLE)."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


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
