"""What a stub of asyncio calls: every argument of a call reaches gRPC. How calls end is tested with the channel."""

from collections.abc import Callable
from typing import Any

import grpc.aio
import pytest

from pointsman.channels.aio.callables import StreamStream, StreamUnary, UnaryStream, UnaryUnary
from pointsman.channels.aio.dispatch import AsyncDispatch
from pointsman.channels.backends import Backends
from pointsman.channels.options import sticky_key_source
from tests.support.fake_routes import AsyncFakeRoutes
from tests.unit.client.channels.test_callables import ARGUMENTS, NOTHING


class Recorder:
    """A method of grpc.aio, and the call that it returns: one that has ended."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, dict[str, Any]]] = []

    def __call__(self, request: Any, **arguments: Any) -> "Recorder":
        self.calls.append((request, arguments))
        return self

    def add_done_callback(self, callback: Callable[[object], None]) -> None:
        callback(self)

    async def code(self) -> str:
        return "ended"


@pytest.mark.parametrize("given", [ARGUMENTS, NOTHING], ids=["all", "none"])
@pytest.mark.parametrize("known", [True, False], ids=["known", "asked"])
@pytest.mark.parametrize("kind", [UnaryUnary, UnaryStream, StreamUnary, StreamStream])
async def test_every_argument_of_a_call_reaches_grpc(kind: Any, known: bool, given: dict[str, Any]) -> None:
    routes = AsyncFakeRoutes("http://one")
    routes.known = known
    backends: Backends[Any] = Backends(lambda url: url, lambda: None, drain_seconds=60.0)
    dispatch = AsyncDispatch(routes, backends, sticky_key_source(""), clock=lambda: 0.0)
    recorder = Recorder()
    method = kind(dispatch, lambda _: recorder)
    call = method(b"request") if given is NOTHING else method(b"request", **given)
    assert isinstance(call, grpc.aio.Call) is not known
    assert await call.code() == "ended"
    assert recorder.calls == [(b"request", given)]
    assert backends.open("http://one").calls == 0
