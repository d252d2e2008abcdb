"""cli.sending: several calls at once, and patience."""

import asyncio
from datetime import timedelta

import pytest

from pointsman import ResourceExhausted, Unavailable
from pointsman.cli.bulk import retry
from pointsman.cli.bulk.retry import Patience, at_once


class Calls:
    """Calls that end when they are let; ``begun`` has the numbers of those that were made."""

    def __init__(self, count: int) -> None:
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.turns = [asyncio.get_running_loop().create_future() for _ in range(count)]

    async def call(self, number: int) -> None:
        self.begun.append(number)
        await self.turns[number]
        self.ended.append(number)

    def start(self, most: int) -> "asyncio.Task[None]":
        return asyncio.create_task(at_once(map(self.call, range(len(self.turns))), most))


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_no_more_are_under_way_than_there_may_be() -> None:
    calls = Calls(5)
    running = calls.start(2)
    await settled()
    assert calls.begun == [0, 1]
    calls.turns[1].set_result(None)
    await settled()
    assert calls.begun == [0, 1, 2]
    for number in (0, 2, 3, 4):
        calls.turns[number].set_result(None)
    await running
    assert sorted(calls.ended) == [0, 1, 2, 3, 4]


async def test_after_one_that_failed_none_begins_and_those_under_way_end_first() -> None:
    calls = Calls(5)
    running = calls.start(2)
    await settled()
    calls.turns[0].set_exception(Unavailable("gone"))
    await settled()
    assert not running.done()
    calls.turns[1].set_result(None)
    with pytest.raises(Unavailable):
        await running
    assert (calls.begun, calls.ended) == ([0, 1], [1])


async def test_the_last_calls_may_fail_too() -> None:
    calls = Calls(2)
    running = calls.start(3)
    await settled()
    calls.turns[1].set_exception(Unavailable("gone"))
    await settled()
    assert not running.done()
    calls.turns[0].set_result(None)
    with pytest.raises(Unavailable):
        await running


async def test_there_may_be_nothing_to_do() -> None:
    calls = Calls(0)
    await calls.start(3)

    assert calls.begun == []


async def test_who_is_asked_to_wait_without_a_time_does_not() -> None:
    error = ResourceExhausted("too large")
    answers = iter([ResourceExhausted("slow down", retry_delay=timedelta(0)), error])

    async def call() -> None:
        raise next(answers)

    with pytest.raises(ResourceExhausted) as raised:
        await Patience().of(call)
    assert raised.value is error


async def test_a_server_that_is_gone_for_one_call_is_waited_for_by_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_FIRST_PAUSE", 0.0)
    patience, tries = Patience(), 0

    async def call() -> None:
        nonlocal tries
        tries += 1
        raise Unavailable("gone")

    for expected in (8, 9):
        with pytest.raises(Unavailable):
            await patience.of(call)
        assert tries == expected
