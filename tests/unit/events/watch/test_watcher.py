"""The queue of one stream."""

import asyncio

import pytest

from pointsman_server.domain.errors import Overloaded
from pointsman_server.events.watch import watcher as module
from pointsman_server.events.watch.filters import Filter
from pointsman_server.events.watch.watcher import Interrupted, Watcher
from pointsman_server.ports.store import Clock
from pointsman_server.runtime.fair_share import Window


@pytest.fixture
def watcher() -> Watcher:
    return Watcher(Filter(), Clock("e1", 10))


async def test_it_gives_all_that_waits_in_order(watcher: Watcher) -> None:
    watcher.put_changes([b"a", b"b"], 12)
    watcher.put_checkpoint(b"c", 12)
    assert watcher.position == Clock("e1", 10)
    assert await watcher.take() == [b"a", b"b", b"c"]
    assert watcher.position == Clock("e1", 12)


async def test_it_waits_until_there_is_something(watcher: Watcher) -> None:
    taking = asyncio.create_task(watcher.take())
    await asyncio.sleep(0)
    assert not taking.done()
    watcher.put_changes([b"a"], 11)
    watcher.put_changes([b"b"], 12)
    assert await taking == [b"a", b"b"]


async def test_what_the_stream_has_is_not_put_again(watcher: Watcher) -> None:
    watcher.put_changes([b"old"], 10)
    watcher.put_changes([b"a"], 11)
    watcher.put_changes([b"a"], 11)
    watcher.put_checkpoint(b"behind", 10)
    assert await watcher.take() == [b"a"]


async def test_a_set_without_a_match_moves_it_on(watcher: Watcher) -> None:
    watcher.put_changes([], 14)
    watcher.put_checkpoint(b"behind", 13)
    watcher.put_checkpoint(b"c", 14)
    assert await watcher.take() == [b"c"]


@pytest.mark.parametrize("bound", ["MOST_EVENTS", "MOST_BYTES"])
async def test_a_stream_that_is_too_slow_is_ended(bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    slow: list[bool] = []
    watcher = Watcher(Filter(), Clock("e1", 10), lambda: slow.append(True))
    monkeypatch.setattr(module, bound, 2)
    watcher.put_changes([b"a"], 11)
    watcher.put_changes([b"b"], 12)
    assert not slow
    watcher.put_changes([b"c"], 13)
    watcher.put_changes([b"d"], 14)
    assert slow == [True]
    with pytest.raises(Overloaded) as error:
        await watcher.take()
    assert error.value.metadata["limit"] == "watch_queue"
    assert watcher.position == Clock("e1", 10)


async def test_an_interruption_drops_what_waits(watcher: Watcher) -> None:
    watcher.put_changes([b"a"], 11)
    watcher.interrupt()
    watcher.put_changes([b"b"], 12)
    with pytest.raises(Interrupted):
        await watcher.take()
    assert watcher.position == Clock("e1", 10)


async def test_an_interruption_wakes_a_stream_that_waits(watcher: Watcher) -> None:
    taking = asyncio.create_task(watcher.take())
    await asyncio.sleep(0)
    watcher.interrupt()
    with pytest.raises(Interrupted):
        await taking


async def test_one_that_was_cancelled_does_not_lose_what_comes_next(watcher: Watcher) -> None:
    taking = asyncio.create_task(watcher.take())
    await asyncio.sleep(0)
    taking.cancel()
    watcher.put_changes([b"a"], 11)
    await asyncio.gather(taking, return_exceptions=True)
    assert await watcher.take() == [b"a"]


class TestWindow:
    """Streams that write."""

    async def test_a_stream_counts_until_it_waits_again(self, watcher: Watcher) -> None:
        other, window = Watcher(Filter(), Clock("e1", 10)), Window()
        takings = [asyncio.create_task(one.take()) for one in (watcher, other)]
        await asyncio.sleep(0)
        for one in (watcher, other):
            one.put_changes([b"a"], 11)
            one.join(window)
        assert window.writing == 2
        falling = asyncio.create_task(window.falls_to(0, 30))
        await asyncio.gather(*takings)
        again = asyncio.create_task(watcher.take())
        await asyncio.sleep(0)
        assert window.writing == 1
        assert not falling.done()
        other.interrupt()
        assert await falling
        again.cancel()

    async def test_a_client_that_reads_nothing_is_waited_for_once(self, watcher: Watcher) -> None:
        taking, window = asyncio.create_task(watcher.take()), Window()
        await asyncio.sleep(0)
        watcher.put_changes([b"a"], 11)
        watcher.join(window)
        await taking
        assert not await window.falls_to(0, 0.01)
        later = Window()
        watcher.put_changes([b"b"], 12)
        watcher.join(later)
        assert later.writing == 0
