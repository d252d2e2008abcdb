"""rpc.transport.asgi.ending: a call that fails on its way out has a status that says so, never OK."""

import asyncio
from typing import Any

import grpc
import pytest
from grpc import StatusCode

from pointsman_server.rpc.transport.asgi.context import AsgiContext
from pointsman_server.rpc.transport.asgi.ending import (
    BODY_SENT,
    HEADERS_SENT,
    NOTHING_SENT,
    end_failed,
    refusal_of,
)
from pointsman_server.rpc.transport.asgi.headers import Rejected
from pointsman_server.rpc.transport.asgi.response_streams import ResponseStreamMethod
from pointsman_server.rpc.transport.asgi.unary_calls import UnaryMethod
from tests.support.asgi_call import AsgiCall, frame

INTERNAL, UNAVAILABLE = b"13", b"14"


class Sent:
    """What was sent."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    async def __call__(self, event: Any) -> None:
        self.events.append(event)

    @property
    def kinds(self) -> list[str]:
        return [event["type"].rpartition(".")[2] for event in self.events]

    @property
    def status(self) -> bytes:
        """The last status."""
        (found,) = [
            value for event in self.events for name, value in event.get("headers", ()) if name == b"grpc-status"
        ]
        return bytes(found)


@pytest.mark.parametrize(
    ("progress", "kinds"),
    [
        (NOTHING_SENT, ["start", "body"]),
        (HEADERS_SENT, ["body", "trailers"]),
        (BODY_SENT, ["trailers"]),
    ],
)
@pytest.mark.parametrize(("error", "status"), [(ValueError("why"), INTERNAL), (asyncio.CancelledError(), UNAVAILABLE)])
async def test_what_is_missing_of_a_response_is_a_status(
    progress: int, kinds: list[str], error: BaseException, status: bytes
) -> None:
    sent = Sent()

    await end_failed(sent, progress, error)

    assert (sent.kinds, sent.status) == (kinds, status)
    assert b"why" not in repr(sent.events).encode()


async def test_what_cannot_be_sent_raises_nothing() -> None:
    async def broken(_event: Any) -> None:
        raise ValueError("closed")

    await end_failed(broken, NOTHING_SENT, ValueError())


async def echo(request: bytes, _context: Any) -> bytes:
    return request


async def late_echo(request: bytes, _context: Any) -> bytes:
    await asyncio.sleep(0)
    return request


def cannot_encode(_response: Any) -> bytes:
    raise ValueError("why")


@pytest.mark.parametrize("handle", [echo, late_echo])
async def test_a_response_that_cannot_be_encoded_is_internal(handle: Any) -> None:
    method = UnaryMethod(grpc.unary_unary_rpc_method_handler(handle, None, cannot_encode), 1000, 10)
    call, sent = AsgiCall(frame(b"x")), Sent()

    await method(call.scope, call.receive, sent)

    assert sent.status == INTERNAL


async def test_a_stream_whose_response_cannot_be_encoded_is_internal() -> None:
    async def responses(_request: Any, context: Any) -> None:
        await context.write(b"x")

    handler = grpc.unary_stream_rpc_method_handler(responses, None, cannot_encode)
    call, sent = AsgiCall(frame(b"x")), Sent()

    await ResponseStreamMethod(handler, 1000, 10)(call.scope, call.receive, sent)

    assert sent.status == INTERNAL


async def test_a_call_whose_task_is_cancelled_is_unavailable() -> None:
    started = asyncio.Event()

    async def wait(_request: Any, _context: Any) -> bytes:
        started.set()
        await asyncio.Event().wait()
        return b""

    call, sent = AsgiCall(frame(b"x")), Sent()
    serving = asyncio.create_task(
        UnaryMethod(grpc.unary_unary_rpc_method_handler(wait), 1000, 10)(call.scope, call.receive, sent)
    )
    await started.wait()
    serving.cancel()
    await serving

    assert sent.status == UNAVAILABLE


@pytest.mark.parametrize(
    ("error", "code"),
    [(Rejected(StatusCode.OUT_OF_RANGE, "no"), StatusCode.OUT_OF_RANGE), (ValueError(), StatusCode.INTERNAL)],
)
def test_an_error_of_a_handler_has_its_status(error: Exception, code: StatusCode) -> None:
    assert refusal_of(error, AsgiContext({"headers": []})).code is code
