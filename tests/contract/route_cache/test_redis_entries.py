"""Entries in Redis: how long they live, and what is done with entries of others."""

import pytest
from redis.asyncio import Redis

from pointsman_server.adapters.redis.breaker import Breaker
from pointsman_server.adapters.redis.cache import RedisCache
from pointsman_server.domain.codec import route_to_message
from pointsman_server.domain.routes import Route, RouteKey
from pointsman_server.ports.store import Clock
from tests.support.route_cache import (
    BORN,
    K1,
    K2,
    LEASED,
    LIFETIMES,
    PATIENCE,
    WRITER,
    Writing,
    absent,
    at,
    consume,
    fill,
    hit,
    settle,
)


async def test_lifetimes_are_shortened_by_up_to_a_tenth_and_not_all_alike(cache: RedisCache, redis: Redis) -> None:
    routes = [RouteKey("team-a", "payments", "prod", f"v{number}") for number in range(50)]
    gaps = [RouteKey("team-a", "nothing", "prod", f"v{number}") for number in range(50)]
    await cache.get(routes + gaps, "reader")
    await cache.fill([at(5, key) for key in routes] + [absent(5, key) for key in gaps], "reader")
    for keys, lifetime in ((routes, LIFETIMES.value), (gaps, LIFETIMES.absence)):
        left = [await redis.pttl(f"pointsman:no-epoch:{key}") / 1000 for key in keys]
        assert lifetime * 0.9 - PATIENCE <= min(left) < max(left) <= lifetime
        assert max(left) - min(left) > lifetime / 100


@pytest.mark.parametrize("write", [settle, consume])
async def test_what_is_written_lives_as_long_as_what_is_filled(cache: RedisCache, redis: Redis, write: Writing) -> None:
    await cache.get([K1], "reader")
    await cache.fill([at(5)], "reader")
    await write(cache, at(6))
    left = await redis.pttl(f"pointsman:no-epoch:{K1}") / 1000
    assert LIFETIMES.value * 0.9 - PATIENCE <= left <= LIFETIMES.value


async def test_caches_with_different_prefixes_do_not_meet(cache: RedisCache, redis_url: str) -> None:
    other = RedisCache(redis_url, prefix="other", timeout=PATIENCE)
    await settle(cache, at(5))
    assert await other.get([K1], "reader") == [LEASED]
    await other.close()


GOOD = route_to_message(Route(K1, "https://x.internal", True, {}, 5, BORN, BORN)).SerializeToString()
TEXT, NUMBER = b"\xff\xfe not protobuf", f"{5:020d}".encode()
# A timestamp of the year 31 billion: it decodes, but no datetime can hold it.
FAR_FUTURE = b"\x32\x0a\x08" + b"\xff\xff\xff\xff\xff\xff\xff\xff\x3f"
OF_ANOTHER = route_to_message(Route(K2, "https://x.internal", True, {}, 5, BORN, BORN)).SerializeToString()
garbage = pytest.mark.parametrize(
    "fields",
    [
        {"r": NUMBER, "v": TEXT},
        {"r": NUMBER, "v": FAR_FUTURE},
        {"r": NUMBER, "v": OF_ANOTHER},
        {"r": f"{4:020d}".encode(), "v": GOOD},
        {"r": f"{2**63:020d}".encode(), "v": GOOD},
        {"r": b"9" * 20, "v": b""},
        {"r": NUMBER},
        {"r": b"", "v": GOOD},
        {"r": b"garbage", "v": GOOD},
        {"r": b"5", "v": GOOD},
        {"r": "\u0665".encode() * 10, "v": GOOD},
        {"v": GOOD},
        {"something": b"else"},
    ],
    ids=lambda fields: " ".join(f"{name}={value[:8]!r}" for name, value in fields.items()),
)


async def spoil(redis: Redis, fields: dict[str, bytes]) -> None:
    name = f"pointsman:no-epoch:{K1}"
    await redis.hset(name, mapping=fields)  # type: ignore[arg-type]
    # As all of ours expire: another one is never read.
    await redis.expire(name, 100)


@garbage
async def test_garbage_in_redis_is_a_miss_for_its_key_alone(
    cache: RedisCache, redis: Redis, fields: dict[str, bytes]
) -> None:
    await settle(cache, at(5, K2))
    await spoil(redis, fields)
    first, second = await cache.get([K1, K2], "reader")
    assert first.snapshot is None
    assert second == hit(at(5, K2))


@garbage
@pytest.mark.parametrize("write", [settle, consume])
async def test_garbage_in_redis_is_never_answered_after_a_write_and_goes(
    cache: RedisCache, redis: Redis, fields: dict[str, bytes], write: Writing
) -> None:
    await spoil(redis, fields)
    await write(cache, at(6))
    (found,) = await cache.get([K1], "reader")
    if found.snapshot is None:
        assert found.leased
        await cache.fill([at(6)], "reader")
        (found,) = await cache.get([K1], "reader")
    assert found == hit(at(6))


@pytest.mark.parametrize("highest", [b"9" * 20, b"9" * 5000, b"1", b"zzz", b""])
async def test_garbage_in_the_clock_is_no_revision_of_the_store(redis_url: str, redis: Redis, highest: bytes) -> None:
    told: list[tuple[str, int]] = []
    cache = RedisCache(redis_url, timeout=PATIENCE, witness=lambda *known: told.append(known))
    await redis.hset("pointsman:clock", "no-epoch", highest)  # type: ignore[arg-type]
    await cache.mark([K1], WRITER)
    await cache.publish_clock(Clock("no-epoch", 7))
    await cache.mark([K1], WRITER)
    assert told == [("no-epoch", 7)] * 2
    await cache.close()


@pytest.mark.parametrize("write", [fill, settle, consume])
async def test_a_key_of_another_type_is_a_miss_and_does_not_open_the_breaker(
    redis_url: str, redis: Redis, write: Writing
) -> None:
    breaker = Breaker(threshold=1)
    cache = RedisCache(redis_url, timeout=PATIENCE, breaker=lambda: breaker)
    await redis.set(f"pointsman:no-epoch:{K1}", "a string")
    await write(cache, at(5))
    await redis.set(f"pointsman:no-epoch:{K1}", "a string")
    assert await cache.get([K1, K2], "reader") == [LEASED, LEASED]
    assert not breaker.is_open
    await cache.close()
