"""A call that is not open yet is cancelled, awaited and asked as any other."""

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest

from pointsman.channels.aio.calls import PendingStreamStream, PendingUnaryStream, PendingUnaryUnary, failing
from pointsman.channels.aio.dispatch import no_backend
from pointsman.errors import RouteInactive

ERROR = no_backend("team-a/payments/prod/v1", RouteInactive("this is a test", reason="ROUTE_INACTIVE"))
SECONDS = 20.0


class Opened:
    """A call of gRPC."""

    def __init__(self) -> None:
        self.cancels = 0
        self.callbacks: list[Any] = []

    def cancelled(self) -> bool:
        return bool(self.cancels)

    def done(self) -> bool:
        return bool(self.cancels)

    def cancel(self) -> bool:
        self.cancels += 1
        return True

    def time_remaining(self) -> float:
        return 7.0

    def add_done_callback(self, callback: Any) -> None:
        self.callbacks.append(callback)

    async def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.OK

    async def wait_for_connection(self) -> None:
        pass

    def __await__(self) -> Any:
        yield
        return "response"


async def forever() -> Any:
    await asyncio.Event().wait()


async def test_one_that_failed() -> None:
    call = PendingUnaryUnary(failing(ERROR), 5.0)
    assert (call.done(), call.cancelled()) == (False, False)
    assert await call.code() is grpc.StatusCode.NOT_FOUND
    assert (call.done(), call.cancelled(), call.cancel()) == (True, False, False)
    assert await call.details() == "pointsman team-a/payments/prod/v1: this is a test"
    assert dict(tuple(await call.trailing_metadata())) == {"pointsman-reason": "ROUTE_INACTIVE"}
    assert dict(await call.initial_metadata()) == {}
    for wait in (call, call.wait_for_connection()):
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await wait
        assert failed.value is ERROR
    told: list[Any] = []
    call.add_done_callback(told.append)
    await asyncio.sleep(0)
    assert told == [call]


async def test_one_that_is_cancelled_before_it_is_open() -> None:
    call = PendingUnaryUnary(forever(), 5.0)
    remaining = call.time_remaining()
    assert remaining is not None
    assert 0 < remaining <= 5.0
    assert call.cancel()
    assert await call.code() is grpc.StatusCode.CANCELLED
    assert await call.details() == "Locally cancelled by application!"
    assert [await call.initial_metadata(), await call.trailing_metadata()] == [grpc.aio.Metadata()] * 2
    assert (call.done(), call.cancelled()) == (True, True)
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_nothing_remains_of_a_deadline_that_has_passed() -> None:
    call = PendingUnaryUnary(forever(), -1.0)
    assert call.time_remaining() == 0.0
    call.cancel()


@pytest.mark.parametrize("use", ["await", "read", "write", "iterate"])
async def test_who_is_cancelled_while_waiting_for_it_cancels_it(use: str) -> None:
    kinds: dict[str, Any] = {"await": PendingUnaryUnary, "write": PendingStreamStream}
    call = kinds.get(use, PendingUnaryStream)(forever(), None)

    async def wait() -> None:
        if use == "await":
            await call
        elif use == "read":
            await call.read()
        elif use == "write":
            await call.write(b"")
        else:
            _ = [each async for each in call]

    task = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await call.code() is grpc.StatusCode.CANCELLED


async def test_who_only_asks_for_its_code_does_not_cancel_it() -> None:
    going_on = asyncio.Event()
    opened = Opened()

    async def opening() -> Any:
        await going_on.wait()
        return opened

    call = PendingUnaryUnary(opening(), None)
    assert call.time_remaining() is None
    asking = asyncio.ensure_future(call.code())
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    going_on.set()
    assert await asyncio.wait_for(call.code(), SECONDS) is grpc.StatusCode.OK
    assert await call == "response"


async def test_one_that_is_open_is_that_call() -> None:
    opened = Opened()

    async def opening() -> Any:
        return opened

    call = PendingUnaryUnary(opening(), 5.0)
    told: list[Any] = []
    call.add_done_callback(told.append)
    await call.wait_for_connection()
    assert (call.time_remaining(), call.done(), call.cancelled()) == (7.0, False, False)
    [callback] = opened.callbacks
    callback(opened)
    assert told == [call]
    assert call.cancel()
    assert (opened.cancels, call.done(), call.cancelled()) == (1, True, True)
