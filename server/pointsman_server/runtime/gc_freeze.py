"""Disable the garbage collector during imports, then freeze what they made."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

# New objects, then collections of the generation below. A collection after 700 objects, the default, takes half of the
# processor while thousands of streams write. One of the second generation, after 20,000, takes up to 10 ms; after
# 120,000 it took 60, which all calls wait for. What thousands of ended streams leave in cycles is found after half a
# million.
THRESHOLDS = (10_000, 1, 25)


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
