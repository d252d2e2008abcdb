"""A Redis that refuses: what a cache on it answers, and what its check says."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest
import redis

from pointsman_server.adapters.redis.breaker import Breaker
from pointsman_server.adapters.redis.cache import Lifetimes, RedisCache
from pointsman_server.domain.routes import Snapshot
from pointsman_server.ports.cache import CacheUnavailable, Lookup
from pointsman_server.ports.store import Clock
from tests.support.changes import make_change
from tests.support.redis_server import RedisServer, full, read_only_replica, running_redis
from tests.support.waiting import eventually

pytestmark = pytest.mark.engines

USER = "app"
PASSWORD = "secret"


@pytest.fixture
async def cache(own_redis: RedisServer) -> AsyncIterator[RedisCache]:
    cache = RedisCache(own_redis.url, timeout=5.0, lifetimes=Lifetimes(value=0.3, absence=0.3))
    yield cache
    await cache.close()


def snapshot(as_of: int, service: str = "pay") -> Snapshot:
    change = make_change(as_of, service)
    return Snapshot(change.key, change.after, as_of)


async def held(cache: RedisCache) -> Snapshot | None:
    (found,) = await cache.get([snapshot(1).key], "reader")
    return found.snapshot


async def write(cache: RedisCache, written: Snapshot) -> None:
    await cache.mark([written.key], "writer")
    await cache.settle([written], "writer")


@pytest.mark.parametrize("read_only", ["yes", "no"])
async def test_a_replica_without_its_primary_answers_nothing_that_has_expired(
    own_redis: RedisServer, cache: RedisCache, read_only: str
) -> None:
    await write(cache, snapshot(1))
    own_redis.run("CONFIG", "SET", "replica-read-only", read_only)
    read_only_replica(own_redis)
    (name,) = own_redis.client.keys("*acme*")
    assert eventually(lambda: not own_redis.client.exists(name))
    # A script sees it as before: the reason for asking how long it lives.
    assert own_redis.run("EVAL", "return redis.call('HGET', KEYS[1], 'r')", 1, name) in (b"%020d" % 1, None)
    assert await held(cache) is None


async def test_a_value_that_never_expires_is_not_answered_and_goes(own_redis: RedisServer, cache: RedisCache) -> None:
    await write(cache, snapshot(1))
    (name,) = own_redis.client.keys("*acme*")
    assert own_redis.client.persist(name)
    assert await held(cache) is None
    assert 0 < own_redis.client.pttl(name) <= Lifetimes().lease * 1000


# Full, and evicting nothing


async def test_a_full_redis_answers_what_it_has_and_stores_nothing_new(own_redis: RedisServer) -> None:
    failures: list[str] = []
    breaker = Breaker(threshold=1)
    cache = RedisCache(own_redis.url, timeout=5.0, breaker=lambda: breaker, failed=lambda: failures.append("failed"))
    one, other = snapshot(1), snapshot(1, "other")
    await write(cache, one)
    full(own_redis)
    assert await cache.get([one.key, other.key], "reader") == [Lookup(one), Lookup()]
    await cache.fill([other], "reader")
    assert await cache.get([one.key, other.key], "reader") == [Lookup(one), Lookup()]
    assert (failures, breaker.is_open) == ([], False)
    await cache.close()


@pytest.mark.parametrize("replace", ["settle", "consume", "invalidate", "drop_older", "fill"])
async def test_a_full_redis_drops_what_is_older_than_a_write(own_redis: RedisServer, replace: str) -> None:
    cache = RedisCache(own_redis.url, timeout=5.0)
    old, new = snapshot(1), snapshot(2)
    await write(cache, old)
    full(own_redis)
    if replace == "settle":
        await write(cache, new)
    elif replace == "consume":
        await cache.consume([new])
    elif replace == "invalidate":
        await cache.invalidate([new.key], [2], "no-epoch")
    elif replace == "fill":
        await cache.fill([new], "")
    else:
        await cache.mark_held([new.key], "writer")
        assert await held(cache) is None
        await cache.drop_older([new.key], [2], Clock("no-epoch", 2), "writer")
    assert await held(cache) is None
    assert not own_redis.client.keys("*acme*")
    await cache.close()


async def test_a_full_redis_keeps_the_highest_revision(own_redis: RedisServer) -> None:
    known: list[tuple[str, int]] = []
    cache = RedisCache(own_redis.url, timeout=5.0, witness=lambda *found: known.append(found))
    await cache.publish_clock(Clock("no-epoch", 7))
    full(own_redis)
    await cache.publish_clock(Clock("no-epoch", 5))
    await write(cache, snapshot(8))
    await cache.mark([snapshot(9).key], "writer")
    assert known == [("no-epoch", 7)] * 3 + [("no-epoch", 8)]
    await cache.close()


# What the check says


async def complaint(url: str) -> str:
    cache = RedisCache(url, timeout=5.0)
    with pytest.raises(CacheUnavailable) as caught:
        await cache.ping()
    await cache.close()
    return str(caught.value)


async def test_a_check_names_redis_cluster(tmp_path: Path) -> None:
    with running_redis(tmp_path, "--cluster-enabled", "yes") as server:
        assert "is of a Redis Cluster that is down" in await complaint(server.url)
        server.run("CLUSTER", "ADDSLOTS", *range(16384))
        assert eventually(lambda: b"cluster_state:ok" in server.run("CLUSTER", "INFO"))
        assert "is Redis Cluster: REDIS_URL must begin with redis+cluster://" in await complaint(server.url)


async def test_a_check_names_the_missing_replicas(own_redis: RedisServer, cache: RedisCache) -> None:
    await write(cache, snapshot(1))
    own_redis.run("CONFIG", "SET", "min-replicas-to-write", 1)
    assert "fewer replicas than min-replicas-to-write" in await complaint(own_redis.url)
    assert await held(cache) is None


async def test_a_check_names_a_replica_that_answers_nothing(own_redis: RedisServer, cache: RedisCache) -> None:
    await write(cache, snapshot(1))
    own_redis.run("CONFIG", "SET", "replica-serve-stale-data", "no")
    read_only_replica(own_redis)
    assert "is a replica without its primary" in await complaint(own_redis.url)
    assert await held(cache) is None


async def test_a_check_names_a_wrong_and_a_missing_password(own_redis: RedisServer) -> None:
    own_redis.run("CONFIG", "SET", "requirepass", PASSWORD)
    assert "REDIS_URL has none" in await complaint(own_redis.url)
    wrong = await complaint(own_redis.url_of("default", "guess"))
    assert "refuses the user or the password of REDIS_URL" in wrong
    assert "guess" not in wrong


async def test_a_check_says_that_redis_is_loading(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        server.run("CONFIG", "SET", "rdbcompression", "no")
        for number in range(20):
            server.client.set(f"large-{number}", bytes(1_000_000))
        server.run("SAVE")
        server.stop()
        # In microseconds a key; while it loads, Redis answers after every 2 MB.
        server.start("--key-load-delay", "200000")
        assert "is loading its data" in await complaint(server.url)


async def test_a_check_says_that_redis_is_busy(own_redis: RedisServer) -> None:
    own_redis.run("CONFIG", "SET", "lua-time-limit", 1)
    cache = RedisCache(own_redis.url, timeout=5.0)
    other = redis.Redis(port=own_redis.port)
    with ThreadPoolExecutor(1) as thread:
        endless = thread.submit(cast("Any", other).eval, "redis.call('TIME') while true do end", 0)
        try:
            found = ""
            async with asyncio.timeout(30):
                # Until the script has begun.
                while not found:
                    with contextlib.suppress(CacheUnavailable):
                        await cache.ping()
                        continue
                    found = await complaint(own_redis.url)
        finally:
            own_redis.run("SCRIPT", "KILL")
        assert endless.exception() is not None
    assert "is busy with another client's script" in found
    await cache.close()


async def test_a_check_of_a_redis_that_is_not_there_says_so(own_redis: RedisServer) -> None:
    own_redis.stop()
    assert await complaint(own_redis.url) == f"Redis at 127.0.0.1:{own_redis.port} does not answer"
