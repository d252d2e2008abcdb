"""``ports.SharedQuota`` on real Redis. Its clock cannot be set, so rates are slow and debts large."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import redis

from pointsman_server.adapters.redis.breaker import Breaker
from pointsman_server.adapters.redis.quota import RedisQuota
from pointsman_server.domain.access_errors import RateLimited
from pointsman_server.ports.quota import QuotaUnavailable, Taking
from pointsman_server.runtime.rate_limiter import Rate

# Ten an hour: no debt is paid while a test runs.
SLOW = Rate(10 / 3600, 3600)


def taking(subject: str = "a", cost: int = 1, limit: str = "tenant.writes", rate: Rate = SLOW) -> Taking:
    return Taking(limit, subject, rate.debt(cost), rate.window)


@pytest.fixture(params=["redis", "cluster"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
async def quota(url: str) -> AsyncIterator[RedisQuota]:
    quota = RedisQuota(url, prefix="pointsman", timeout=5)
    yield quota
    await quota.close()


@pytest.fixture
async def another(url: str) -> AsyncIterator[RedisQuota]:
    quota = RedisQuota(url, prefix="pointsman", timeout=5)
    yield quota
    await quota.close()


async def refusal(quota: RedisQuota, *takings: Taking) -> RateLimited:
    with pytest.raises(RateLimited) as caught:
        await quota.take(takings)
    return caught.value


async def test_a_burst_passes_and_not_one_more(quota):
    for _ in range(10):
        await quota.take([taking()])
    error = await refusal(quota, taking())

    assert error.metadata == {"limit": "tenant.writes"}
    assert error.retry_delay == pytest.approx(360, abs=30)


async def test_servers_count_together(quota, another):
    passed = 0
    for asked in [quota, another] * 10:
        try:
            await asked.take([taking()])
        except RateLimited:
            continue
        passed += 1

    assert passed == 10


async def test_concurrent_calls_pass_no_more_than_the_burst(quota, another):
    asked = [server.take([taking()]) for server in (quota, another) for _ in range(30)]
    results = await asyncio.gather(*asked, return_exceptions=True)

    assert results.count(None) == 10
    assert all(result is None or isinstance(result, RateLimited) for result in results)


async def test_a_call_takes_from_all_or_from_none(quota):
    await quota.take([taking("b", 10)])
    error = await refusal(quota, taking("a", 5, "identity.writes"), taking("b", 1))
    assert error.metadata == {"limit": "tenant.writes"}

    await quota.take([taking("a", 10, "identity.writes")])


async def test_the_longest_wait_is_reported(quota):
    await quota.take([taking("a", 10, "identity.writes"), taking("b", 10)])
    error = await refusal(quota, taking("a", 2, "identity.writes"), taking("b", 1))

    assert error.metadata == {"limit": "identity.writes"}
    assert error.retry_delay == pytest.approx(720, abs=30)


async def test_a_refusal_costs_nothing(quota):
    await quota.take([taking("a", 10)])
    waits = [(await refusal(quota, taking())).retry_delay for _ in range(5)]

    assert waits == sorted(waits, reverse=True)


async def test_a_call_after_the_reported_wait_passes(quota):
    fast = Rate(20, 0.05)
    await quota.take([taking(rate=fast)])
    refused = 0
    for _ in range(5):
        try:
            await quota.take([taking(rate=fast)])
        except RateLimited as error:
            refused += 1
            await asyncio.sleep(error.retry_delay)
            await quota.take([taking(rate=fast)])
    assert refused


async def test_subjects_and_limits_are_counted_separately(quota):
    await quota.take([taking("a", 10)])

    await quota.take([taking("b", 10)])
    await quota.take([taking("a", 10, "identity.writes")])
    with pytest.raises(RateLimited):
        await quota.take([taking("a", 10)])


async def test_a_debt_expires_when_it_is_paid(redis_url):
    quota = RedisQuota(redis_url, prefix="pointsman", timeout=5)
    await quota.take([taking("a", 5)])
    await quota.close()
    with redis.Redis.from_url(redis_url) as client:
        (name,) = client.keys("*")
        seconds = client.pttl(name) / 1000

    assert name == b"pointsman:quota:tenant.writes:a"
    assert seconds == pytest.approx(1800, abs=30)


async def test_taking_nothing_sends_nothing(redis_url):
    quota = RedisQuota(redis_url, timeout=5)
    await quota.take([])
    await quota.close()
    with redis.Redis.from_url(redis_url) as client:
        assert client.keys("*") == []


async def test_without_redis_it_fails_and_the_breaker_opens():
    failures: list[None] = []
    breaker = Breaker(threshold=2, pause=3600)
    quota = RedisQuota(
        "redis://127.0.0.1:1/0", timeout=5, breaker=lambda: breaker, failed=lambda: failures.append(None)
    )
    for _ in range(5):
        with pytest.raises(QuotaUnavailable):
            await quota.take([taking()])

    assert len(failures) == 2
    await quota.close()
