"""Disable the garbage collector during imports, then freeze what they made."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

# A collection after 700 new objects, the default, takes half of the processor while thousands of streams write. One
# after 20,000 takes a millisecond; what thousands of ended streams leave in cycles is found after half a million.
THRESHOLDS = (20_000, 5, 5)


@contextmanager
def gc_disabled_then_frozen() -> Iterator[None]:
    """Collect nothing in the block; what exists at its end is never collected.

    For imports. They make a hundred thousand objects that live as long as the process: collecting meanwhile takes a
    seventh of the processor time of a start, and each full collection later would block the event loop for 55 ms.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.set_threshold(*THRESHOLDS)
        gc.enable()
