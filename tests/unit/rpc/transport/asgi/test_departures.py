"""Clients that have gone are found by asking for all calls in turn."""

import asyncio
import inspect
from collections.abc import Coroutine
from typing import Any

import pytest

from pointsman_server.rpc.transport.asgi import departures
from pointsman_server.rpc.transport.asgi.departures import Departures
from tests.support.asgi_call import AsgiCall, until


@pytest.fixture(autouse=True)
def _tick_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(departures, "TICK_SECONDS", 0.001)
    monkeypatch.setattr(departures, "LONGEST_PAUSE_TICKS", 4)


class Waiting:
    """A call whose request has ended, and that counts how often it is asked for."""

    def __init__(self) -> None:
        self.call = AsgiCall()
        self.asked = 0
        self.over = 0

    async def receive(self) -> object:
        self.asked += 1
        return await self.call.receive()

    def gone(self) -> None:
        self.over += 1


async def test_a_client_that_has_gone_is_found_once() -> None:
    watched, stays, goes = Departures(), Waiting(), Waiting()
    for each in (stays, goes):
        watched.watch(each.receive, each.gone)  # type: ignore[arg-type]
    await until(lambda: goes.asked > 2)
    goes.call.leave()
    await until(lambda: goes.over == 1)
    asked = goes.asked
    seen = stays.asked
    await until(lambda: stays.asked > seen + 2)

    assert (goes.over, goes.asked) == (1, asked)
    assert stays.over == 0


async def test_a_connection_that_is_lost_is_a_client_that_has_gone() -> None:
    lost = Waiting()

    async def receive() -> object:
        raise ConnectionResetError

    Departures().watch(receive, lost.gone)  # type: ignore[arg-type]

    await until(lambda: lost.over == 1)


async def test_what_is_forgotten_is_not_asked_for() -> None:
    watched, other, over = Departures(), Waiting(), Waiting()
    departure = watched.watch(over.receive, over.gone)  # type: ignore[arg-type]
    watched.watch(other.receive, other.gone)  # type: ignore[arg-type]
    departure.forget()
    await until(lambda: other.asked > 3)

    assert over.asked == 0


async def test_a_call_that_ends_while_it_is_asked_for_is_not_told() -> None:
    watched, call = Departures(), Waiting()
    asked, answer = asyncio.Event(), asyncio.Event()

    async def receive() -> dict[str, str]:
        asked.set()
        await answer.wait()
        return {"type": "http.disconnect"}

    departure = watched.watch(receive, call.gone)
    await asked.wait()
    departure.forget()
    answer.set()
    other = Waiting()
    watched.watch(other.receive, other.gone)  # type: ignore[arg-type]
    await until(lambda: other.asked > 1)

    assert call.over == 0


async def test_no_more_are_asked_for_at_once_than_a_bound_and_each_has_its_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(departures, "MOST_A_TICK", 3)
    watched, calls = Departures(), [Waiting() for _ in range(10)]
    for call in calls:
        watched.watch(call.receive, call.gone)  # type: ignore[arg-type]
    await until(lambda: any(call.asked for call in calls))
    assert sum(call.asked for call in calls) <= 3

    await until(lambda: all(call.asked > 1 for call in calls))


async def test_nothing_runs_while_no_call_waits() -> None:
    watched, call = Departures(), Waiting()
    departure = watched.watch(call.receive, call.gone)  # type: ignore[arg-type]
    await until(lambda: call.asked > 0)
    departure.forget()

    await until(lambda: watched._timer is None and watched._asking is None)


async def test_what_was_not_asked_for_yet_is_closed_when_the_asking_is_cancelled() -> None:
    watched, calls = Departures(), [Waiting() for _ in range(3)]
    answers: list[Coroutine[Any, Any, object]] = []
    asked = asyncio.Event()

    async def answer() -> object:
        asked.set()
        return await asyncio.Event().wait()

    def receive() -> Coroutine[Any, Any, object]:
        answers.append(answer())
        return answers[-1]

    for call in calls:
        watched.watch(receive, call.gone)  # type: ignore[arg-type]
    await asked.wait()
    assert watched._asking
    watched._asking.cancel()
    await asyncio.wait((watched._asking,))

    # One that is not is reported as never awaited.
    assert [inspect.getcoroutinestate(each) for each in answers] == ["CORO_CLOSED"] * 3
