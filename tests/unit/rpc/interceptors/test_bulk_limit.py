"""How many large calls are admitted, and what happens to clients that do not read their responses."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import RouteKey
from pointsman_server.domain.errors import Overloaded
from pointsman_server.rpc import SERVICE
from pointsman_server.rpc.interceptors.bulk_limit import SIZES, Bulk, bound_bulk
from pointsman_server.rpc.interceptors.stage import Method, StreamContext


class FakeContext:
    """A call that is over when a test says so."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self._host = host
        self._callbacks: list[Callable[[Any], None]] = []

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._callbacks.append(callback)

    def peer(self) -> str:
        return f"ipv4:{self._host}:4711"

    def end(self) -> None:
        for callback in self._callbacks:
            callback(self)


def batch(keys: int) -> pb.BatchResolveRequest:
    return pb.BatchResolveRequest(keys=[RouteKey(tenant="a")] * keys)


async def call(bulk: Bulk, request: Any, *, host: str = "127.0.0.1") -> FakeContext:
    context = FakeContext(host)

    async def proceed(request: Any, context: Any) -> str:
        return "done"

    assert await bound_bulk(bulk)(Method(SERVICE, "BatchResolve"), proceed)(request, cast("Any", context)) == "done"
    return context


async def test_calls_beyond_the_bound_are_overload_until_an_answer_is_on_the_wire():
    bulk = Bulk(most=100)
    first = await call(bulk, batch(50), host="10.0.0.1")
    await call(bulk, batch(50), host="10.0.0.2")
    with pytest.raises(Overloaded) as caught:
        await call(bulk, batch(1), host="10.0.0.3")
    assert caught.value.metadata == {"limit": "bulk_routes"}
    first.end()

    await call(bulk, batch(50), host="10.0.0.3")


async def test_half_of_them_are_for_one_host():
    bulk = Bulk(most=100)
    first = await call(bulk, batch(30), host="10.0.0.1")
    await call(bulk, batch(20), host="10.0.0.1")
    with pytest.raises(Overloaded):
        await call(bulk, batch(1), host="10.0.0.1")
    await call(bulk, batch(50), host="10.0.0.2")
    first.end()

    await call(bulk, batch(30), host="10.0.0.1")


async def test_calls_that_come_together_are_let_go_on_one_by_one():
    begun: list[int] = []

    async def proceed(request: Any, context: Any) -> None:
        begun.append(1)

    handle = bound_bulk(Bulk())(Method(SERVICE, "List"), proceed)
    calls = asyncio.gather(*(handle(pb.ListRequest(), cast("Any", FakeContext())) for _ in range(20)))
    for _ in range(10):
        before = len(begun)
        await asyncio.sleep(0)
        assert len(begun) - before <= 1

    await calls
    assert len(begun) == 20


async def test_one_call_alone_is_let_in_however_large():
    await call(Bulk(most=10), batch(1000))


async def test_a_failed_call_is_over_too():
    bulk = Bulk(most=10)
    context = FakeContext()

    async def proceed(request: Any, context: Any) -> str:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        await bound_bulk(bulk)(Method(SERVICE, "BatchResolve"), proceed)(batch(10), cast("Any", context))
    context.end()

    await call(bulk, batch(10))


async def test_who_does_not_read_an_answer_is_disconnected():
    gone: list[str] = []
    done = asyncio.Event()
    loop = asyncio.get_running_loop()

    def disconnect(peer: str) -> bool:
        gone.append(peer)
        loop.call_soon_threadsafe(done.set)
        return True

    await call(Bulk(unread_seconds=0.001, disconnect=disconnect), batch(1))
    await asyncio.wait_for(done.wait(), 30)

    assert gone == ["ipv4:127.0.0.1:4711"]


async def test_who_reads_it_stays():
    gone: list[str] = []
    bulk = Bulk(unread_seconds=0.001, disconnect=lambda peer: bool(gone.append(peer)))
    (await call(bulk, batch(1))).end()
    await asyncio.sleep(0.02)

    assert gone == []


