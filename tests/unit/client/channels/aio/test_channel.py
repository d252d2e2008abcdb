"""A channel of asyncio over real backends, told by a fake near-cache which of them is live."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import grpc
import grpc.aio
import pytest

import pointsman.aio
from pointsman.channels.aio.channel import AsyncRouteChannel, open_backend
from pointsman.channels.failure import REASON_KEY
from pointsman.channels.options import BackendOptions, sticky_key_source
from pointsman.errors import InvalidArgument, RouteInactive
from tests.support.echo_backends import EchoBackend, EchoStub, threads_besides_servers
from tests.support.fake_routes import AsyncFakeRoutes
from tests.support.waiting import becomes

SECONDS = 20.0
State = grpc.ChannelConnectivity


class Rig:
    def __init__(self, stack: AsyncExitStack) -> None:
        self.stack = stack
        self.one, self.two, self.three = (stack.enter_context(EchoBackend(name)) for name in ("one", "two", "three"))
        self.routes = AsyncFakeRoutes(self.one.url)
        self.opened: list[grpc.aio.Channel] = []
        self.closes: list[str] = []
        self.channel = self.make()
        self.stub = EchoStub(self.channel)

    def make(self, drain_seconds: float = 60.0) -> AsyncRouteChannel:
        channel = AsyncRouteChannel(
            self.routes,
            self.open,
            sticky_key=sticky_key_source(lambda metadata: str(dict(metadata).get("user", ""))),
            drain_seconds=drain_seconds,
            on_close=[self.on_close],
        )
        self.stack.push_async_callback(channel.close)
        return channel

    def open(self, url: str) -> grpc.aio.Channel:
        self.opened.append(open_backend(BackendOptions(), url))
        return self.opened[-1]

    async def on_close(self) -> None:
        self.closes.append("closed")

    async def drained(self) -> bool:
        """Whether only the second backend is left."""
        return [*self.channel._backends._by_url] == [self.two.url] and self.opened[0].get_state() is State.SHUTDOWN

    async def is_held(self) -> bool:
        return await asyncio.to_thread(self.one.held.acquire, timeout=SECONDS)


@pytest.fixture
async def rig(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    monkeypatch.setattr("pointsman.channels.backends.LINGER_SECONDS", 0.1)
    async with AsyncExitStack() as stack:
        yield Rig(stack)


async def read_last(call: Any) -> Any:
    return [each async for each in call][-1]


async def written(call: Any, request: bytes) -> Any:
    await call.write(request)
    await call.done_writing()
    return call


async def write_then_await(call: Any, request: bytes) -> Any:
    return await (await written(call, request))


async def write_then_read(call: Any, request: bytes) -> Any:
    return await (await written(call, request)).read()


async def read_twice(call: Any) -> Any:
    await call.read()
    return await call.read()


Call = Callable[[EchoStub, bytes], Awaitable[bytes]]
# Each way to make a call, by the answer to its one request.
CALLS: dict[str, Call] = {
    "unary_unary": lambda stub, request: stub.unary_unary(request, timeout=SECONDS),
    "unary_stream": lambda stub, request: read_last(stub.unary_stream(request, timeout=SECONDS)),
    "unary_stream.read": lambda stub, request: read_twice(stub.unary_stream(request, timeout=SECONDS)),
    "stream_unary": lambda stub, request: stub.stream_unary(iter([request]), timeout=SECONDS),
    "stream_unary.write": lambda stub, request: write_then_await(stub.stream_unary(timeout=SECONDS), request),
    "stream_stream": lambda stub, request: read_last(stub.stream_stream(iter([request]), timeout=SECONDS)),
    "stream_stream.write": lambda stub, request: write_then_read(stub.stream_stream(timeout=SECONDS), request),
}
every_kind = pytest.mark.parametrize("kind", CALLS)
whether_the_table_knows = pytest.mark.parametrize("known", [True, False], ids=["table", "server"])


@every_kind
@whether_the_table_knows
async def test_each_kind_of_call_follows_a_cut_over(rig: Rig, kind: str, known: bool) -> None:
    call, rig.routes.known = CALLS[kind], known
    assert await call(rig.stub, b"a") == b"one a"
    rig.routes.set(rig.two.url)
    assert await call(rig.stub, b"b") == b"two b"
    assert bool(rig.routes.asked) is not known

    async def ended() -> bool:
        return all(not each.calls for each in rig.channel._backends._by_url.values())

    assert await becomes(ended)


@every_kind
@whether_the_table_knows
async def test_each_kind_of_call_fails_where_nothing_is_live(rig: Rig, kind: str, known: bool) -> None:
    rig.routes.known = known
    rig.routes.set("")
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await CALLS[kind](rig.stub, b"a")
    assert failed.value.code() is grpc.StatusCode.NOT_FOUND
    assert "is not active: activate it first" in str(failed.value.details())
    assert dict(tuple(failed.value.trailing_metadata() or ())) == {REASON_KEY: "ROUTE_INACTIVE"}
    assert isinstance(failed.value.__cause__, RouteInactive)
    assert (rig.opened, rig.one.count) == ([], 0)
    rig.routes.set(rig.one.url)
    assert await CALLS[kind](rig.stub, b"a") == b"one a"


@every_kind
async def test_each_kind_of_call_in_flight_ends_where_it_began(rig: Rig, kind: str) -> None:
    held = asyncio.ensure_future(CALLS[kind](rig.stub, b"hold"))
    assert await rig.is_held()
    rig.routes.set(rig.three.url)
    assert await CALLS[kind](rig.stub, b"next") == b"three next"
    rig.routes.set(rig.two.url)
    assert await CALLS[kind](rig.stub, b"next") == b"two next"

    async def third_is_closed() -> bool:
        return [*rig.channel._backends._by_url] == [rig.one.url, rig.two.url]

    # The third left last, and is closed: only its call has kept the first.
    assert await becomes(third_is_closed)
    rig.one.released.set()
    assert await held == b"one hold"

    assert await becomes(rig.drained)


async def test_stubs_that_are_generated_work(rig: Rig) -> None:
    call: Any = rig.channel.unary_unary(
        "/test.Echo/UnaryUnary",
        request_serializer=str.encode,
        response_deserializer=bytes.decode,
        _registered_method=True,
    )
    assert await call("a", timeout=SECONDS) == "one a"
    rig.routes.set(rig.two.url)
    assert await call("a", timeout=SECONDS) == "two a"


async def test_calls_that_do_not_end_are_cancelled_after_the_drain(rig: Rig) -> None:
    stub = EchoStub(rig.make(drain_seconds=0.0))
    call = stub.unary_unary(b"hold")
    assert await rig.is_held()
    rig.routes.set(rig.two.url)
    assert await call.code() is grpc.StatusCode.CANCELLED
    assert await stub.unary_unary(b"a") == b"two a"


async def test_metadata_reaches_the_backend_and_the_sticky_key(rig: Rig) -> None:
    rig.routes.set({"": rig.one.url, "user-2": rig.two.url})
    assert await rig.stub.unary_unary(b"a") == b"one a"
    assert await rig.stub.unary_unary(b"a", metadata=(("user", "user-2"),)) == b"two a"
    assert await rig.stub.unary_unary(b"a", metadata=grpc.aio.Metadata(("user", "user-2"))) == b"two a"
    assert rig.two.metadata[-1]["user"] == "user-2"


async def test_flapping_leaves_neither_channels_nor_threads(rig: Rig) -> None:
    before = set(threading.enumerate())
    for _ in range(100):
        for backend in (rig.one, rig.two):
            rig.routes.set(backend.url)
            assert await rig.stub.unary_unary(b"a") == f"{backend.name} a".encode()
    assert len(rig.opened) == 2, "what comes back before it is closed is used again"

    assert await becomes(rig.drained)

    async def over() -> bool:
        return rig.channel._timer is None and not rig.channel._closing

    assert await becomes(over)
    # gRPC has one thread for all channels of asyncio.
    assert [name for name in threads_besides_servers(before) if "_poll_wrapper" not in name] == []


async def test_it_connects_for_who_waits_for_it(rig: Rig) -> None:
    rig.routes.set("")
    assert rig.channel.get_state() is State.TRANSIENT_FAILURE
    ready = asyncio.ensure_future(rig.channel.channel_ready())
    await asyncio.sleep(0)
    rig.routes.set(rig.one.url)
    await asyncio.wait_for(ready, SECONDS)
    assert rig.channel.get_state() is State.READY
    other = asyncio.ensure_future(rig.channel.wait_for_state_change(State.READY))
    await asyncio.sleep(0)
    rig.routes.set("")
    await asyncio.wait_for(other, SECONDS)
    assert rig.channel.get_state() is State.TRANSIENT_FAILURE


async def test_all_who_wait_for_a_state_are_told_and_nothing_is_opened_for_them(rig: Rig) -> None:
    assert rig.channel.get_state() is State.IDLE
    waiting = [asyncio.ensure_future(rig.channel.wait_for_state_change(State.IDLE)) for _ in range(2)]
    await asyncio.sleep(0)
    assert rig.opened == []
    rig.routes.set("")
    await asyncio.wait_for(asyncio.gather(*waiting), SECONDS)


async def test_it_does_not_connect_to_what_cannot_be_carried(rig: Rig) -> None:
    rig.routes.set("ftp://one")
    assert rig.channel.get_state(try_to_connect=True) is State.IDLE


async def test_who_waits_for_it_to_be_ready_is_told_of_the_end(rig: Rig) -> None:
    rig.routes.set("")
    ready = asyncio.ensure_future(rig.channel.channel_ready())
    await asyncio.sleep(0)
    await rig.channel.close()
    for call in (ready, rig.channel.channel_ready(), rig.channel.wait_for_state_change(State.SHUTDOWN)):
        with pytest.raises(grpc.aio.UsageError, match="Channel is closed"):
            await asyncio.wait_for(call, SECONDS)


async def test_who_waits_for_a_state_is_told_of_the_end(rig: Rig) -> None:
    waiting = asyncio.ensure_future(rig.channel.wait_for_state_change(State.IDLE))
    await asyncio.sleep(0)
    await rig.channel.close()
    await asyncio.wait_for(waiting, SECONDS)
    assert rig.channel.get_state() is State.SHUTDOWN


async def test_changes_come_from_another_thread(rig: Rig) -> None:
    assert await rig.stub.unary_unary(b"a") == b"one a"
    await asyncio.to_thread(rig.routes.set, rig.two.url)
    assert await rig.stub.unary_unary(b"a") == b"two a"

    assert await becomes(rig.drained)


async def test_its_end(rig: Rig) -> None:
    call = rig.stub.unary_unary(b"hold")
    assert await rig.is_held()
    async with rig.channel as channel:
        assert (channel, rig.routes.starts) == (rig.channel, 1)
    assert await call.code() is grpc.StatusCode.CANCELLED
    await channel.close()
    assert (rig.closes, rig.routes.followers) == (["closed"], 0)
    for each in CALLS.values():
        with pytest.raises(grpc.aio.UsageError, match="closed"):
            await each(rig.stub, b"a")


async def test_its_end_waits_for_calls_if_asked_to(rig: Rig) -> None:
    call = rig.stub.unary_unary(b"hold")
    assert await rig.is_held()
    closing = asyncio.ensure_future(rig.channel.close(SECONDS))
    await asyncio.sleep(0)
    rig.one.released.set()
    await closing
    assert await call == b"one hold"


async def test_interceptors_see_the_calls(rig: Rig) -> None:
    seen: list[Any] = []

    class Interceptor(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]
        async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            seen.append(details.method)
            return await continuation(details, request)

    chosen = BackendOptions(interceptors=[Interceptor()])
    async with AsyncRouteChannel(
        rig.routes,
        lambda url: open_backend(chosen, url),
        sticky_key=sticky_key_source(""),
        drain_seconds=1.0,
    ) as channel:
        assert await EchoStub(channel).unary_unary(b"a") == b"one a"
        [backend] = channel._backends.current()

        async def ended() -> bool:
            return not backend.calls

        assert await becomes(ended)
    assert seen == [b"/test.Echo/UnaryUnary"]


async def test_what_it_refuses() -> None:
    with pytest.raises(InvalidArgument, match="must be tenant/service/env/version"):
        pointsman.aio.channel("payments")
    with pytest.raises(AttributeError, match="nothing"):
        _ = pointsman.aio.nothing
