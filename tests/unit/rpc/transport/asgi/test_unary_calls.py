"""Unary calls as the specification of gRPC over HTTP/2 has them, each from its headers to its trailers.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md and statuscodes.md
"""

import asyncio
import gzip
import zlib
from typing import Any

import grpc
import pytest
from grpc import StatusCode

from pointsman_server.rpc.transport.asgi.responses import PART_BYTES
from pointsman_server.rpc.transport.asgi.unary_calls import UnaryMethod
from tests.support.asgi_call import AsgiCall, Header, frame, until

MOST = 1000
OK = (0, b"")
GZIP, DEFLATE = (b"grpc-encoding", b"gzip"), (b"grpc-encoding", b"deflate")


async def echo(request: bytes, _context: Any) -> bytes:
    return request


def unary(handle: Any = echo, patience: float = 10) -> UnaryMethod:
    return UnaryMethod(grpc.unary_unary_rpc_method_handler(handle), MOST, patience)


def code(status: StatusCode) -> int:
    return int(status.value[0])


async def test_a_unary_call_has_headers_a_message_and_trailers() -> None:
    call = await AsgiCall(frame(b"hello")).made_to(unary())

    start, body, trailers = call.sent
    assert (start["status"], start["trailers"]) == (200, True)
    assert dict(start["headers"]) == {
        b"content-type": b"application/grpc",
        b"grpc-accept-encoding": b"identity,gzip,deflate",
    }
    assert (body["body"], body.get("more_body", False)) == (frame(b"hello"), False)
    assert trailers == {"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")]}


@pytest.mark.parametrize(
    "parts",
    [[b"\0", b"\0\0\0\5he", b"llo"], [frame(b"hello"), b""], [b"", b"", frame(b"hello")]],
    ids=["cut", "end apart", "empty first"],
)
async def test_a_request_may_arrive_in_parts(parts: list[bytes]) -> None:
    call = await AsgiCall(*parts).made_to(unary())

    assert (call.body, call.status) == (frame(b"hello"), OK)


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"", [], StatusCode.UNIMPLEMENTED),
        (frame(b"1") + frame(b"2"), [], StatusCode.UNIMPLEMENTED),
        (frame(b"hello")[:-1], [], StatusCode.INTERNAL),
        (b"\0\0\0", [], StatusCode.INTERNAL),
        (frame(b"hello", 2), [], StatusCode.INTERNAL),
        (frame(b"hello", 1), [], StatusCode.INTERNAL),
        (frame(b"hello", 1), [GZIP], StatusCode.INTERNAL),
        (frame(gzip.compress(b"hello", mtime=0) + b"more", 1), [GZIP], StatusCode.INTERNAL),
        (frame(b"hello", 1), [(b"grpc-encoding", b"snappy")], StatusCode.UNIMPLEMENTED),
        (frame(b"x" * (MOST + 1)), [], StatusCode.RESOURCE_EXHAUSTED),
        (frame(gzip.compress(b"\0" * 10_000_000, mtime=0), 1), [GZIP], StatusCode.RESOURCE_EXHAUSTED),
        (frame(gzip.compress(b"\0" * (MOST + 1), mtime=0), 1), [GZIP], StatusCode.RESOURCE_EXHAUSTED),
    ],
)
async def test_a_request_that_breaks_the_protocol_reaches_no_handler(
    body: bytes, headers: list[Header], status: StatusCode
) -> None:
    reached: list[bytes] = []

    async def handle(request: bytes, _context: Any) -> bytes:
        reached.append(request)
        return b""

    call = await AsgiCall(body, headers=headers).made_to(unary(handle))

    assert call.status[0] == code(status)
    assert call.status[1]
    # Trailers-Only, which also says what the server can unpack.
    assert [event["type"] for event in call.sent] == ["http.response.start", "http.response.body"]
    assert (call.body, call.headers[b"grpc-accept-encoding"]) == (b"", b"identity,gzip,deflate")
    assert reached == []


@pytest.mark.parametrize(
    ("header", "packed"),
    [
        (GZIP, gzip.compress(b"x" * MOST, mtime=0)),
        (DEFLATE, zlib.compress(b"x" * MOST)),
    ],
)
async def test_a_compressed_request_is_unpacked(header: Header, packed: bytes) -> None:
    call = await AsgiCall(frame(packed, 1), headers=[header]).made_to(unary())

    assert (call.body, call.status) == (frame(b"x" * MOST), OK)


async def test_a_message_that_is_not_compressed_is_taken_whatever_its_call_may_use() -> None:
    call = await AsgiCall(frame(b"plain"), headers=[GZIP]).made_to(unary())

    assert (call.body, call.status) == (frame(b"plain"), OK)


