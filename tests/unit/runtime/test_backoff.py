"""Waits grow to a bound, are spread, and start over after a success."""

import random

import pytest

from pointsman_server.runtime.backoff import Backoff


@pytest.fixture
def waits() -> list[float]:
    return []


def make(waits: list[float], first: float, most: float) -> Backoff:
    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    return Backoff(first, most, sleep=sleep)


async def test_waits_double_up_to_the_bound(monkeypatch: pytest.MonkeyPatch, waits: list[float]) -> None:
    monkeypatch.setattr(random, "uniform", lambda _low, high: high)
    backoff = make(waits, 1.0, 5.0)
    for _ in range(5):
        await backoff.wait()
    assert waits == [1, 2, 4, 5, 5]


async def test_a_success_starts_over(monkeypatch: pytest.MonkeyPatch, waits: list[float]) -> None:
    monkeypatch.setattr(random, "uniform", lambda _low, high: high)
    backoff = make(waits, 1.0, 5.0)
    await backoff.wait()
    await backoff.wait()
    backoff.reset()
    await backoff.wait()
    assert waits == [1, 2, 1]


async def test_each_wait_is_shortened_by_up_to_half(monkeypatch: pytest.MonkeyPatch, waits: list[float]) -> None:
    asked: list[tuple[float, float]] = []
    monkeypatch.setattr(random, "uniform", lambda low, high: asked.append((low, high)) or 0.75)
    await make(waits, 2.0, 5.0).wait()
    assert (waits, asked) == ([1.5], [(0.5, 1)])


async def test_the_defaults_are_a_tenth_of_a_second_and_five(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda _low, high: high)
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    backoff = Backoff(sleep=sleep)
    for _ in range(7):
        await backoff.wait()
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0])