@pytest.mark.parametrize(("asked", "size"), [(0, 100), (7, 7), (1000, 1000), (100_000, 1000), (-5, 0)])
@pytest.mark.parametrize("name", ["List", "ListChanges"])
def test_a_page_counts_as_what_it_may_hold(name, asked, size):
    assert SIZES[name](getattr(pb, f"{name}Request")(page_size=asked)) == size


def test_a_commit_counts_twice_for_its_answer_has_what_was_before_and_after():
    assert SIZES["Commit"](pb.CommitRequest(mutations=[pb.Mutation()] * 1000)) == 2000


def test_what_is_no_message_counts_little():
    assert SIZES["BatchResolve"](object()) == 0
    assert SIZES["List"](object()) == 100


def test_small_methods_are_not_wrapped():
    async def proceed(request: Any, context: Any) -> str:
        return "done"

    assert bound_bulk(Bulk())(Method(SERVICE, "Resolve"), proceed) is proceed
    assert bound_bulk(Bulk())(Method("another.Service", "List"), proceed) is proceed


WATCH = Method(SERVICE, "Watch", response_streaming=True)


class StreamTransport(FakeContext):
    """Takes responses when it is let."""

    def __init__(self, *, takes: bool) -> None:
        super().__init__()
        self._takes = takes

    async def write(self, _response: Any) -> None:
        if not self._takes:
            await asyncio.Event().wait()


async def one_response(_request: Any, context: Any) -> None:
    await context.write("response")


@pytest.mark.parametrize("takes", [True, False])
async def test_a_client_of_a_stream_must_read_it(takes):
    gone: list[str] = []
    disconnected = asyncio.Event()
    loop = asyncio.get_running_loop()

    def disconnect(peer: str) -> bool:
        gone.append(peer)
        loop.call_soon_threadsafe(disconnected.set)
        return True

    bulk = Bulk(unread_seconds=0.01, disconnect=disconnect)
    context = cast("Any", StreamContext(cast("Any", StreamTransport(takes=takes))))
    call = asyncio.create_task(bound_bulk(bulk)(WATCH, one_response)(None, context))
    if takes:
        await call
        await asyncio.sleep(0.05)
    else:
        await asyncio.wait_for(disconnected.wait(), 30)
        call.cancel()

    assert gone == ([] if takes else ["ipv4:127.0.0.1:4711"])


async def test_a_response_is_given_its_own_time_however_many_came_before():
    """The timer of earlier responses does not end the wait for a later one."""
    gone: list[str] = []
    bulk = Bulk(unread_seconds=0.2, disconnect=lambda peer: bool(gone.append(peer)))
    transport = StreamTransport(takes=True)
    begun = asyncio.get_running_loop().time()
    times: list[float] = []

    async def responses(_request: Any, context: Any) -> None:
        for _ in range(3):
            await context.write("response")
            await asyncio.sleep(0.05)
        transport._takes = False
        times.append(asyncio.get_running_loop().time())
        await context.write("response")

    context = cast("Any", StreamContext(cast("Any", transport)))
    call = asyncio.create_task(bound_bulk(bulk)(WATCH, responses)(None, context))
    while not gone:  # noqa: ASYNC110 - a thread says it
        await asyncio.sleep(0.005)
    assert asyncio.get_running_loop().time() - times[0] >= 0.19
    assert times[0] - begun >= 0.14
    call.cancel()


async def test_a_stream_that_is_over_has_no_client_to_disconnect():
    gone: list[str] = []
    bulk = Bulk(unread_seconds=0.01, disconnect=lambda peer: bool(gone.append(peer)))
    transport = StreamTransport(takes=False)
    context = cast("Any", StreamContext(cast("Any", transport)))
    call = asyncio.create_task(bound_bulk(bulk)(WATCH, one_response)(None, context))
    await asyncio.sleep(0)
    call.cancel()
    transport.end()
    await asyncio.sleep(0.05)

    assert gone == []
