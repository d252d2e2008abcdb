"""A cache that cannot be reached misses, ignores writes, and cannot consume."""

import pytest

from pointsman_server.ports.cache import CacheUnavailable, RouteCache
from tests.support.route_cache import K1, K2, MISS, at


async def test_a_cache_that_is_down_misses_without_a_lease(unreachable: RouteCache) -> None:
    assert await unreachable.get([K1, K2], "reader") == [MISS, MISS]


async def test_a_cache_that_is_down_ignores_writes(unreachable: RouteCache) -> None:
    await unreachable.mark([K1], "writer")
    await unreachable.fill([at(5)], "reader")
    await unreachable.settle([at(6)], "writer")

    assert await unreachable.get([K1], "reader") == [MISS]


async def test_a_cache_that_is_down_cannot_consume(unreachable: RouteCache) -> None:
    with pytest.raises(CacheUnavailable):
        await unreachable.consume([at(6)])


async def test_a_cache_that_is_down_fails_its_ping(unreachable: RouteCache) -> None:
    with pytest.raises(CacheUnavailable):
        await unreachable.ping()


async def test_a_cache_that_is_down_cannot_be_peeked_into(unreachable: RouteCache) -> None:
    with pytest.raises(CacheUnavailable):
        await unreachable.peek(K1)
