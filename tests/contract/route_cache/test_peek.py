"""Peek: what is held is told, and nothing is changed."""

import pytest

from pointsman_server.adapters.redis.cache import RedisCache
from pointsman_server.ports.cache import CacheUnavailable, Held
from tests.support.route_cache import (
    K1,
    K2,
    LEASED,
    PATIENCE,
    READER,
    WRITER,
    Harness,
    absent,
    at,
    family_at,
    hit,
)


async def test_a_key_that_is_not_held_is_not_leased_by_a_look(harness: Harness) -> None:
    assert await harness.cache.peek(K1) == Held()
    assert await harness.get() == LEASED


async def test_what_is_held_is_told_with_its_age(harness: Harness) -> None:
    for snapshot in (at(6), absent(7, K2), family_at(8)):
        await harness.hold(snapshot)
        found = await harness.cache.peek(snapshot.key)
        assert (found.snapshot, found.marked, found.leased) == (snapshot, False, False)
        assert found.age is not None
        assert 0 <= found.age < 5
        assert await harness.get(snapshot.key) == hit(snapshot)


async def test_a_lease_is_told_and_stays_with_its_owner(harness: Harness) -> None:
    assert await harness.get() == LEASED
    assert await harness.cache.peek(K1) == Held(leased=True)
    await harness.cache.fill([at(5)], READER)
    assert await harness.get() == hit(at(5))


async def test_a_mark_is_told_and_stays(harness: Harness) -> None:
    await harness.hold(at(5))
    await harness.cache.mark([K1], WRITER)
    assert await harness.cache.peek(K1) == Held(at(5), marked=True)
    await harness.cache.settle([at(6)], WRITER)
    assert await harness.get() == hit(at(6))


async def test_a_look_does_not_prolong_what_is_held(harness: Harness) -> None:
    await harness.hold(at(5))
    await harness.cache.peek(K1)
    await harness.lapse(K1)
    assert await harness.cache.peek(K1) == Held()


async def test_what_is_not_ours_is_nothing_and_stays(redis_url: str, redis, cache: RedisCache) -> None:
    name = f"pointsman:no-epoch:{K1}"
    await redis.set(name, "a text", ex=60)
    assert await cache.peek(K1) == Held()
    assert await redis.get(name) == b"a text"
    await redis.delete(name)
    await redis.hset(name, mapping={"r": "junk", "v": "junk"})
    await redis.expire(name, 60)
    assert await cache.peek(K1) == Held()
    assert await redis.hlen(name) == 2


async def test_another_epoch_is_told(redis_url: str, redis) -> None:
    await redis.hset("pointsman:clock", "epoch", "another")
    for epoch, words in (("ours", "another epoch"), ("", "not known")):
        cache = RedisCache(redis_url, timeout=PATIENCE, epoch=lambda epoch=epoch: epoch)
        with pytest.raises(CacheUnavailable, match=words):
            await cache.peek(K1)
        await cache.close()
