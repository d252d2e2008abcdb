"""The read of a near-cache that most calls take: one look into a dict, one at the clock, one count."""

import time
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

from pointsman.keys import RouteKey
from pointsman.near_cache.table.entries import CachedResolution, Entry

Slow = TypeVar("Slow")


class FastPath(NamedTuple, Generic[Slow]):
    """``resolve`` and what controls it. Plain functions over common variables: attributes cost a third of the time."""

    resolve: Callable[[RouteKey | str], CachedResolution | Slow]
    use: Callable[[dict[str, Entry]], None]
    """Read from another dict from now on."""
    reads: Callable[[], int]
    """How many reads have been answered. Threads do not lose counts as long as there is a GIL."""


def fast_path(
    slow: Callable[[RouteKey | str], Slow],
    sample: Callable[[str], int],
    *,
    clock: Callable[[], float] = time.monotonic,
) -> FastPath[Slow]:
    """Return a fast path. Whatever it has no fresh result for goes to ``slow``.

    ``sample`` takes the key of one read among many, and returns after how many more reads it wants the next one.
    """
    routes: dict[Any, Any] = {}
    count = 0
    next_sample = 1

    def resolve(key: RouteKey | str) -> CachedResolution | Slow:
        nonlocal count, next_sample
        try:
            found = routes[key]
        except KeyError:
            return slow(key)
        if clock() >= found.view.fresh_until:
            return slow(key)
        count += 1
        if count >= next_sample:
            next_sample = count + sample(str(key))
        result: CachedResolution = found
        return result

    def use(other: dict[str, Entry]) -> None:
        nonlocal routes
        routes = other

    return FastPath(resolve, use, lambda: count)
