"""Near-caches on real servers: they start, follow, survive what servers and networks do, and end."""

import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest

from pointsman import (
    AsyncClient,
    CachedResolution,
    Client,
    NearCache,
    Resolution,
    RouteInactive,
    RouteNotFound,
)
from tests.support.servers import RunningServer, serving, settings
from tests.support.waiting import eventually

KEY = "team-a/payments/prod/v1"
OTHER = "team-a/payments/prod/v2"
ONE, TWO = "https://one.internal", "https://two.internal"
READY_SECONDS = 20.0


@pytest.fixture(params=["grpcio", "envoy"])
def server(request: pytest.FixtureRequest, database_url: str, redis_url: str) -> Iterator[RunningServer]:
    with serving(settings(transport=request.param, database_url=database_url, redis_url=redis_url)) as running:
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    with Client(server.address) as client:
        yield client


def test_it_has_the_routes_and_follows_their_changes(client: Client, server: RunningServer) -> None:
    client.create(KEY, ONE)
    client.create(OTHER, TWO, active=False, labels={"tier": "1"})
    with Client(server.address) as writer, client.cached(tenants=["team-a"]) as cache:
        assert cache.wait_ready(READY_SECONDS)
        found = cache.resolve(KEY)
        assert isinstance(found, CachedResolution)
        assert (found.url, found.live, found.route.key) == (ONE, True, client.get(KEY).key)
        assert found.age < timedelta(seconds=10)
        with pytest.raises(RouteInactive):
            cache.resolve(OTHER)
        with pytest.raises(RouteNotFound) as absent:
            cache.resolve("team-a/payments/prod/v3")
        assert int(absent.value.metadata["revision"]) >= 2

        writer.activate(OTHER, exclusive=True)
        assert eventually(lambda: url_of(cache, OTHER) == TWO)
        with pytest.raises(RouteInactive):
            cache.resolve(KEY)
        assert (found.live, found.url) == (False, ONE)
        assert cache.resolve(OTHER).route == client.get(OTHER)
        writer.delete(OTHER)
        assert eventually(lambda: url_of(cache, OTHER) is None)


def test_own_writes_are_readable_at_once(client: Client) -> None:
    client.create(KEY, ONE)
    with client.cached(tenants=["team-a"]) as cache:
        assert cache.wait_ready(READY_SECONDS)
        for number in range(50):
            url = f"https://{number}.internal"
            client.update(KEY, url=url)
            assert cache.resolve(KEY).url == url
        client.create(OTHER, TWO, active=False)
        client.activate(OTHER, exclusive=True)
        assert url_of(cache, KEY) is None
        assert cache.resolve(OTHER).url == TWO
        client.delete(OTHER)
        assert url_of(cache, OTHER) is None
        assert eventually(lambda: not cache._table._behind)


def test_it_asks_the_server_while_it_loads_and_for_other_tenants(client: Client) -> None:
    client.create(KEY, ONE)
    client.create("team-b/payments/prod/v1", TWO)
    with client.cached(tenants=["team-a"]) as cache:
        assert cache.resolve(KEY).url == ONE
        assert isinstance(cache.resolve("team-b/payments/prod/v1"), Resolution)


def test_no_thread_is_left(client: Client) -> None:
    client.create(KEY, ONE)
    before = set(threading.enumerate())
    cache = client.cached(tenants=["team-a", "team-b"])
    assert cache.wait_ready(READY_SECONDS)
    cache.close()
    cache.close()
    assert eventually(lambda: {thread for thread in threading.enumerate() if thread not in before} == set())
    with pytest.raises(RuntimeError, match="closed"):
        cache.resolve(KEY)


async def test_the_asyncio_client_has_one_too(server: RunningServer) -> None:
    async with AsyncClient(server.address) as client:
        await client.create(KEY, ONE)
        async with client.cached() as cache:
            assert (await cache.resolve(KEY)).url == ONE
            assert await cache.wait_ready(READY_SECONDS)
            found = cache.peek(KEY)
            assert found is not None
            assert found.url == ONE
            await client.update(KEY, url=TWO)
            assert (await cache.resolve(KEY)).url == TWO


def url_of(cache: NearCache, key: str) -> str | None:
    try:
        return cache.resolve(key).url
    except (RouteNotFound, RouteInactive):
        return None