async def test_a_request_that_is_too_large_is_refused_before_it_has_arrived() -> None:
    call = await AsgiCall(frame(b"x" * (MOST + 1))[:50], is_open=True).made_to(unary())

    assert call.status == (code(StatusCode.RESOURCE_EXHAUSTED), b"the message is larger than 1000 bytes")


@pytest.mark.parametrize("first", [b"", None], ids=["a part", "nothing"])
@pytest.mark.parametrize("headers", [[], [(b"grpc-timeout", b"20m")]], ids=["no deadline", "deadline"])
async def test_a_request_that_does_not_arrive_ends_the_call(first: bytes | None, headers: list[Header]) -> None:
    parts = [] if first is None else [first]
    patience = 10 if headers and parts else 0.1
    call = await AsgiCall(*parts, headers=headers, is_open=True).made_to(unary(patience=patience))

    assert call.status == (code(StatusCode.DEADLINE_EXCEEDED), b"the request did not arrive in time")


async def test_a_client_that_leaves_before_its_request_has_arrived_gets_no_answer() -> None:
    client = AsgiCall(b"\0", is_open=True)
    client.leave()
    assert (await client.made_to(unary())).sent == []


async def test_a_client_that_leaves_before_its_answer_ends_the_call() -> None:
    over: list[object] = []
    client = AsgiCall(frame(b""))

    async def handle(_request: bytes, context: Any) -> bytes:
        context.add_done_callback(over.append)
        client.leave()
        return b""

    assert (await client.made_to(unary(handle))).sent == []
    assert len(over) == 1


async def test_an_abort_ends_a_call_with_its_status_text_and_trailers() -> None:
    async def handle(_request: bytes, context: Any) -> bytes:
        context.set_trailing_metadata((("details-bin", b"\xff\xfe"), ("plain", "text")))
        await context.abort(StatusCode.NOT_FOUND, "no 50 % Größe\n")

    call = await AsgiCall(frame(b"")).made_to(unary(handle))

    assert call.status == (code(StatusCode.NOT_FOUND), b"no 50 %25 Gr%C3%B6%C3%9Fe%0A")
    assert (call.trailers[b"details-bin"], call.trailers[b"plain"]) == (b"//4", b"text")


async def test_an_error_of_a_handler_shows_nothing_of_its_cause() -> None:
    async def handle(_request: bytes, _context: Any) -> bytes:
        raise RuntimeError("canary")

    call = await AsgiCall(frame(b"")).made_to(unary(handle))

    assert call.status[0] == code(StatusCode.INTERNAL)
    assert b"canary" not in call.status[1]


async def test_metadata_that_is_malformed_refuses_a_call_that_reads_it() -> None:
    async def handle(_request: bytes, context: Any) -> bytes:
        return repr(context.invocation_metadata()).encode()

    call = await AsgiCall(frame(b""), headers=[(b"x-bin", b"!")]).made_to(unary(handle))

    assert call.status == (code(StatusCode.INVALID_ARGUMENT), b"the value of x-bin is not base64")


async def test_metadata_of_the_response_is_sent_before_and_after_it() -> None:
    async def handle(_request: bytes, context: Any) -> bytes:
        await context.send_initial_metadata((("before", "1"),))
        context.set_trailing_metadata((("after", "2"),))
        return b""

    call = await AsgiCall(frame(b"")).made_to(unary(handle))

    assert (call.headers[b"before"], call.trailers[b"after"], call.status) == (b"1", b"2", OK)


async def test_a_call_is_over_when_all_of_a_large_response_is_taken() -> None:
    over: list[object] = []
    response = b"x" * (3 * PART_BYTES)

    async def handle(_request: bytes, context: Any) -> bytes:
        context.add_done_callback(over.append)
        client.reads.clear()
        return response

    client = AsgiCall(frame(b""))
    serving = asyncio.create_task(client.made_to(unary(handle)))
    await until(lambda: not client.reads.is_set())
    await asyncio.sleep(0)
    assert over == []
    client.reads.set()
    await serving

    assert client.body == frame(response)
    assert max(len(event.get("body", b"")) for event in client.sent) == PART_BYTES
    assert len(over) == 1


@pytest.mark.parametrize("size", [0, 1, PART_BYTES - 5, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES])
async def test_a_response_is_whole_however_many_parts_it_is_sent_in(size: int) -> None:
    async def handle(_request: bytes, _context: Any) -> bytes:
        return b"x" * size

    call = await AsgiCall(frame(b"")).made_to(unary(handle))

    assert (call.body, call.status) == (frame(b"x" * size), OK)
    bodies = [event for event in call.sent if event["type"] == "http.response.body"]
    assert [event.get("more_body", False) for event in bodies] == [True] * (len(bodies) - 1) + [False]
