"""The reads of a near-cache that most calls take: one look into a dict, one at the clock, one count.

A select computes one SHA-256 besides, where its traffic is divided.
"""

import time
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from pointsman.keys import FamilyKey, RouteKey
from pointsman.near_cache.table.entries import CachedResolution
from pointsman.near_cache.table.selections import CachedSelection, Entry

Slow = TypeVar("Slow")
SlowSelect = TypeVar("SlowSelect")
Selected_co = TypeVar("Selected_co", covariant=True)

# A text of so many characters is never longer than a sticky key may be: of longer ones the bytes must be counted.
SHORT = 64


class Select(Protocol[Selected_co]):
    """A select, from the tenant, service and env of ``key``, for the caller with a sticky key."""

    def __call__(self, key: FamilyKey | str, sticky_key: str = "") -> Selected_co: ...


class FastPath(NamedTuple, Generic[Slow, SlowSelect]):
    """The reads and what controls them. Plain functions over common variables: attributes cost a third of the time."""

    resolve: Callable[[RouteKey | str], CachedResolution | Slow]
    select: Select[CachedSelection | SlowSelect]
    fresh: Callable[[str], CachedResolution | None]
    """The same as ``resolve``, but None for what that takes the slow way."""
    fresh_select: Callable[[str, str], CachedSelection | None]
    """The same as ``select``, but None for what that takes the slow way."""
    use: Callable[[dict[str, Entry]], None]
    """Read from another dict from now on."""
    reads: Callable[[], int]
    """How many reads have been answered. Threads do not lose counts as long as there is a GIL."""


def fast_path(  # noqa: C901 - several functions over common variables
    slow: Callable[[RouteKey | str], Slow],
    slow_select: Callable[[FamilyKey | str, str], SlowSelect],
    sample: Callable[[str], int],
    *,
    clock: Callable[[], float] = time.monotonic,
) -> FastPath[Slow, SlowSelect]:
    """Return a fast path. Whatever it has no fresh result for goes to ``slow`` and ``slow_select``.

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

    def select(key: FamilyKey | str, sticky_key: str = "") -> CachedSelection | SlowSelect:
        nonlocal count, next_sample
        try:
            found = routes[key]
            # Only the entry of a family can choose.
            choose, view = found.choose, found.owner
        except (KeyError, AttributeError):
            return slow_select(key, sticky_key)
        if clock() >= view.fresh_until or len(sticky_key) > SHORT:
            return slow_select(key, sticky_key)
        result: CachedSelection = choose(sticky_key.encode())
        count += 1
        if count >= next_sample:
            next_sample = count + sample(result.key_text)
        return result

    def fresh(key: str) -> CachedResolution | None:
        nonlocal count, next_sample
        found = routes.get(key)
        if found is None or clock() >= found.view.fresh_until:
            return None
        count += 1
        if count >= next_sample:
            next_sample = count + sample(key)
        result: CachedResolution = found
        return result

    def fresh_select(key: str, sticky_key: str) -> CachedSelection | None:
        nonlocal count, next_sample
        found: Any = routes.get(key)
        # Only the entry of a family can choose.
        if not hasattr(found, "choose") or clock() >= found.owner.fresh_until or len(sticky_key) > SHORT:
            return None
        result: CachedSelection = found.choose(sticky_key.encode())
        count += 1
        if count >= next_sample:
            next_sample = count + sample(result.key_text)
        return result

    def use(other: dict[str, Entry]) -> None:
        nonlocal routes
        routes = other

    return FastPath(resolve, select, fresh, fresh_select, use, lambda: count)
