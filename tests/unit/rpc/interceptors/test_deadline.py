"""Which calls get the server's default deadline."""

import asyncio
from typing import Any, cast

import grpc
import pytest

from pointsman_server.rpc.call import NO_DEADLINE, begin_call
from pointsman_server.rpc.interceptors.deadline import limit
from pointsman_server.rpc.interceptors.stage import CallHandler, Method


class Context:
    def __init__(self, remaining: float | None) -> None:
        self._remaining = remaining
        self.status: tuple[grpc.StatusCode, str] | None = None

    def time_remaining(self) -> float | None:
        return self._remaining

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return ()

    def set_trailing_metadata(self, _trailers: Any) -> None:
        pass

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        self.status = (code, details)
        raise grpc.aio.AbortError


async def never(_request: Any, _context: Any) -> None:
    await asyncio.Event().wait()


async def quick(_request: Any, _context: Any) -> str:
    return "response"


def limited(proceed: CallHandler, **kind: bool) -> Any:
    return limit(0.01)(Method("a", "b", **kind), proceed)


@pytest.mark.parametrize("remaining", [None, NO_DEADLINE, 1e9])
@pytest.mark.parametrize("kind", [{}, {"request_streaming": True}])
async def test_a_call_without_a_deadline_ends_by_the_servers(remaining: float | None, kind: dict[str, bool]) -> None:
    context = Context(remaining)
    begin_call(cast("Any", context))
    with pytest.raises(grpc.aio.AbortError):
        await limited(never, **kind)(None, cast("Any", context))

    assert context.status == (
        grpc.StatusCode.DEADLINE_EXCEEDED,
        "default server deadline (0.01 s) exceeded: set a client deadline",
    )


async def test_a_call_with_a_deadline_keeps_its_own() -> None:
    call = asyncio.create_task(limited(never)(None, cast("Any", Context(5.0))))
    done, _ = await asyncio.wait([call], timeout=0.05)
    call.cancel()

    assert not done


async def test_a_call_that_is_in_time_is_answered() -> None:
    assert await limited(quick)(None, cast("Any", Context(None))) == "response"


async def test_a_timeout_of_the_work_is_not_the_deadline() -> None:
    async def fail(_request: Any, _context: Any) -> None:
        raise TimeoutError("of something else")

    with pytest.raises(TimeoutError, match="of something else"):
        await limited(fail)(None, cast("Any", Context(None)))


@pytest.mark.parametrize(
    "kind", [{"response_streaming": True}, {"request_streaming": True, "response_streaming": True}]
)
def test_a_stream_of_responses_has_no_default_deadline(kind: dict[str, bool]) -> None:
    assert limited(never, **kind) is never
