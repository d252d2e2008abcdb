"""streams: one stream of Watch, without its protocol."""

import grpc
import pytest

from pointsman import AsyncClient, Client, Unauthenticated, Unavailable
from pointsman.v1.watch_pb2 import WatchRequest
from tests.support.fake_route_service import Failure, FakeServer

KEY, URL = "a/b/c/v1", "https://x.internal"
AWAY = Failure(grpc.StatusCode.UNAVAILABLE, "draining")


def test_a_stream_is_what_the_server_sends(client: Client, server: FakeServer) -> None:
    server.add(KEY, URL)
    stream = client.watch_events(WatchRequest(tenant="a"))
    events = iter(stream)
    assert [next(events).WhichOneof("event") for _ in range(3)] == ["snapshot", "end_of_snapshot", "checkpoint"]
    server.end_streams(AWAY)
    with pytest.raises(Unavailable) as caught:
        list(events)
    assert isinstance(caught.value.__cause__, grpc.RpcError)


def test_a_stream_that_is_cancelled_ends(client: Client, server: FakeServer) -> None:
    stream = client.watch_events(WatchRequest())
    events = iter(stream)
    next(events)
    stream.cancel()
    with pytest.raises(Exception, match="CANCELLED"):
        list(events)


def test_a_token_that_has_expired_is_read_anew(server: FakeServer) -> None:
    tokens = iter(["old", "new"])
    expired = {"problem": "expired"}
    server.fail("Watch", Failure(grpc.StatusCode.UNAUTHENTICATED, "expired", "UNAUTHENTICATED", expired))
    with Client(server.target, token=lambda: next(tokens)) as client:
        with pytest.raises(Unauthenticated):
            list(client.watch_events(WatchRequest()))
        events = iter(client.watch_events(WatchRequest()))
        next(events)
    assert [call.metadata["authorization"] for call in server.calls] == ["Bearer old", "Bearer new"]


async def test_the_same_for_asyncio(async_client: AsyncClient, server: FakeServer) -> None:
    server.add(KEY, URL)
    events = await async_client.watch_events(WatchRequest())
    seen = [(await anext(events)).WhichOneof("event") for _ in range(3)]
    server.end_streams(AWAY)
    with pytest.raises(Unavailable):
        [event async for event in events]
    assert seen == ["snapshot", "end_of_snapshot", "checkpoint"]
