"""Streams of responses as the specification of gRPC over HTTP/2 has them, each from its headers to its trailers.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md and statuscodes.md
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from grpc import StatusCode

from pointsman_server.rpc.transport.asgi import departures
from pointsman_server.rpc.transport.asgi.response_streams import ResponseStreamMethod
from tests.support.asgi_call import AsgiCall, frame, until

MOST = 1000
OK = (0, b"")


@pytest.fixture(autouse=True)
def _poll_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(departures, "TICK_SECONDS", 0.001)


async def no_end(_request: Any, _context: Any) -> bytes:
    await asyncio.Event().wait()
    return b""


def stream(handle: Any, patience: float = 10) -> ResponseStreamMethod:
    return ResponseStreamMethod(grpc.unary_stream_rpc_method_handler(handle), MOST, patience)


def code(status: StatusCode) -> int:
    return int(status.value[0])


async def count(request: bytes, _context: Any) -> AsyncIterator[bytes]:
    for number in range(int(request)):
        yield b"%d" % number


def by_writing(handle: Callable[..., AsyncIterator[bytes]]) -> Any:
    """Make a behaviour that writes what ``handle`` yields, as the chain does."""

    async def behaviour(request: Any, context: Any) -> None:
        async for response in handle(request, context):
            await context.write(response)

    return behaviour


async def test_a_stream_of_responses() -> None:
    call = await AsgiCall(frame(b"3")).made_to(stream(by_writing(count)))

    assert (call.body, call.status) == (frame(b"0") + frame(b"1") + frame(b"2"), OK)


async def test_of_the_headers_only_those_that_are_needed_later_are_kept() -> None:
    """Thousands of streams are open at once: the caller is verified again by the credential, and logs name the call."""
    kept = [(b"authorization", b"Bearer x"), (b"x-request-id", b"mine")]
    seen: list[Any] = []

    async def handle(_request: bytes, context: Any) -> None:
        seen.append(len(context.invocation_metadata()))
        await context.write(b"x")
        seen.append(context.invocation_metadata())
        seen.append((context.peer(), context.time_remaining() > 5))

    await AsgiCall(frame(b""), headers=[*kept, (b"x-other", b"1"), (b"grpc-timeout", b"9S")]).made_to(stream(handle))

    assert seen == [3, (("authorization", "Bearer x"), ("x-request-id", "mine")), ("ipv4:127.0.0.1:7", True)]


async def test_an_empty_stream_of_responses_has_headers_and_trailers() -> None:
    call = await AsgiCall(frame(b"0")).made_to(stream(by_writing(count)))

    assert (call.body, call.status) == (b"", OK)
    assert call.sent[-1]["type"] == "http.response.trailers"


@pytest.mark.parametrize("body", [b"", frame(b"1") + frame(b"2")])
async def test_a_stream_of_responses_has_one_request(body: bytes) -> None:
    call = await AsgiCall(body).made_to(stream(by_writing(count)))

    assert (call.status[0], call.body) == (code(StatusCode.UNIMPLEMENTED), b"")


async def test_the_one_request_of_a_stream_arrives_in_time() -> None:
    call = await AsgiCall(is_open=True).made_to(stream(by_writing(count), patience=0.01))

    assert call.status == (code(StatusCode.DEADLINE_EXCEEDED), b"the request did not arrive in time")


async def test_an_abort_after_responses_is_in_the_trailers() -> None:
    async def handle(_request: bytes, context: Any) -> None:
        await context.write(b"1")
        await context.abort(StatusCode.ABORTED, "so far")

    call = await AsgiCall(frame(b"")).made_to(stream(handle))

    assert (call.body, call.status) == (frame(b"1"), (code(StatusCode.ABORTED), b"so far"))
    assert call.sent[-1]["type"] == "http.response.trailers"


async def test_a_client_that_leaves_ends_the_stream_that_writes_to_it() -> None:
    ended_by: list[BaseException] = []

    async def handle(_request: Any, context: Any) -> None:
        try:
            while True:
                await context.write(b"x")
                client.leave()
        except BaseException as error:
            ended_by.append(error)
            raise

    client = AsgiCall(frame(b""))
    call = await client.made_to(stream(handle))

    assert call.body == frame(b"x")
    # No error: the stages would log it as one of ours.
    assert isinstance(ended_by[0], asyncio.CancelledError)


async def test_a_stream_of_responses_waits_for_a_client_that_does_not_read() -> None:
    written: list[int] = []

    async def handle(_request: Any, context: Any) -> None:
        for number in range(3):
            await context.write(b"x")
            written.append(number)
            client.reads.clear()

    client = AsgiCall(frame(b""))
    serving = asyncio.create_task(client.made_to(stream(handle)))
    await until(lambda: written == [0])
    for _ in range(10):
        await asyncio.sleep(0)
    assert written == [0]
    client.reads.set()
    await until(lambda: written == [0, 1])
    client.reads.set()
    await until(lambda: written == [0, 1, 2])
    client.reads.set()
    await serving


async def test_the_deadline_ends_a_stream() -> None:
    call = await AsgiCall(frame(b""), headers=[(b"grpc-timeout", b"10m")]).made_to(stream(no_end))

    assert call.status == (code(StatusCode.DEADLINE_EXCEEDED), b"deadline exceeded")


async def test_a_client_that_leaves_ends_a_stream_that_waits() -> None:
    over: list[object] = []
    working = asyncio.Event()

    async def handle(_request: Any, context: Any) -> None:
        context.add_done_callback(over.append)
        working.set()
        await asyncio.Event().wait()

    client = AsgiCall(frame(b""))
    serving = asyncio.create_task(client.made_to(stream(handle)))
    await working.wait()
    client.leave()

    assert (await serving).sent == []
    assert len(over) == 1


async def test_a_call_that_waits_has_one_task() -> None:
    working = asyncio.Event()

    async def handle(_request: Any, _context: Any) -> None:
        working.set()
        await asyncio.Event().wait()

    before = asyncio.all_tasks()
    client = AsgiCall(frame(b""))
    serving = asyncio.create_task(stream(handle)(client.scope, client.receive, client.send))
    await working.wait()

    assert asyncio.all_tasks() - before == {serving}
    serving.cancel()
    await serving
