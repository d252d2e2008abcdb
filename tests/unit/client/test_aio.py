"""AsyncClient: the same as Client, awaited."""

import inspect

import grpc
import grpc.aio
import pytest

from pointsman import (
    AsyncClient,
    Client,
    ImportedRoute,
    RevisionMismatch,
    RouteInactive,
    RouteNotFound,
    Unavailable,
    chunks,
)
from tests.support.fake_route_service import Failure, FakeServer

KEY = "team-a/payments/prod/v2"
URL = "https://payments-v2.internal:8443"
UNAVAILABLE = Failure(grpc.StatusCode.UNAVAILABLE, "the store cannot be reached", "STORE_UNAVAILABLE")
METHODS = [name for name in dir(Client) if not name.startswith("_") and callable(getattr(Client, name))]


@pytest.mark.parametrize("name", METHODS)
def test_has_every_method_of_the_sync_client_with_the_same_parameters(name: str) -> None:
    sync, asyncio = inspect.signature(getattr(Client, name)), inspect.signature(getattr(AsyncClient, name))
    assert asyncio.parameters == sync.parameters


def test_can_be_made_before_there_is_an_event_loop() -> None:
    assert AsyncClient("127.0.0.1:1").last_revision == 0


async def test_changes_and_resolves(async_client: AsyncClient) -> None:
    created = await async_client.create(KEY, URL, labels={"tier": "gold"})
    assert (await async_client.resolve(KEY)).route == created
    assert (await async_client.update(KEY, url="https://new.internal")).url == "https://new.internal"
    assert (await async_client.deactivate(KEY)).active is False
    with pytest.raises(RouteInactive):
        await async_client.resolve(KEY)
    assert (await async_client.activate(KEY)).route.active
    assert await async_client.delete(KEY) == 5
    with pytest.raises(RouteNotFound) as caught:
        await async_client.get(KEY)
    assert isinstance(caught.value.__cause__, grpc.aio.AioRpcError)


async def test_splits_a_large_batch_and_keeps_its_order(async_client: AsyncClient, server: FakeServer) -> None:
    keys = [f"a/b/c/v{number}" for number in range(1001)]
    assert [str(result.key) for result in await async_client.batch_resolve(keys)] == keys
    assert [len(call.request.keys) for call in server.calls] == [1000, 1]


async def test_asks_again_for_what_did_not_fit_into_a_response(async_client: AsyncClient, server: FakeServer) -> None:
    server.largest_batch = 2
    for number in range(5):
        server.add(f"a/b/c/v{number}", f"https://v{number}.internal")
    results = await async_client.batch_resolve([f"a/b/c/v{number}" for number in range(5)])
    assert [result.unwrap().url for result in results] == [f"https://v{number}.internal" for number in range(5)]
    assert [len(call.request.keys) for call in server.calls] == [5, 3, 1]


async def test_imports_many_routes_each_at_the_revision_that_was_seen(
    async_client: AsyncClient, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "MOST_ROUTES", 10)
    seen = [server.add(f"a/b/c/v{number}", URL) for number in range(25)]
    routes = [
        ImportedRoute(f"a/b/c/v{n}", f"{URL}/new", expected_revision=each.revision) for n, each in enumerate(seen)
    ]
    total = await async_client.import_routes(routes)
    assert (total.updated, len(server.called("Import"))) == (25, 3)
    with pytest.raises(RevisionMismatch) as raised:
        await async_client.import_routes(routes[:12], concurrency=1)
    assert raised.value.violations[0].field == "routes[0].expected_revision"


async def test_pages_by_itself(async_client: AsyncClient, server: FakeServer) -> None:
    for number in range(3):
        server.add(f"a/b/c/v{number}", URL)
    assert [route.key.version async for route in async_client.list(page_size=2)] == ["v0", "v1", "v2"]
    assert [change.revision async for change in async_client.changes(page_size=2)] == [1, 2, 3]
    assert server.methods() == ["List", "List", "ListChanges", "ListChanges"]


async def test_reads_its_own_writes(async_client: AsyncClient, server: FakeServer) -> None:
    await async_client.create(KEY, URL)
    await async_client.resolve(KEY)
    assert server.called("Resolve")[0].request.min_revision == async_client.last_revision == 1


async def test_retries_while_unavailable(async_client: AsyncClient, server: FakeServer) -> None:
    server.fail("Create", UNAVAILABLE, UNAVAILABLE)
    assert (await async_client.create(KEY, URL)).revision == 1
    assert len({call.request.request_id for call in server.called("Create")}) == 1
    assert len(server.calls) == 3


async def test_raises_once_retries_are_over(server: FakeServer) -> None:
    server.fail("Get", UNAVAILABLE)
    async with AsyncClient(server.target, max_attempts=1) as client:
        with pytest.raises(Unavailable):
            await client.get(KEY)


async def test_every_call_has_a_deadline(async_client: AsyncClient, server: FakeServer) -> None:
    server.add(KEY, URL)
    await async_client.get(KEY)
    assert server.calls[0].seconds_left == pytest.approx(5, abs=1)


async def test_says_who_has_a_revision_and_who_reads(async_client: AsyncClient, server: FakeServer) -> None:
    server.usage.readers.add(subject="cart")
    assert (await async_client.get_propagation(1)).complete
    assert [reader.subject for reader in (await async_client.get_usage(KEY)).readers] == ["cart"]
