from pointsman import AsyncClient, CachedResolution
from pointsman.near_cache.table.entries import entry_of
from pointsman.near_cache.table.selections import CachedSelection
from pointsman.near_cache.watch.protocol import Position
from tests.support.fake_route_service import FakeServer
from tests.support.watch_events import EPOCH, route

KEY = "team-a/payments/prod/v1"
FAMILY = "team-a/payments/prod"


async def test_it_begins_and_ends_with_its_block_and_with_its_client() -> None:
    async with AsyncClient("127.0.0.1:1") as client:
        async with client.cached(tenants=["team-a"]) as cache:
            assert client._session.near_caches == (cache,)
            assert not await cache.wait_ready(0.01)
        assert client._session.near_caches == ()
        other = client.cached()
        other.start()
    assert other._closed


async def test_a_read_awaits_the_server_only_where_the_table_does_not_answer(
    server: FakeServer, async_client: AsyncClient
) -> None:
    server.add(KEY, "https://server.internal")
    async with async_client.cached() as cache:
        assert cache.peek(KEY) is None
        assert (await cache.resolve(KEY)).url == "https://server.internal"
        [view] = cache._views
        cache._table.replace(view, Position(EPOCH, 5), [entry_of(view, route(KEY, 5, "https://table.internal"))])
        cache._table.confirm(view, Position(EPOCH, 5), 0.0)
        found = cache.peek(KEY)
        assert isinstance(found, CachedResolution)
        assert await cache.resolve(KEY) is found


async def test_a_select_awaits_the_server_only_where_the_table_does_not_answer(
    server: FakeServer, async_client: AsyncClient
) -> None:
    server.add(KEY, "https://server.internal")
    server.knows_traffic = False
    async with async_client.cached() as cache:
        assert cache.peek_select(FAMILY, "user-1") is None
        assert (await cache.select(FAMILY, "user-1")).url == "https://server.internal"
    server.knows_traffic = True
    async with async_client.cached() as cache:
        assert await cache.wait_ready(20.0)
        found = cache.peek_select(FAMILY, "user-1")
        assert isinstance(found, CachedSelection)
        assert await cache.select(FAMILY, "user-1") is found
