"""Channels that nobody closes."""

import gc
import threading
import weakref

import grpc
import pytest

import pointsman
import pointsman.aio
from pointsman import AsyncClient, Client
from pointsman.channels.channel import RouteChannel
from tests.support.echo_backends import EchoBackend, EchoStub
from tests.support.fake_route_service import FakeServer
from tests.support.waiting import becomes, eventually

V1 = "team-a/payments/prod/v1"


@pytest.fixture
def live(server: FakeServer) -> str:
    server.add(V1, "http://127.0.0.1:1")
    return V1


def own_threads(before: set[threading.Thread]) -> set[str]:
    return {each.name for each in threading.enumerate() if each not in before and each.name.startswith("pointsman")}


def test_of_a_shared_near_cache_the_channel_goes_alone(client: Client, live: str) -> None:
    with client.cached() as cache:
        channel = pointsman.channel(live, cache=cache)
        cache.start()
        gone = weakref.ref(channel)
        assert len(cache._callbacks) == 1
        del channel
        gc.collect()
        assert gone() is None
        assert cache._callbacks == []
        assert not cache.closed


def test_a_near_cache_of_its_own_goes_with_the_channel(client: Client, live: str) -> None:
    before = set(threading.enumerate())
    channel = pointsman.channel(live, client=client)
    assert isinstance(channel, RouteChannel)
    with pytest.raises(grpc.RpcError):
        EchoStub(channel).unary_unary(b"a", timeout=0.5)
    assert own_threads(before)
    gone = weakref.ref(channel)
    del channel
    gc.collect()
    assert gone() is None
    assert eventually(lambda: own_threads(before) == set() and client._session.near_caches == ())


async def test_the_same_for_asyncio(async_client: AsyncClient, live: str) -> None:
    before = set(threading.enumerate())
    channel = pointsman.aio.channel(live, client=async_client)
    with pytest.raises(grpc.RpcError):
        await EchoStub(channel).unary_unary(b"a", timeout=0.5)
    assert own_threads(before)
    gone = weakref.ref(channel)
    del channel
    gc.collect()
    assert gone() is None

    async def ended() -> bool:
        return own_threads(before) == set() and async_client._session.near_caches == ()

    assert await becomes(ended)


def test_a_stub_is_enough_to_keep_it(client: Client, server: FakeServer) -> None:
    with EchoBackend("one") as one:
        server.add(V1, one.url)
        stub = EchoStub(pointsman.channel(V1, client=client))
        gc.collect()
        assert stub.unary_unary(b"a") == b"one a"
        [cache] = client._session.near_caches
        assert len(cache._callbacks) == 1  # type: ignore[attr-defined]


def test_one_that_was_closed_starts_no_thread_to_close_it_again(
    client: Client, live: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pointsman.channel(live, client=client).close()
    monkeypatch.setattr(threading.Thread, "start", lambda _: pytest.fail("a thread was started"))
    gc.collect()
