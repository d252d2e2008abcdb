"""Interleavings of reads and writes: simpler caches answer something old, ours does not."""

from typing import Protocol

import pytest
from redis.asyncio import Redis

from pointsman_server.adapters.redis.cache import RedisCache
from pointsman_server.domain.routes import RouteKey, Snapshot
from pointsman_server.ports.cache import Lookup
from tests.support.route_cache import K1, LEASED, WRITER, absent, at


class NaiveCache:
    """Cache-aside as it is usually written: SET what was loaded, DEL what was changed, on the same Redis."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.values: dict[bytes, Snapshot] = {}

    async def get(self, keys: list[RouteKey], _owner: str) -> list[Lookup]:
        found = await self.redis.mget([f"naive:{key}" for key in keys])
        return [Lookup(self.values[bytes(value)]) if isinstance(value, bytes) else LEASED for value in found]

    async def fill(self, snapshots: list[Snapshot], _owner: str) -> None:
        for snapshot in snapshots:
            value = str(len(self.values)).encode()
            self.values[value] = snapshot
            await self.redis.set(f"naive:{snapshot.key}", value)

    async def mark(self, _keys: list[RouteKey], _owner: str) -> None:
        return None

    async def settle(self, snapshots: list[Snapshot], _owner: str) -> None:
        for snapshot in snapshots:
            await self.redis.delete(f"naive:{snapshot.key}")


class FencedCache(NaiveCache):
    """With the fence alone: an older value does not replace a newer one. But an empty key fences nothing."""

    async def fill(self, snapshots: list[Snapshot], owner: str) -> None:
        for snapshot in snapshots:
            (held,) = await self.get([snapshot.key], owner)
            if held.snapshot is None or held.snapshot.as_of < snapshot.as_of:
                await super().fill([snapshot], owner)

    async def settle(self, snapshots: list[Snapshot], owner: str) -> None:
        await self.fill(snapshots, owner)


class Raced(Protocol):
    """The part of RouteCache that races."""

    async def get(self, keys: list[RouteKey], owner: str, /) -> list[Lookup]: ...
    async def fill(self, snapshots: list[Snapshot], owner: str, /) -> None: ...
    async def mark(self, keys: list[RouteKey], owner: str, /) -> None: ...
    async def settle(self, snapshots: list[Snapshot], owner: str, /) -> None: ...


class Race(Protocol):
    """An interleaving; it returns what the last write left, and the cache may answer nothing older."""

    async def __call__(self, cache: Raced, redis: Redis) -> Snapshot: ...


async def write(cache: Raced, snapshot: Snapshot, owner: str = WRITER) -> None:
    await cache.mark([snapshot.key], owner)
    await cache.settle([snapshot], owner)


async def late_fill(cache: Raced, redis: Redis) -> Snapshot:
    """A reader misses and loads; a writer commits and invalidates; then the reader fills."""
    await cache.get([K1], "reader")
    await write(cache, at(6))
    await cache.fill([at(5)], "reader")
    return at(6)


async def late_fill_of_absence(cache: Raced, redis: Redis) -> Snapshot:
    """The reader found nothing, then the route was created."""
    await cache.get([K1], "reader")
    await write(cache, at(6))
    await cache.fill([absent(5)], "reader")
    return at(6)


async def delete_then_recreate(cache: Raced, redis: Redis) -> Snapshot:
    """The reader holds the first life of the route, and fills it into the second."""
    await cache.get([K1], "reader")
    await write(cache, absent(6), "deleter")
    await write(cache, at(7), "creator")
    await cache.fill([at(5)], "reader")
    return at(7)


async def fill_between_commit_and_settle(cache: Raced, redis: Redis) -> Snapshot:
    """A reader asks, loads and fills while a write is under way, and the writer dies before it settles."""
    await cache.mark([K1], "writer")
    await cache.get([K1], "reader")
    await cache.fill([at(5)], "reader")
    return at(6)


async def late_fill_after_a_flush(cache: Raced, redis: Redis) -> Snapshot:
    """As ``late_fill``, but Redis loses what would have fenced the fill off."""
    await cache.get([K1], "reader")
    await write(cache, at(6))
    await redis.flushdb()
    await cache.fill([at(5)], "reader")
    return at(6)


async def flush_while_writing(cache: Raced, redis: Redis) -> Snapshot:
    """Redis loses the mark; a reader fills from before the commit with a lease of its own; the writer settles."""
    await cache.mark([K1], "writer")
    await redis.flushdb()
    await cache.get([K1], "reader")
    await cache.settle([at(6)], "writer")
    await cache.fill([at(5)], "reader")
    return at(6)


BEATEN_BY: list[tuple[Race, type[NaiveCache]]] = [
    (late_fill, NaiveCache),
    (late_fill_of_absence, NaiveCache),
    (delete_then_recreate, NaiveCache),
    (fill_between_commit_and_settle, NaiveCache),
    (flush_while_writing, NaiveCache),
    (late_fill_after_a_flush, NaiveCache),
    (late_fill_after_a_flush, FencedCache),
    (fill_between_commit_and_settle, FencedCache),
]


async def answered(cache: Raced) -> int:
    """Ask as a new reader does; 0: nothing, ask the store."""
    (found,) = await cache.get([K1], "another")
    return found.snapshot.as_of if found.snapshot else 0


@pytest.mark.parametrize(("race", "naive"), BEATEN_BY)
async def test_a_plain_cache_answers_something_old_after(redis: Redis, race: Race, naive: type[NaiveCache]) -> None:
    cache = naive(redis)
    written = await race(cache, redis)
    assert await answered(cache) == 5 < written.as_of


@pytest.mark.parametrize("race", dict.fromkeys(race for race, _ in BEATEN_BY))
async def test_our_cache_answers_nothing_old_after(cache: RedisCache, redis: Redis, race: Race) -> None:
    written = await race(cache, redis)
    assert await answered(cache) in (0, written.as_of)
