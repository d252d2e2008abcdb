"""Streams of requests as the specification of gRPC over HTTP/2 has them, each from its headers to its trailers.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md and statuscodes.md
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from grpc import StatusCode

from pointsman_server.rpc.transport.asgi import departures
from pointsman_server.rpc.transport.asgi.request_streams import READ_AHEAD, RequestStreamMethod
from tests.support.asgi_call import AsgiCall, frame, until

MOST = 1000
OK = (0, b"")


@pytest.fixture(autouse=True)
def _poll_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(departures, "TICK_SECONDS", 0.001)


async def no_end(_request: Any, _context: Any) -> bytes:
    await asyncio.Event().wait()
    return b""


def stream(kind: str, handle: Any) -> RequestStreamMethod:
    return RequestStreamMethod(getattr(grpc, f"{kind}_rpc_method_handler")(handle), MOST)


def code(status: StatusCode) -> int:
    return int(status.value[0])


def by_writing(handle: Callable[..., AsyncIterator[bytes]]) -> Any:
    """Make a behaviour that writes what ``handle`` yields, as the chain does."""

    async def behaviour(request: Any, context: Any) -> None:
        async for response in handle(request, context):
            await context.write(response)

    return behaviour


async def double(requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request * 2


async def join(requests: AsyncIterator[bytes], _context: Any) -> bytes:
    return b"+".join([request async for request in requests])


async def test_a_stream_of_requests() -> None:
    call = await AsgiCall(frame(b"1") + frame(b"2"), frame(b"3")).made_to(stream("stream_unary", join))

    assert (call.body, call.status) == (frame(b"1+2+3"), OK)


async def test_a_stream_of_both_answers_before_its_requests_have_ended() -> None:
    client = AsgiCall(is_open=True)
    serving = asyncio.create_task(client.made_to(stream("stream_stream", by_writing(double))))
    client.feed(frame(b"a"))
    await until(lambda: client.body == frame(b"aa"))
    client.feed(frame(b"b"), more=False)
    await serving

    assert (client.body, client.status) == (frame(b"aa") + frame(b"bb"), OK)


async def test_a_malformed_request_ends_a_stream_after_the_good_ones() -> None:
    call = await AsgiCall(frame(b"a"), frame(b"b", 7)).made_to(stream("stream_stream", by_writing(double)))

    assert (call.body, call.status[0]) == (frame(b"aa"), code(StatusCode.INTERNAL))


@pytest.mark.parametrize("kind", ["stream_unary", "stream_stream"])
async def test_the_deadline_ends_a_stream(kind: str) -> None:
    call = await AsgiCall(frame(b""), headers=[(b"grpc-timeout", b"10m")]).made_to(stream(kind, no_end))

    assert call.status == (code(StatusCode.DEADLINE_EXCEEDED), b"deadline exceeded")


@pytest.mark.parametrize("is_open", [True, False])
@pytest.mark.parametrize("kind", ["stream_unary", "stream_stream"])
async def test_a_client_that_leaves_ends_a_stream(kind: str, is_open: bool) -> None:
    over: list[object] = []
    working = asyncio.Event()

    async def handle(_request: Any, context: Any) -> None:
        context.add_done_callback(over.append)
        working.set()
        await asyncio.Event().wait()

    client = AsgiCall(frame(b""), is_open=is_open)
    serving = asyncio.create_task(client.made_to(stream(kind, handle)))
    await working.wait()
    client.leave()

    assert (await serving).sent == []
    assert len(over) == 1


async def test_requests_are_read_no_further_ahead_than_a_bound() -> None:
    go = asyncio.Event()

    async def handle(requests: AsyncIterator[bytes], _context: Any) -> bytes:
        await go.wait()
        return b"%d" % len([request async for request in requests])

    client = AsgiCall(is_open=True)
    serving = asyncio.create_task(client.made_to(stream("stream_unary", handle)))
    for _ in range(3 * READ_AHEAD):
        client.feed(frame(b"x"))
    await until(lambda: client.waiting < 2 * READ_AHEAD)
    for _ in range(100):
        await asyncio.sleep(0)
    assert client.waiting == 3 * READ_AHEAD - READ_AHEAD - 1
    go.set()
    client.feed(b"", more=False)
    await serving

    assert client.body == frame(b"%d" % (3 * READ_AHEAD))
