"""What the quota sends to Redis, and how it takes replies and failures."""

import asyncio
from typing import Any, cast

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from pointsman_server.adapters.redis.breaker import Breaker
from pointsman_server.adapters.redis.connections import Call
from pointsman_server.adapters.redis.quota import RedisQuota
from pointsman_server.domain.access_errors import RateLimited
from pointsman_server.ports.quota import QuotaUnavailable, Taking
from tests.support.fakes import ManualClock

TAKINGS = [Taking("reads", "ann", 5_000_999, 60_000_000_999), Taking("writes", "bob", 1, 0)]


class FakeConnections:
    """Records what it is given; replies with ``reply``, or raises it, ``delay`` seconds later."""

    def __init__(self) -> None:
        self.given: list[tuple[list[str], list[int]]] = []
        self.reply: Any = [0, 0]
        self.delay = 0.0

    async def run(self, call: Call) -> Any:
        self.given.append((list(call.keys), [cast("int", argument) for argument in call.args]))
        await asyncio.sleep(self.delay)
        if isinstance(self.reply, Exception):
            raise self.reply
        return self.reply


def make_quota(**options: Any) -> tuple[RedisQuota, FakeConnections]:
    quota, script = RedisQuota("redis://redis.internal", **options), FakeConnections()
    quota._scripts.nodes.node_of(()).connections = script  # type: ignore[assignment]
    return quota, script


async def test_debts_and_windows_are_sent_in_whole_microseconds_of_at_least_one() -> None:
    quota, script = make_quota(timeout=5.0)
    await quota.take(TAKINGS)
    assert script.given == [
        (["pointsman:quota:reads:ann", "pointsman:quota:writes:bob"], [5000, 60_000_000, 1, 1]),
    ]
    assert all(isinstance(argument, int) for argument in script.given[0][1])


async def test_the_prefix_begins_every_name() -> None:
    quota, script = make_quota(prefix="mine", timeout=5.0)
    await quota.take(TAKINGS[:1])
    assert script.given[0][0] == ["mine:quota:reads:ann"]


async def test_a_wait_is_reported_in_seconds_with_its_limit() -> None:
    quota, script = make_quota(timeout=5.0)
    script.reply = [b"2500000", b"2"]
    with pytest.raises(RateLimited) as caught:
        await quota.take(TAKINGS)
    assert caught.value.retry_delay == 2.5
    assert caught.value.metadata == {"limit": "writes"}


async def test_nothing_to_take_sends_nothing() -> None:
    quota, script = make_quota()
    await quota.take([])
    assert script.given == []


@pytest.mark.parametrize("error", [RedisConnectionError("lost"), OSError("lost"), TimeoutError()])
async def test_a_failure_is_counted_and_raised(error: Exception) -> None:
    failures: list[None] = []
    quota, script = make_quota(timeout=5.0, failed=lambda: failures.append(None))
    script.reply = error
    with pytest.raises(QuotaUnavailable) as caught:
        await quota.take(TAKINGS)
    assert caught.value.__cause__ is error
    assert len(failures) == 1


async def test_a_reply_is_awaited_for_the_timeout_and_no_longer() -> None:
    quota, script = make_quota(timeout=0.02)
    script.delay = 3600
    with pytest.raises(QuotaUnavailable):
        await asyncio.wait_for(quota.take(TAKINGS), 10)


async def test_the_breaker_opens_after_failures_in_a_row_and_closes_after_a_success() -> None:
    now = ManualClock()
    quota, script = make_quota(timeout=5.0, breaker=lambda: Breaker(threshold=2, pause=10.0, now=now))
    script.reply = RedisConnectionError("lost")
    for _ in range(4):
        with pytest.raises(QuotaUnavailable):
            await quota.take(TAKINGS)
    assert len(script.given) == 2
    now.advance(10.0)
    script.reply = [0, 0]
    await quota.take(TAKINGS)
    await quota.take(TAKINGS)
    assert len(script.given) == 4


async def test_a_success_ends_a_row_of_failures() -> None:
    quota, script = make_quota(timeout=5.0, breaker=lambda: Breaker(threshold=2, pause=1e9, now=ManualClock()))
    for reply in (RedisConnectionError("lost"), [0, 0], RedisConnectionError("lost")):
        script.reply = reply
        if isinstance(reply, Exception):
            with pytest.raises(QuotaUnavailable):
                await quota.take(TAKINGS)
        else:
            await quota.take(TAKINGS)
    script.reply = [0, 0]
    await quota.take(TAKINGS)
    assert len(script.given) == 4


def test_the_defaults() -> None:
    quota = RedisQuota("redis://redis.internal")
    assert (quota._head, quota._scripts._timeout) == ("pointsman:quota", 0.05)


async def test_close_closes_the_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    quota, _ = make_quota()
    closed: list[None] = []

    async def close() -> None:
        closed.append(None)

    monkeypatch.setattr(quota._scripts.nodes, "close", close)
    await quota.close()
    assert len(closed) == 1
