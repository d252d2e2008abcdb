"""Large work is done in slices, one per iteration of the event loop."""

import asyncio
from itertools import pairwise

import pytest

from pointsman_server.runtime.fair_share import (
    MOST_WRITING,
    PAUSE_SECONDS,
    UNBOUNDED,
    WOKEN_IN_A_TURN,
    FairShare,
    Pacing,
    Window,
)


async def test_map_keeps_the_order():
    assert await FairShare().map(str, range(25)) == [str(number) for number in range(25)]
    assert await FairShare().map(str, []) == []


async def test_small_work_waits_for_one_turn_of_large_work_at_most():
    turns = FairShare()
    done: list[object] = []
    large = asyncio.create_task(turns.map(done.append, range(1000), size=1))
    for _ in range(10):
        before = len(done)
        await asyncio.sleep(0)
        assert len(done) - before <= 1

    await large
    assert done == list(range(1000))


async def test_those_with_much_to_do_go_on_in_turn():
    turns = FairShare()
    done: list[str] = []
    await asyncio.gather(*(turns.map(done.append, [name] * 10, size=1) for name in "ab"))

    assert sorted(done) == ["a"] * 10 + ["b"] * 10
    assert all(abs(done[:end].count("a") - done[:end].count("b")) <= 2 for end in range(20))


async def test_who_gives_up_waiting_does_not_take_a_turn_along():
    turns = FairShare()
    await turns.take()
    waiting = asyncio.create_task(turns.take())
    await asyncio.sleep(0)
    waiting.cancel()
    following = asyncio.create_task(turns.take())
    await asyncio.wait([following], timeout=30)

    assert following.done()
    assert following.exception() is None


class Streams:
    """Each writes from when it is woken until ``finish``."""

    def __init__(self) -> None:
        self.woken: list[int] = []
        self.window: dict[int, Window] = {}

    def wake(self, stream: int, window: Window) -> None:
        self.woken.append(stream)
        self.window[stream] = window
        window.begin()

    def finish(self) -> None:
        while self.window:
            self.window.popitem()[1].end()


async def test_room_is_there_without_waiting() -> None:
    assert await Window().falls_to(0, 30)


async def test_other_work_has_its_turn_after_a_few() -> None:
    streams, seen = Streams(), []
    waking = asyncio.create_task(Pacing(FairShare()).wake(range(UNBOUNDED), streams.wake))
    while not waking.done():
        await asyncio.sleep(0)
        seen.append(len(streams.woken))
    assert streams.woken == list(range(UNBOUNDED))
    assert max(later - before for before, later in pairwise(seen)) == WOKEN_IN_A_TURN


async def test_of_many_only_some_write_at_a_time() -> None:
    streams, most = Streams(), 0
    waking = asyncio.create_task(Pacing(FairShare()).wake(range(10 * UNBOUNDED), streams.wake))
    while not waking.done():
        await asyncio.sleep(0)
        most = max(most, len(streams.window))
        if len(streams.window) == MOST_WRITING:
            streams.finish()
    assert most == MOST_WRITING
    assert streams.woken == list(range(10 * UNBOUNDED))


async def test_clients_that_read_nothing_hold_up_nobody_for_long() -> None:
    streams = Streams()
    await asyncio.wait_for(Pacing(FairShare()).wake(range(3 * UNBOUNDED), streams.wake), 30)
    assert streams.woken == list(range(3 * UNBOUNDED))


async def test_other_work_has_some_time_alone_after_more(monkeypatch: pytest.MonkeyPatch) -> None:
    streams, woken_at, pauses = Streams(), [], []
    sleep = asyncio.sleep

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        woken_at.append(len(streams.woken))
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", pause)
    await Pacing(FairShare(), in_a_turn=2, pause_after=30).wake(range(UNBOUNDED), streams.wake)
    assert streams.woken == list(range(UNBOUNDED))
    assert (woken_at, set(pauses)) == ([30, 60, 90], {PAUSE_SECONDS})
