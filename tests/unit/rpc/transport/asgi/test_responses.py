"""Which requests are gRPC, and what a response is made of."""

import pytest
from grpc import StatusCode

from pointsman_server.rpc.refusal import Refusal
from pointsman_server.rpc.transport.asgi import responses
from tests.support.asgi_call import AsgiCall


@pytest.mark.parametrize(
    ("content_type", "is_grpc"),
    [
        (b"application/grpc", True),
        (b"application/grpc+proto", True),
        (b"application/grpc;charset=utf-8", True),
        (b"application/grpc-web", False),
        (b"application/grpc-web+proto", False),
        (b"application/grpcx", False),
        (b"application/json", False),
        (b"", False),
        (None, False),
    ],
)
def test_the_content_type_says_what_is_grpc(content_type: bytes | None, is_grpc: bool) -> None:
    assert responses.is_grpc(content_type) is is_grpc


async def test_a_refusal_is_headers_alone() -> None:
    call = AsgiCall()
    await responses.send_refusal(call.send, Refusal(StatusCode.NOT_FOUND, "100 %", (("a-bin", b"\0"),)))

    assert call.sent[0]["status"] == 200
    assert not call.sent[0].get("trailers", False)
    assert call.headers == {
        b"content-type": b"application/grpc",
        b"grpc-accept-encoding": b"identity,gzip,deflate",
        b"grpc-status": b"5",
        b"grpc-message": b"100 %25",
        b"a-bin": b"AA",
    }
    assert call.body == b""


async def test_headers_of_one_response_are_not_those_of_the_next() -> None:
    first, second = AsgiCall(), AsgiCall()
    await first.send(responses.start((("x", "1"),)))
    await responses.send_trailers(first.send, None, (("y", "2"),))
    await second.send(responses.start(()))
    await responses.send_trailers(second.send, None)

    assert first.headers[b"x"] == b"1"
    assert first.trailers == {b"grpc-status": b"0", b"y": b"2"}
    assert b"x" not in second.headers
    assert second.trailers == {b"grpc-status": b"0"}
