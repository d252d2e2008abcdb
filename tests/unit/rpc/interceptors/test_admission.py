"""Which calls are admitted, and which exceed the limit."""

import asyncio
from typing import Any, cast

import pytest

from pointsman_server.domain.errors import Overloaded, ShuttingDown
from pointsman_server.rpc import HEALTH, REFLECTION, SERVICE
from pointsman_server.rpc.interceptors.admission import Admission, admit
from pointsman_server.rpc.interceptors.stage import Method


def enter(admission: Admission, times: int) -> None:
    for _ in range(times):
        admission.enter()


def test_as_many_calls_as_the_limit_are_let_in():
    admission = Admission(3)
    enter(admission, 3)

    admission.check()


def test_one_more_is_overload():
    admission = Admission(3)
    enter(admission, 4)
    with pytest.raises(Overloaded) as caught:
        admission.check()

    assert caught.value.metadata == {"limit": "concurrent_calls"}


def test_who_leaves_makes_room():
    admission = Admission(3)
    enter(admission, 4)
    admission.leave()

    admission.check()


def test_zero_is_no_limit():
    admission = Admission(0)
    enter(admission, 100_000)

    admission.check()


async def test_once_closed_no_call_is_admitted():
    admission = Admission(3)
    await admission.close(patience=1)
    with pytest.raises(ShuttingDown):
        admission.check()


async def test_closing_waits_for_those_inside():
    admission = Admission()
    enter(admission, 2)
    closing = asyncio.create_task(admission.close(patience=30))
    await asyncio.sleep(0)
    admission.leave()
    await asyncio.sleep(0)
    assert not closing.done()
    admission.leave()

    await closing


async def hold(admission: Admission) -> None:
    """Be a stream that does not end by itself."""
    admission.enter()
    try:
        async with admission.stream():
            await asyncio.Event().wait()
    finally:
        admission.leave()


async def holding(admission: Admission, number: int) -> "list[asyncio.Task[None]]":
    streams = [asyncio.create_task(hold(admission)) for _ in range(number)]
    await asyncio.sleep(0)
    return streams


async def cancel(streams: "list[asyncio.Task[None]]") -> None:
    for stream in streams:
        stream.cancel()
    await asyncio.gather(*streams, return_exceptions=True)


async def test_streams_have_a_limit_of_their_own():
    admission = Admission(3)
    streams = await holding(admission, 3)

    assert not admission.full
    admission.check()
    with pytest.raises(Overloaded) as caught:
        await hold(admission)
    assert caught.value.metadata == {"limit": "concurrent_streams"}
    await cancel(streams)


async def test_streams_that_are_over_make_room():
    admission = Admission(1)
    await cancel(await holding(admission, 1))
    streams = await holding(admission, 1)

    assert not streams[0].done()
    await cancel(streams)


async def test_closing_ends_streams_one_after_another(monkeypatch: pytest.MonkeyPatch):
    ends: list[asyncio.Timeout] = []
    timeout = asyncio.timeout

    def recorded(delay: float | None) -> asyncio.Timeout:
        ends.append(timeout(delay))
        return ends[-1]

    monkeypatch.setattr("pointsman_server.rpc.interceptors.admission.asyncio.timeout", recorded)
    admission = Admission()
    streams = await holding(admission, 4)
    begun = asyncio.get_running_loop().time()
    await admission.close(patience=0.1)

    assert all(isinstance(stream.exception(), ShuttingDown) for stream in streams)
    first, *others = sorted(end.when() or 0.0 for end in ends[:4])
    assert first >= begun
    # 80 % of the time for all four of them.
    assert [when - first for when in others] == pytest.approx([0.02, 0.04, 0.06])


async def test_few_streams_do_not_take_the_whole_time():
    admission = Admission()
    streams = await holding(admission, 2)
    async with asyncio.timeout(30):
        await admission.close(patience=3600)

    assert all(isinstance(stream.exception(), ShuttingDown) for stream in streams)


async def test_once_closed_no_stream_begins():
    admission = Admission()
    await admission.close(patience=1)
    with pytest.raises(ShuttingDown):
        await hold(admission)


async def test_a_timeout_of_the_work_of_a_stream_is_no_shutdown():
    async def fail() -> None:
        async with Admission().stream():
            raise TimeoutError("of something else")

    with pytest.raises(TimeoutError, match="of something else"):
        await fail()


@pytest.mark.parametrize(
    ("method", "admitted"),
    [
        (Method(HEALTH, "Check"), True),
        (Method(HEALTH, "Watch", response_streaming=True), False),
        (Method(REFLECTION[0], "ServerReflectionInfo", request_streaming=True, response_streaming=True), False),
        (Method(SERVICE, "Get"), False),
    ],
)
async def test_while_closed_only_health_is_asked_and_answered(method: Method, admitted: bool):
    admission = Admission()
    await admission.close(patience=1)

    async def proceed(_request: Any, _context: Any) -> str:
        return "response"

    handler = admit(admission)(method, proceed)
    if admitted:
        assert await handler(None, cast("Any", None)) == "response"
    else:
        with pytest.raises(ShuttingDown):
            await handler(None, cast("Any", None))


async def test_streams_begin_in_turns_and_unary_calls_do_not_wait():
    turn, begun = asyncio.Event(), []

    async def work(request: Any, _context: Any) -> None:
        begun.append(request)

    async def wait_for_turn() -> None:
        await turn.wait()

    stage = admit(Admission(), wait_for_turn)
    stream = stage(Method(SERVICE, "Watch", response_streaming=True), work)
    opening = asyncio.create_task(cast("Any", stream("stream", None)))
    await asyncio.sleep(0)
    await stage(Method(SERVICE, "Resolve"), work)("unary", cast("Any", None))
    assert begun == ["unary"]
    turn.set()
    await opening
    assert begun == ["unary", "stream"]
