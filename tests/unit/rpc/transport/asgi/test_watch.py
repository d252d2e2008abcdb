"""Calls that wait end at their deadlines, and when their clients have gone."""

import asyncio
from typing import Any

import grpc
import pytest
from grpc import StatusCode

from pointsman_server.rpc.transport.asgi import departures
from pointsman_server.rpc.transport.asgi.unary_calls import UnaryMethod
from tests.support.asgi_call import AsgiCall, frame

OK = (0, b"")


@pytest.fixture(autouse=True)
def _poll_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(departures, "TICK_SECONDS", 0.001)


async def echo(request: bytes, _context: Any) -> bytes:
    return request


async def no_end(_request: Any, _context: Any) -> bytes:
    await asyncio.Event().wait()
    return b""


def unary(handle: Any = echo) -> UnaryMethod:
    return UnaryMethod(grpc.unary_unary_rpc_method_handler(handle), 1000, 10)


def code(status: StatusCode) -> int:
    return int(status.value[0])


async def test_the_deadline_ends_a_handler() -> None:
    cancelled = asyncio.Event()

    async def handle(_request: bytes, _context: Any) -> bytes:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return b""

    call = await AsgiCall(frame(b""), headers=[(b"grpc-timeout", b"10m")]).made_to(unary(handle))

    assert call.status == (code(StatusCode.DEADLINE_EXCEEDED), b"deadline exceeded")
    assert cancelled.is_set()


async def test_a_deadline_that_has_passed_ends_a_handler_when_it_first_waits() -> None:
    call = await AsgiCall(frame(b""), headers=[(b"grpc-timeout", b"0n")]).made_to(unary(no_end))

    assert call.status[0] == code(StatusCode.DEADLINE_EXCEEDED)


async def test_a_handler_that_does_not_wait_answers_at_any_deadline() -> None:
    assert (await AsgiCall(frame(b""), headers=[(b"grpc-timeout", b"0n")]).made_to(unary())).status == OK


async def test_a_malformed_deadline_ends_a_handler_that_waits() -> None:
    call = await AsgiCall(frame(b""), headers=[(b"grpc-timeout", b"10s")]).made_to(unary(no_end))

    assert call.status[0] == code(StatusCode.INVALID_ARGUMENT)


async def test_a_client_that_leaves_ends_the_handler_and_gets_no_answer() -> None:
    over: list[object] = []
    working = asyncio.Event()

    async def handle(_request: bytes, context: Any) -> bytes:
        context.add_done_callback(over.append)
        working.set()
        await asyncio.Event().wait()
        return b""

    client = AsgiCall(frame(b""))
    serving = asyncio.create_task(client.made_to(unary(handle)))
    await working.wait()
    assert over == []
    client.leave()

    assert (await serving).sent == []
    assert len(over) == 1
