"""Connections to Redis: lost ones, late replies, forgotten scripts, and the breaker."""

import asyncio

from redis.asyncio import Redis

from pointsman.v1 import route_pb2
from pointsman_server.adapters.redis.breaker import Breaker
from pointsman_server.adapters.redis.cache import RedisCache
from pointsman_server.domain.codec import route_to_message
from pointsman_server.domain.routes import RouteKey
from tests.support.fakes import ManualClock, Wire
from tests.support.route_cache import K1, K2, MISS, PATIENCE, at, behind, hit, settle


async def test_a_late_reply_is_not_taken_for_the_next_one(redis_url: str, wire: Wire) -> None:
    """A connection that was given up in the middle of a reply must not be used again."""
    cache = RedisCache(behind(wire, redis_url), timeout=PATIENCE)
    await settle(cache, at(5, K1))
    await settle(cache, at(6, K2))
    wire.replies.close()
    cache._scripts._timeout = 0.01
    assert await cache.get([K1], "reader") == [MISS]
    wire.replies.open()
    cache._scripts._timeout = PATIENCE
    assert await cache.get([K2], "reader") == [hit(at(6, K2))]
    assert await cache.get([K1], "reader") == [hit(at(5, K1))]
    await cache.close()


async def test_a_cancelled_call_leaves_no_reply_for_the_next_one(redis_url: str, wire: Wire) -> None:
    cache = RedisCache(behind(wire, redis_url), timeout=60.0)
    await settle(cache, at(5, K1))
    await settle(cache, at(6, K2))
    wire.replies.close()
    asking = asyncio.create_task(cache.get([K1], "reader"))
    await wire.replies.arrivals()
    asking.cancel()
    await asyncio.wait([asking])
    wire.replies.open()
    assert await cache.get([K2], "reader") == [hit(at(6, K2))]
    assert await cache.get([K1], "reader") == [hit(at(5, K1))]
    await cache.close()


async def test_scripts_that_redis_lost_are_loaded_again(cache: RedisCache, redis: Redis) -> None:
    await settle(cache, at(5))
    await redis.script_flush()
    assert await cache.get([K1], "reader") == [hit(at(5))]
    assert not cache._scripts.nodes.node_of(()).breaker.is_open


async def test_the_breaker_opens_after_failures_in_a_row_lets_one_through_a_pause_and_closes(
    redis_url: str, wire: Wire
) -> None:
    attempts: list[str] = []
    now = ManualClock()
    breaker = Breaker(threshold=3, pause=10.0, now=now)
    url = behind(wire, redis_url)
    cache = RedisCache(url, timeout=PATIENCE, breaker=lambda: breaker, failed=lambda: attempts.append("failed"))
    await settle(cache, at(5))
    await wire.cut()
    for _ in range(5):
        assert await cache.get([K1], "reader") == [MISS]
    assert (len(attempts), breaker.is_open) == (3, True)

    now.advance(10.0)
    for _ in range(5):
        assert await cache.get([K1], "reader") == [MISS]
    assert len(attempts) == 4

    await wire.mend()
    assert await cache.get([K1], "reader") == [MISS]  # not before the pause is over
    now.advance(10.0)
    assert await cache.get([K1], "reader") == [hit(at(5))]
    assert not breaker.is_open
    await cache.close()


async def test_while_the_breaker_is_open_writes_are_still_tried(redis_url: str) -> None:
    """Other servers may reach Redis, and would go on answering what was not replaced."""
    breaker = Breaker(threshold=1, pause=1e9, now=ManualClock())
    cache = RedisCache(redis_url, timeout=PATIENCE, breaker=lambda: breaker)
    breaker.failed()
    await cache.mark([K1], "writer")
    breaker.failed()
    await cache.settle([at(5)], "writer")
    breaker.failed()
    await cache.consume([at(6)])
    assert not breaker.is_open
    assert await cache.get([K1], "reader") == [hit(at(6))]
    await cache.close()


async def test_a_connection_that_was_lost_meanwhile_is_made_anew_without_a_miss(redis_url: str, wire: Wire) -> None:
    cache = RedisCache(behind(wire, redis_url), timeout=PATIENCE)
    await settle(cache, at(5))
    assert await cache.get([K1], "reader") == [hit(at(5))]
    await wire.cut()
    await wire.mend()
    (kept,) = cache._scripts.nodes.node_of(()).connections._idle
    async with asyncio.timeout(30):
        await kept._reader.read()  # its end
    assert await cache.get([K1], "reader") == [hit(at(5))]
    await cache.close()


async def test_lookups_at_the_same_time_do_not_take_each_others_answers(cache: RedisCache) -> None:
    keys = [RouteKey("team-a", "payments", "prod", f"v{number}") for number in range(40)]
    for number, key in enumerate(keys, 1):
        await settle(cache, at(number, key))
    found = await asyncio.gather(*(cache.get([key], "reader") for key in keys))
    assert found == [[hit(at(number, key))] for number, key in enumerate(keys, 1)]


async def test_a_hit_brings_its_route_as_it_is_kept(cache: RedisCache) -> None:
    await settle(cache, at(5, labels={"tier": "gold", "team": "payments"}))
    (found,) = await cache.get([K1], "reader")
    assert found.snapshot
    assert found.snapshot.route
    assert route_pb2.Route.FromString(found.encoded) == route_to_message(found.snapshot.route)
