"""What is counted of calls and messages, by type of call."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from grpc import StatusCode

from pointsman_server.rpc.interceptors.chain import stream_through, through
from pointsman_server.rpc.interceptors.stage import CallHandler, Method
from pointsman_server.rpc.interceptors.telemetry.metrics import measure
from pointsman_server.telemetry.metrics import Metrics
from tests.support.call_context import CallContext

UNARY = {"grpc_type": "unary", "grpc_service": "a.b.C", "grpc_method": "D"}


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


async def call(metrics: Metrics, proceed: CallHandler, context: CallContext) -> None:
    handler = through([measure(metrics)], Method("a.b.C", "D"), proceed)
    await asyncio.gather(handler("request", cast("Any", context)), return_exceptions=True)


async def succeed(_request: Any, _context: Any) -> str:
    return "response"


async def refuse(_request: Any, context: Any) -> None:
    await context.abort(StatusCode.NOT_FOUND, "no route")


async def fail(_request: Any, _context: Any) -> None:
    raise RuntimeError


async def end_by_cancellation(_request: Any, _context: Any) -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("proceed", "code", "sent"),
    [
        (succeed, "OK", 1),
        (refuse, "NotFound", 0),
        (fail, "Unknown", 0),
        (end_by_cancellation, "Cancelled", 0),
    ],
)
async def test_a_unary_call_is_counted_by_its_code(
    metrics: Metrics, proceed: CallHandler, code: str, sent: int
) -> None:
    await call(metrics, proceed, CallContext())

    assert value(metrics, "grpc_server_started_total", **UNARY) == 1
    assert value(metrics, "grpc_server_handled_total", **UNARY, grpc_code=code) == 1
    assert value(metrics, "grpc_server_handling_seconds_count", **UNARY) == 1
    assert value(metrics, "grpc_server_msg_received_total", **UNARY) == 1
    assert value(metrics, "grpc_server_msg_sent_total", **UNARY) == sent


def test_codes_that_have_not_occurred_are_zeros(metrics: Metrics) -> None:
    measure(metrics)(Method("a.b.C", "D"), succeed)

    for code in StatusCode:
        label = "OK" if code is StatusCode.OK else code.name.title().replace("_", "")
        assert value(metrics, "grpc_server_handled_total", **UNARY, grpc_code=label) == 0


async def count_all(requests: Any, _context: Any) -> int:
    return len([request async for request in requests])


async def repeat(request: Any, _context: Any) -> AsyncIterator[Any]:
    for _ in range(3):
        yield request


async def echo(requests: Any, _context: Any) -> AsyncIterator[Any]:
    async for request in requests:
        yield request


@pytest.mark.parametrize(
    ("behaviour", "grpc_type", "received", "sent"),
    [(count_all, "client_stream", 4, 1), (repeat, "server_stream", 1, 3), (echo, "bidi_stream", 4, 4)],
)
async def test_every_message_of_a_stream_is_counted(
    metrics: Metrics, behaviour: Any, grpc_type: str, received: int, sent: int
) -> None:
    method = Method("a.b.C", "D", grpc_type != "server_stream", grpc_type != "client_stream")
    context = CallContext()
    context.requests = list(range(4))
    await stream_through([measure(metrics)], method, behaviour)("request", cast("Any", context))
    labels = UNARY | {"grpc_type": grpc_type}

    assert value(metrics, "grpc_server_msg_received_total", **labels) == received
    assert value(metrics, "grpc_server_msg_sent_total", **labels) == sent
    assert value(metrics, "grpc_server_started_total", **labels) == 1
    assert value(metrics, "grpc_server_handled_total", **labels, grpc_code="OK") == 1


async def test_what_a_broken_stream_has_sent_is_counted(metrics: Metrics) -> None:
    async def break_off(request: Any, _context: Any) -> AsyncIterator[Any]:
        yield request
        raise RuntimeError

    handler = stream_through([measure(metrics)], Method("a.b.C", "D", response_streaming=True), break_off)
    with pytest.raises(RuntimeError):
        await handler("request", cast("Any", CallContext()))
    labels = UNARY | {"grpc_type": "server_stream"}

    assert value(metrics, "grpc_server_msg_sent_total", **labels) == 1
    assert value(metrics, "grpc_server_handled_total", **labels, grpc_code="Unknown") == 1
