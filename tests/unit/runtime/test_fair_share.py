"""Large work is done in slices, one per iteration of the event loop."""

import asyncio

from pointsman_server.runtime.fair_share import FairShare


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
