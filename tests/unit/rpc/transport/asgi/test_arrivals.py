"""Requests arrive within the patience of the server and the deadline of the call, or the call ends."""

import asyncio

import pytest
from grpc import StatusCode

from pointsman_server.rpc.transport.asgi.arrivals import Arrivals
from pointsman_server.rpc.transport.asgi.context import AsgiContext
from pointsman_server.rpc.transport.asgi.headers import Rejected
from tests.support.asgi_call import AsgiCall, frame

MOST = 1000


async def never() -> None:
    await asyncio.Event().wait()


async def test_what_arrives_is_given() -> None:
    call = AsgiCall(frame(b"x"))

    assert await Arrivals(MOST, 10).request(call.receive, AsgiContext(call.scope)) == b"x"


@pytest.mark.parametrize(("patience", "headers"), [(0.01, []), (0.1, [(b"grpc-timeout", b"1m")])])
async def test_what_does_not_arrive_ends_each_call_that_waits(patience: float, headers: list) -> None:
    arrivals = Arrivals(MOST, patience)
    waiting = [
        arrivals.request(never, AsgiContext(AsgiCall(headers=headers).scope))  # type: ignore[arg-type]
        for _ in range(3)
    ]
    refusals = await asyncio.gather(*waiting, return_exceptions=True)

    assert [type(refusal) for refusal in refusals] == [Rejected] * 3
    assert {refusal.refusal.code for refusal in refusals if isinstance(refusal, Rejected)} == {
        StatusCode.DEADLINE_EXCEEDED
    }


async def test_who_cancels_a_wait_gets_it_back_cancelled() -> None:
    waiting = asyncio.create_task(
        Arrivals(MOST, 10).request(never, AsgiContext(AsgiCall().scope))  # type: ignore[arg-type]
    )
    await asyncio.sleep(0)
    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting
