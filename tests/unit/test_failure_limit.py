"""Bad credentials per host: so many at once, so many a second, and a table that does not grow without end."""

import pytest

from pointsman_server.failure_limit import FailureLimit
from tests.support.fakes import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def fail_while_allowed(limit: FailureLimit, peer: str, tries: int) -> int:
    """Say how many of ``tries`` are checked, all of which turn out bad."""
    checked = 0
    for _ in range(tries):
        if limit.allowed(peer):
            limit.failed(peer)
            checked += 1
    return checked


def test_a_burst_of_a_second_is_checked_and_then_as_many_a_second(clock: ManualClock) -> None:
    limit = FailureLimit(20, now=clock)
    assert fail_while_allowed(limit, "a", 1000) == 20

    checked = 0
    for _ in range(1000):
        clock.advance(0.01)
        checked += fail_while_allowed(limit, "a", 10)
    assert checked == pytest.approx(200, abs=1)


def test_after_a_quiet_second_the_burst_is_there_again_and_never_more(clock: ManualClock) -> None:
    limit = FailureLimit(20, now=clock)
    fail_while_allowed(limit, "a", 1000)
    clock.advance(3600)

    assert fail_while_allowed(limit, "a", 1000) == 20


def test_what_is_good_costs_nothing(clock: ManualClock) -> None:
    limit = FailureLimit(1, now=clock)

    assert all(limit.allowed("a") for _ in range(1000))


@pytest.mark.parametrize("rate", [0.1, 0.5, 1, 1.5, 20, 100_000])
def test_at_any_rate_one_failure_is_checked_at_first(clock: ManualClock, rate: float) -> None:
    assert fail_while_allowed(FailureLimit(rate, now=clock), "a", 1) == 1


def test_hosts_do_not_pay_for_each_other(clock: ManualClock) -> None:
    limit = FailureLimit(5, now=clock)
    fail_while_allowed(limit, "a", 1000)

    assert not limit.allowed("a")
    assert limit.allowed("b")


def test_the_table_keeps_those_that_failed_last(clock: ManualClock) -> None:
    limit = FailureLimit(1, most_peers=2, now=clock)
    for peer in ("a", "b", "a", "c"):
        limit.failed(peer)

    assert [limit.allowed(peer) for peer in "abc"] == [False, True, False]
