"""Keys are loaded in bounded batches, by loads that begin after the keys were asked for."""

import asyncio
from collections.abc import Sequence

import pytest

from pointsman_server.domain.errors import Overloaded, StoreUnavailable
from pointsman_server.runtime.batcher import Batcher
from tests.support.fakes import Gate


class Loads:
    """A load that doubles, behind a gate."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.calls: list[list[int]] = []
        self.at_once = self.peak = 0
        self.failures: list[BaseException] = []

    async def __call__(self, keys: Sequence[int]) -> Sequence[int]:
        self.calls.append(list(keys))
        self.at_once += 1
        self.peak = max(self.peak, self.at_once)
        try:
            await self.gate.passing()
            if self.failures:
                raise self.failures.pop(0)
            return [key * 2 for key in keys]
        finally:
            self.at_once -= 1


@pytest.fixture
def loads() -> Loads:
    return Loads()


def batcher(loads: Loads, size: int = 10, concurrency: int = 2, queue: int = 1000) -> Batcher[int, int]:
    return Batcher(loads, size=size, concurrency=concurrency, queue=queue, limit="test_loads")


async def test_a_key_gets_its_value(loads: Loads) -> None:
    assert await batcher(loads).get(21) == 42


async def test_what_is_asked_in_one_turn_of_the_loop_is_loaded_together_in_that_order(loads: Loads) -> None:
    subject = batcher(loads)
    assert await asyncio.gather(*(subject.get(key) for key in (3, 1, 2))) == [6, 2, 4]
    assert loads.calls == [[3, 1, 2]]


async def test_a_load_has_at_most_size_keys(loads: Loads) -> None:
    subject = batcher(loads, size=10, concurrency=99)
    assert await asyncio.gather(*(subject.get(key) for key in range(25))) == [key * 2 for key in range(25)]
    assert [len(keys) for keys in loads.calls] == [10, 10, 5]


async def test_at_most_concurrency_loads_run_and_the_rest_follows(loads: Loads) -> None:
    loads.gate.close()
    subject = batcher(loads, size=1, concurrency=3)
    asking = asyncio.gather(*(subject.get(key) for key in range(20)))
    await loads.gate.arrivals(3)
    assert len(loads.calls) == 3
    loads.gate.open()
    assert await asking == [key * 2 for key in range(20)]
    assert loads.peak == 3


async def test_what_waits_while_all_loads_are_busy_goes_together(loads: Loads) -> None:
    loads.gate.close()
    subject = batcher(loads, concurrency=1)
    first = asyncio.create_task(subject.get(0))
    await loads.gate.arrivals()
    rest = [asyncio.create_task(subject.get(key)) for key in (1, 2, 3)]
    await asyncio.sleep(0)
    loads.gate.open()
    assert await asyncio.gather(first, *rest) == [0, 2, 4, 6]
    assert loads.calls == [[0], [1, 2, 3]]


async def test_a_key_that_is_waiting_already_is_loaded_once_for_all(loads: Loads) -> None:
    subject = batcher(loads)
    assert await asyncio.gather(*(subject.get(7) for _ in range(100))) == [14] * 100
    assert loads.calls == [[7]]


async def test_a_key_is_never_answered_by_a_load_that_was_under_way_when_it_was_asked(loads: Loads) -> None:
    """A load sees everything that was written before its keys were asked for."""
    loads.gate.close()
    subject = batcher(loads, concurrency=2)
    first = asyncio.create_task(subject.get(7))
    await loads.gate.arrivals(1)
    second = asyncio.create_task(subject.get(7))
    await loads.gate.arrivals(2)
    assert loads.calls == [[7], [7]]
    loads.gate.open()
    assert (await first, await second) == (14, 14)


async def test_beyond_the_queue_a_key_is_refused_at_once_with_the_name_of_the_bound(loads: Loads) -> None:
    loads.gate.close()
    subject = batcher(loads, size=1, concurrency=1, queue=2)
    running = asyncio.create_task(subject.get(0))
    await loads.gate.arrivals()
    waiting = [asyncio.create_task(subject.get(key)) for key in (1, 2)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as refused:
        await subject.get(3)
    assert refused.value.metadata == {"limit": "test_loads"}
    same = asyncio.create_task(subject.get(2))  # waits already: it takes no place
    loads.gate.open()
    assert await asyncio.gather(running, *waiting, same) == [0, 2, 4, 4]


async def test_the_queue_has_room_again_once_its_keys_are_loaded(loads: Loads) -> None:
    subject = batcher(loads, size=1, concurrency=1, queue=1)
    for key in range(5):
        assert await subject.get(key) == key * 2


async def test_an_error_goes_to_every_waiter_of_its_load_and_to_no_other(loads: Loads) -> None:
    loads.failures = [StoreUnavailable()]
    subject = batcher(loads, size=2, concurrency=1)
    results = await asyncio.gather(*(subject.get(key) for key in range(4)), return_exceptions=True)
    assert [type(result) for result in results] == [StoreUnavailable, StoreUnavailable, int, int]


async def test_after_an_error_the_next_load_is_tried(loads: Loads) -> None:
    loads.failures = [StoreUnavailable()] * 3
    subject = batcher(loads, concurrency=1)
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await subject.get(1)
    assert await subject.get(1) == 2


async def test_a_load_that_answers_too_few_fails_everyone_instead_of_leaving_them_waiting() -> None:
    async def load(keys: Sequence[int]) -> list[int]:
        return list(keys)[:-1]

    subject: Batcher[int, int] = Batcher(load, size=10, concurrency=1, queue=10, limit="test_loads")
    async with asyncio.timeout(30):
        results = await asyncio.gather(*(subject.get(key) for key in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [ValueError] * 3


async def test_who_gives_up_takes_nothing_from_the_others(loads: Loads) -> None:
    loads.gate.close()
    subject = batcher(loads)
    impatient, patient = asyncio.create_task(subject.get(7)), asyncio.create_task(subject.get(7))
    await loads.gate.arrivals()
    impatient.cancel()
    loads.gate.open()
    assert await patient == 14
    assert impatient.cancelled()


async def test_who_gives_up_before_the_load_begins_takes_nothing_from_the_others(loads: Loads) -> None:
    subject = batcher(loads)
    impatient, patient = asyncio.create_task(subject.get(7)), asyncio.create_task(subject.get(7))
    asyncio.get_running_loop().call_soon(impatient.cancel)
    assert await patient == 14


async def test_a_failure_without_waiters_is_not_logged(loads: Loads) -> None:
    noise: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: noise.append(context))
    loads.gate.close()
    loads.failures = [StoreUnavailable()]
    subject = batcher(loads)
    asking = asyncio.create_task(subject.get(7))
    await loads.gate.arrivals()
    asking.cancel()
    await asyncio.wait([asking])
    loads.gate.open()
    await asyncio.gather(*subject._running)
    del asking, subject
    await asyncio.sleep(0)
    assert noise == []


async def test_draining_waits_for_running_and_queued_loads_without_waiters(loads: Loads) -> None:
    loads.gate.close()
    subject = batcher(loads, size=1, concurrency=1)
    asking = [asyncio.create_task(subject.get(key)) for key in (1, 2)]
    await loads.gate.arrivals()
    draining = asyncio.create_task(subject.drain())
    for task in asking:
        task.cancel()
    await asyncio.wait(asking)
    assert not draining.done()
    loads.gate.open()
    async with asyncio.timeout(30):
        await draining
    assert (loads.calls, loads.at_once) == ([[1], [2]], 0)


async def test_draining_what_has_nothing_to_do_is_done(loads: Loads) -> None:
    drained = asyncio.create_task(batcher(loads).drain())
    await asyncio.wait([drained], timeout=30)

    assert drained.done()
    assert drained.exception() is None


async def test_a_load_that_releases_lets_the_next_one_begin_and_no_more() -> None:
    gate, calls = Gate(), list[list[int]]()

    async def load(keys: Sequence[int]) -> Sequence[int]:
        calls.append(list(keys))
        if keys[0] == 1:
            for _ in range(3):  # once counts
                gathered.release()
        await gate.passing()
        return keys

    gathered: Batcher[int, int] = Batcher(load, size=10, concurrency=1, queue=10, limit="test_loads")
    gate.close()
    asked = []
    for number in (1, 2, 3, 4):
        asked.append(asyncio.create_task(gathered.get(number)))
        for _ in range(5):
            await asyncio.sleep(0)
    assert calls == [[1], [2]]
    gate.open()
    assert await asyncio.gather(*asked) == [1, 2, 3, 4]
    assert calls == [[1], [2], [3, 4]]
    # What was released is not given back once more: one at a time as before.
    gate.close()
    more = [asyncio.create_task(gathered.get(5))]
    await gate.arrivals()
    more.append(asyncio.create_task(gathered.get(6)))
    for _ in range(5):
        await asyncio.sleep(0)
    assert calls[3:] == [[5]]
    gate.open()
    await asyncio.gather(*more)


async def test_keys_count_by_their_weight_and_one_that_is_heavier_goes_alone(loads: Loads) -> None:
    subject = Batcher[int, int](loads, size=10, concurrency=1, queue=1000, limit="test_loads", weigh=lambda key: key)
    keys = (3, 4, 2, 5, 99, 1, 10)
    assert await asyncio.gather(*(subject.get(key) for key in keys)) == [key * 2 for key in keys]
    assert loads.calls == [[3, 4, 2], [5], [99], [1], [10]]
