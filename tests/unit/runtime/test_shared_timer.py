"""Many things that may take the same time each."""

import asyncio

import pytest

from pointsman_server.runtime import shared_timer
from pointsman_server.runtime.shared_timer import SharedTimer


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(shared_timer, "time", clock)
    return clock


async def test_what_is_not_removed_expires() -> None:
    expired: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    timer = SharedTimer(0.001, expired.set_result)
    timer.add("a")

    assert await asyncio.wait_for(expired, 10) == "a"


async def test_what_is_removed_does_not_expire(clock: Clock) -> None:
    expired: list[str] = []
    timer = SharedTimer(1, expired.append)
    timer.add("a")
    timer.add("b")
    timer.remove("a")
    timer.remove("a")
    clock.now += 1
    timer._look()

    assert expired == ["b"]


async def test_items_expire_in_turn_each_at_its_own_time(clock: Clock) -> None:
    expired: list[str] = []
    timer = SharedTimer(1, expired.append)
    timer.add("a")
    clock.now += 0.6
    timer.add("b")
    clock.now += 0.5
    timer._look()
    assert expired == ["a"]
    clock.now += 0.4
    timer._look()
    assert expired == ["a"]
    clock.now += 0.2
    timer._look()

    assert expired == ["a", "b"]


async def test_an_item_may_be_added_when_another_expires() -> None:
    loop = asyncio.get_running_loop()
    again: asyncio.Future[None] = loop.create_future()
    expired: list[int] = []

    def expire(number: int) -> None:
        expired.append(number)
        if number == 1:
            timer.add(2)
        else:
            again.set_result(None)

    timer = SharedTimer(0.001, expire)
    timer.add(1)
    await asyncio.wait_for(again, 10)

    assert expired == [1, 2]
