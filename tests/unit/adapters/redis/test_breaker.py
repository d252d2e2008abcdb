"""The breaker: closed, open, half-open."""

import pytest

from pointsman_server.adapters.redis.breaker import Breaker
from tests.support.fakes import ManualClock


@pytest.fixture
def now() -> ManualClock:
    return ManualClock()


@pytest.fixture
def breaker(now: ManualClock) -> Breaker:
    return Breaker(threshold=3, pause=10.0, now=now)


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        breaker.failed()


def test_it_begins_closed_and_allows_everything(breaker: Breaker) -> None:
    assert not breaker.is_open
    assert all(breaker.allows() for _ in range(10))


def test_it_stays_closed_below_the_threshold(breaker: Breaker) -> None:
    fail(breaker, 2)
    assert not breaker.is_open
    assert breaker.allows()


def test_it_opens_at_the_threshold_and_allows_nothing(breaker: Breaker) -> None:
    fail(breaker, 3)
    assert breaker.is_open
    assert not breaker.allows()


def test_only_failures_in_a_row_count(breaker: Breaker) -> None:
    for _ in range(5):
        fail(breaker, 2)
        breaker.succeeded()
    assert not breaker.is_open


def test_after_the_pause_it_lets_exactly_one_through(breaker: Breaker, now: ManualClock) -> None:
    fail(breaker, 3)
    now.advance(9.999)
    assert not breaker.allows()
    now.advance(0.001)
    assert [breaker.allows() for _ in range(3)] == [True, False, False]
    assert breaker.is_open


def test_when_the_one_succeeds_it_closes(breaker: Breaker, now: ManualClock) -> None:
    fail(breaker, 3)
    now.advance(10.0)
    assert breaker.allows()
    breaker.succeeded()
    assert not breaker.is_open
    assert breaker.allows()
    fail(breaker, 2)
    assert not breaker.is_open


def test_when_the_one_fails_it_waits_for_another_pause(breaker: Breaker, now: ManualClock) -> None:
    fail(breaker, 3)
    now.advance(10.0)
    assert breaker.allows()
    now.advance(5.0)
    breaker.failed()
    now.advance(9.999)
    assert not breaker.allows()
    now.advance(0.001)
    assert breaker.allows()


def test_when_the_one_never_reports_back_another_follows_after_the_pause(breaker: Breaker, now: ManualClock) -> None:
    fail(breaker, 3)
    now.advance(10.0)
    assert breaker.allows()
    now.advance(10.0)
    assert breaker.allows()


def test_by_default_it_opens_after_five_failures_and_waits_a_second() -> None:
    breaker = Breaker()
    fail(breaker, 4)
    assert breaker.allows()
    fail(breaker, 1)
    assert not breaker.allows()
    assert (breaker._threshold, breaker._pause) == (5, 1.0)
