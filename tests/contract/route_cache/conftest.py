"""Every implementation of ``ports.RouteCache``, and Redis behind a wire that can be cut."""

from collections.abc import AsyncIterator, Callable

import pytest
from redis.asyncio import Redis, RedisCluster

from pointsman_server.adapters.redis.cache import RedisCache
from pointsman_server.ports.cache import RouteCache
from tests.support.fakes import MemoryCache, Wire
from tests.support.route_cache import LIFETIMES, PATIENCE, Harness, MemoryHarness, RedisHarness


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture(params=["memory", "redis", "cluster"])
async def harness(request: pytest.FixtureRequest) -> AsyncIterator[Harness]:
    if request.param == "memory":
        yield MemoryHarness()
        return
    url = request.getfixturevalue(f"{request.param}_url")
    client = (
        RedisCluster.from_url(url.replace("+cluster", "").partition(",")[0])
        if request.param == "cluster"
        else Redis.from_url(url)
    )
    async with client:
        redis_harness = RedisHarness(url, client)
        yield redis_harness
        await redis_harness.close()


@pytest.fixture(
    params=["memory", "redis://127.0.0.1:{}/0", "redis+cluster://127.0.0.1:{}", "redis+sentinel://127.0.0.1:{}/x"]
)
async def unreachable(
    request: pytest.FixtureRequest, unused_tcp_port_factory: Callable[[], int]
) -> AsyncIterator[RouteCache]:
    if request.param == "memory":
        memory = MemoryCache()
        memory.down = True
        yield memory
        return
    cache = RedisCache(request.param.format(unused_tcp_port_factory()), timeout=PATIENCE)
    yield cache
    await cache.close()


@pytest.fixture
async def cache(redis_url: str) -> AsyncIterator[RedisCache]:
    cache = RedisCache(redis_url, timeout=PATIENCE, lifetimes=LIFETIMES)
    yield cache
    await cache.close()


@pytest.fixture
async def wire(redis_url: str) -> AsyncIterator[Wire]:
    async with Wire(int(redis_url.rpartition("/")[0].rpartition(":")[2])) as wire:
        yield wire
