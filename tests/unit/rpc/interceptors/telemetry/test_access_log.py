"""The stage that logs: one line per call, with the code that the caller gets."""

import asyncio
from typing import Any, cast

import grpc
import pytest
from grpc import StatusCode
from structlog.testing import capture_logs

from pointsman_server.rpc.call import begin_call
from pointsman_server.rpc.interceptors.stage import CallHandler, Method
from pointsman_server.rpc.interceptors.telemetry.access_log import record
from tests.support.call_context import CallContext

METHOD = Method("a.b.C", "Resolve")


async def logged(proceed: CallHandler, context: CallContext, sample: float = 1.0) -> list[Any]:
    """Call through the stage, and return the lines."""
    begin_call(cast("Any", context))
    with capture_logs() as lines:
        await asyncio.gather(record(sample)(METHOD, proceed)(None, cast("Any", context)), return_exceptions=True)
    return lines


async def succeed(_request: Any, _context: Any) -> str:
    return "response"


async def refuse(_request: Any, context: Any) -> None:
    await context.abort(StatusCode.NOT_FOUND, "no route")


async def fail(_request: Any, _context: Any) -> None:
    raise RuntimeError("canary")


async def end_by_cancellation(_request: Any, _context: Any) -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("proceed", "remaining", "code"),
    [
        (succeed, 60.0, "OK"),
        (refuse, 60.0, "NOT_FOUND"),
        (fail, 60.0, "UNKNOWN"),
        (end_by_cancellation, 60.0, "CANCELLED"),
        (end_by_cancellation, -0.1, "DEADLINE_EXCEEDED"),
    ],
)
async def test_a_call_is_one_line_with_its_code(proceed: CallHandler, remaining: float, code: str) -> None:
    (line,) = await logged(proceed, CallContext(("x-request-id", "mine"), remaining=remaining))

    assert (line["event"], line["log_level"]) == ("call", "info")
    assert (line["method"], line["code"]) == ("Resolve", code)
    assert (line["peer"], line["request_id"]) == ("ipv4:127.0.0.1:1", "mine")
    assert line["milliseconds"] >= 0


async def test_the_sample_decides_about_calls_that_are_no_fault_of_the_server() -> None:
    levels = [line["log_level"] for line in await logged(refuse, CallContext(), sample=0.0)]
    faults = [line["log_level"] for line in await logged(fail, CallContext(), sample=0.0)]

    assert "info" not in levels
    assert faults == ["info"]


async def test_the_response_and_the_error_pass_unchanged() -> None:
    context = cast("Any", CallContext())
    begin_call(context)

    assert await record(0.0)(METHOD, succeed)(None, context) == "response"
    with pytest.raises(grpc.aio.AbortError):
        await record(0.0)(METHOD, refuse)(None, context)
    with pytest.raises(RuntimeError, match="canary"):
        await record(0.0)(METHOD, fail)(None, cast("Any", CallContext()))
