"""GCRA: which calls pass, how long to wait, and that the table is bounded."""

import asyncio
from collections.abc import Callable

import pytest

from pointsman_server.domain.access_errors import RateLimited
from pointsman_server.runtime.rate_limiter import Limiter, Limits, Pace, Rate
from tests.support.fakes import ManualClock

NS = 1_000_000_000


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1000)


def limiter(clock: ManualClock, per_second: float, burst_seconds: float = 1, size: int = 100) -> Limiter:
    return Limiter("tenant.writes", Rate(per_second, burst_seconds), size=size, now=lambda: round(clock() * NS))


def passes(take: Callable[[], None], most: int = 10_000) -> int:
    """Count how often it passes until it does not."""
    for number in range(most):
        try:
            take()
        except RateLimited:
            return number
    return most


def wait(limited: Limiter, subject: str = "a", cost: int = 1) -> float:
    with pytest.raises(RateLimited) as caught:
        limited.take(subject, cost)
    return caught.value.retry_delay


@pytest.mark.parametrize(
    ("per_second", "burst_seconds", "burst"),
    [(10, 1, 10), (10, 2.5, 25), (7, 1, 7), (3, 1, 3), (1 / 3, 9, 3), (999, 1, 999), (1, 1, 1)],
)
def test_a_burst_passes_at_once_and_not_one_more(clock, per_second, burst_seconds, burst):
    limited = limiter(clock, per_second, burst_seconds)

    assert passes(lambda: limited.take("a")) == burst


def test_in_the_long_run_the_rate_passes(clock):
    limited = limiter(clock, 10)
    passed = 0
    for _ in range(1000):
        passed += passes(lambda: limited.take("a"))
        clock.advance(0.05)

    assert passed == pytest.approx(10 + 10 * 50, abs=1)


def test_one_call_always_fits_however_low_the_rate(clock):
    limited = limiter(clock, 0.1)
    limited.take("a")

    assert wait(limited) == pytest.approx(10)


def test_the_wait_is_exactly_until_the_call_passes(clock):
    limited = limiter(clock, 4)
    passes(lambda: limited.take("a"))
    clock.advance(0.1)
    seconds = wait(limited)

    assert seconds == pytest.approx(0.15)
    clock.advance(seconds - 0.001)
    assert wait(limited) == pytest.approx(0.001)
    clock.advance(0.001)
    limited.take("a")


def test_a_refusal_costs_nothing(clock):
    limited = limiter(clock, 4)
    passes(lambda: limited.take("a"))

    assert [wait(limited) for _ in range(5)] == [0.25] * 5


def test_a_refusal_names_the_limit(clock):
    limited = limiter(clock, 1)
    limited.take("a")
    with pytest.raises(RateLimited) as caught:
        limited.take("a")

    assert caught.value.metadata == {"limit": "tenant.writes"}


def test_a_call_may_cost_more(clock):
    limited = limiter(clock, 10)
    limited.take("a", 7)
    limited.take("a", 3)

    assert wait(limited, cost=4) == pytest.approx(0.4)


def test_a_call_beyond_every_burst_passes_with_a_whole_one(clock):
    limited = limiter(clock, 10)
    limited.take("a", 1000)

    assert wait(limited, cost=1000) == pytest.approx(1)
    clock.advance(1)
    limited.take("a", 1000)


def test_what_is_given_back_can_be_taken_again(clock):
    limited = limiter(clock, 5)
    assert passes(lambda: limited.take("a")) == 5
    for _ in range(3):
        limited.give_back("a")

    assert passes(lambda: limited.take("a")) == 3


def test_nothing_can_be_given_back_beyond_what_was_taken(clock):
    limited = limiter(clock, 5)
    limited.give_back("a")
    limited.take("a")
    clock.advance(60)
    limited.give_back("a")

    assert passes(lambda: limited.take("a")) == 5


def test_subjects_do_not_take_from_each_other(clock):
    limited = limiter(clock, 5)
    passes(lambda: limited.take("a"))

    assert passes(lambda: limited.take("b")) == 5


class TestSeveralSubjects:
    def test_a_call_takes_from_all(self, clock):
        limited = limiter(clock, 10)
        limited.take_all({"a": 10, "b": 4})

        assert (wait(limited, "a"), passes(lambda: limited.take("b"))) == (pytest.approx(0.1), 6)

    def test_or_from_none(self, clock):
        limited = limiter(clock, 10)
        limited.take("b", 10)
        with pytest.raises(RateLimited) as caught:
            limited.take_all({"a": 5, "b": 3})

        assert caught.value.retry_delay == pytest.approx(0.3)
        assert passes(lambda: limited.take("a")) == 10

    def test_of_no_subject_it_costs_nothing(self, clock):
        limited = limiter(clock, 10)
        limited.take_all({})

        assert limited.subjects == 0


class TestTheTable:
    def test_idle_subjects_are_dropped(self, clock):
        limited = limiter(clock, 10)
        for number in range(50):
            limited.take(f"subject-{number}")
        clock.advance(1)
        for _ in range(50):
            limited.take("busy")
            clock.advance(0.1)

        assert limited.subjects == 1

    def test_a_flood_of_names_does_not_make_it_grow(self, clock):
        limited = limiter(clock, 10, size=100)
        sizes = set()
        for number in range(10_000):
            limited.take(f"subject-{number}")
            sizes.add(limited.subjects)

        assert max(sizes) == 100

    def test_a_flood_forgets_those_who_are_quiet_first(self, clock):
        limited = limiter(clock, 10, size=100)
        passes(lambda: limited.take("quiet"))
        for number in range(99):
            limited.take(f"subject-{number}")
        assert wait(limited, "quiet") > 0
        limited.take("one more")

        limited.take("quiet")

    def test_a_subject_over_its_rate_is_not_dropped_as_idle(self, clock):
        limited = limiter(clock, 10)
        passes(lambda: limited.take("a"))
        for number in range(50):
            clock.advance(0.0001)
            limited.take(f"subject-{number}")

        assert wait(limited, "a") > 0


async def test_a_pace_waits_as_long_as_a_limiter_would_say(clock, monkeypatch):
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)
        clock.advance(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    pace = Pace(Rate(10, burst_seconds=0.5), now=lambda: round(clock() * NS))
    for _ in range(5):
        await pace.take()
    assert waited == []
    await pace.take()
    await pace.take()
    assert waited == pytest.approx([0.1, 0.1])
    clock.advance(0.1)
    await pace.take()
    assert len(waited) == 2
    await pace.take(3)
    assert waited[2:] == pytest.approx([0.3])


def test_limits_are_made_from_rates_of_which_zero_is_none():
    limits = Limits.make("reads", identity=0, tenant=5, burst_seconds=2)

    assert limits.identity is None
    assert limits.tenant is not None
    assert (limits.tenant.name, limits.tenant.rate.window) == ("tenant.reads", 2 * NS)
    assert limits
    assert not Limits.make("reads", identity=0, tenant=0, burst_seconds=2)
