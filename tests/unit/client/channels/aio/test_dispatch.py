"""The way of one call of asyncio: its URL, its backend, its time."""

from typing import Any

import grpc
import grpc.aio
import pytest

from pointsman.channels.aio.dispatch import AsyncDispatch
from pointsman.channels.backends import Backends
from pointsman.channels.options import sticky_key_source
from pointsman.errors import DeadlineExceeded, Unavailable
from tests.support.fake_routes import AsyncFakeRoutes

ONE = "http://one"


class Rig:
    def __init__(self) -> None:
        self.routes = AsyncFakeRoutes(ONE)
        self.now = 0.0
        self.backends: Backends[Any] = Backends(lambda url: url, lambda: None, drain_seconds=60.0)
        self.dispatch = AsyncDispatch(self.routes, self.backends, sticky_key_source(""), clock=lambda: self.now)


async def test_where_the_table_answers_nobody_waits() -> None:
    rig = Rig()
    started = rig.dispatch.begin_now(1.0, None)
    assert started is not None
    assert (started.backend.url, started.backend.calls, started.timeout) == (ONE, 1, 1.0)
    rig.dispatch.end(started.backend)
    assert started.backend.calls == 0


async def test_where_it_does_not_the_server_is_asked_in_the_time_of_the_call() -> None:
    rig = Rig()
    rig.routes.known = False

    def on_ask() -> None:
        rig.now += 0.25

    rig.routes.on_ask = on_ask
    assert rig.dispatch.begin_now(1.0, None) is None
    assert (await rig.dispatch.begin(1.0, None)).timeout == 0.75
    assert (await rig.dispatch.begin(None, None)).timeout is None
    assert rig.routes.asked == [("", 1.0), ("", None)]
    with pytest.raises(grpc.aio.AioRpcError) as late:
        await rig.dispatch.begin(0.125, None)
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    rig.routes.error = DeadlineExceeded("no answer")
    with pytest.raises(grpc.aio.AioRpcError) as slow:
        await rig.dispatch.begin(1.0, None)
    assert slow.value.code() is grpc.StatusCode.UNAVAILABLE
    rig.routes.error = Unavailable("no server")
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await rig.dispatch.begin(1.0, None)
    assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
    assert failed.value.__cause__ is rig.routes.error
    assert failed.value.details() == f"pointsman {rig.routes.key}: no server"
    assert failed.value.initial_metadata() == grpc.aio.Metadata()


async def test_a_channel_that_is_closed_while_the_server_is_asked_is_not_called() -> None:
    rig = Rig()
    rig.routes.known = False
    rig.routes.on_ask = lambda: rig.backends.close() and None
    with pytest.raises(grpc.aio.UsageError):
        await rig.dispatch.begin(1.0, None)
    with pytest.raises(grpc.aio.UsageError):
        rig.dispatch.begin_now(1.0, None)
