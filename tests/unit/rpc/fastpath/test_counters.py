"""What the fast path counts reaches the metrics with the next flush, and once."""

import asyncio
import time

import pytest

from pointsman_server.rpc import SERVICE
from pointsman_server.rpc.fastpath import counters as module
from pointsman_server.rpc.fastpath.counters import FastPathCounters
from pointsman_server.telemetry.metrics import Metrics


class Fixture:
    def __init__(self) -> None:
        self.metrics = Metrics()
        self.counters = FastPathCounters(self.metrics, SERVICE)

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    def rpc(self, name: str, method: str, **more: str) -> float:
        return self.value(f"grpc_server_{name}", grpc_type="unary", grpc_service=SERVICE, grpc_method=method, **more)

    def rpcs(self, method: str) -> tuple[float, ...]:
        names = ("started_total", "msg_received_total", "msg_sent_total", "handling_seconds_count")
        return (*(self.rpc(name, method) for name in names), self.rpc("handled_total", method, grpc_code="OK"))

    def lookups(self) -> dict[str, float]:
        return {
            outcome: self.value("pointsman_cache_lookups_total", layer="local", outcome=outcome)
            for outcome in module.LOOKUPS
        }

    def resolves(self) -> dict[str, float]:
        return {
            outcome: self.value("pointsman_resolve_requests_total", outcome=outcome)
            for outcome in (*module.OUTCOMES, "failed")
        }


@pytest.fixture
def fixture() -> Fixture:
    return Fixture()


def test_local_answers_are_added_by_the_next_flush_and_once(fixture: Fixture) -> None:
    for _ in range(3):
        fixture.counters.resolved_locally(time.perf_counter() - 0.5)
    assert fixture.rpcs("Resolve") == (0, 0, 0, 0, 0)
    for _ in range(2):
        fixture.counters.flush()
        assert fixture.rpcs("Resolve") == (3, 3, 3, 3, 3)
        assert fixture.lookups() == {"hit": 3, "negative": 0, "stale": 0, "miss": 0}
        assert fixture.resolves() == {"active": 3, "inactive": 0, "absent": 0, "failed": 0}
        assert 1.5 <= fixture.rpc("handling_seconds_sum", "Resolve") < 60
    assert fixture.rpcs("BatchResolve") == (0, 0, 0, 0, 0)


def test_a_call_that_waited_is_counted_at_its_start_and_at_its_end(fixture: Fixture) -> None:
    fixture.counters.began("Resolve", "miss")
    fixture.counters.began("Resolve")
    fixture.counters.flush()
    assert fixture.rpcs("Resolve") == (2, 2, 0, 0, 0)
    assert fixture.lookups() == {"hit": 0, "negative": 0, "stale": 0, "miss": 1}

    fixture.counters.answered("POSTGRES", time.perf_counter())
    fixture.counters.flush()
    assert fixture.rpcs("Resolve") == (2, 2, 1, 1, 1)
    assert fixture.resolves()["active"] == 1


def test_a_batch_is_one_call_and_one_resolve_for_each_key(fixture: Fixture) -> None:
    fixture.counters.batch_resolved([4, 2, 1], time.perf_counter())
    for _ in range(2):
        fixture.counters.flush()
        assert fixture.rpcs("BatchResolve") == (1, 1, 1, 1, 1)
        assert fixture.resolves() == {"active": 4, "inactive": 2, "absent": 1, "failed": 0}
        assert fixture.lookups() == {"hit": 6, "negative": 1, "stale": 0, "miss": 0}


def test_refused_and_failed_calls_are_counted_at_once_by_their_code(fixture: Fixture) -> None:
    fixture.counters.resolved("absent", "REDIS", time.perf_counter())
    fixture.counters.failed()
    fixture.counters.refused("Resolve", "NotFound", time.perf_counter())
    assert fixture.resolves() == {"active": 0, "inactive": 0, "absent": 1, "failed": 1}
    assert fixture.rpc("handled_total", "Resolve", grpc_code="NotFound") == 1
    assert fixture.rpcs("Resolve") == (0, 0, 0, 1, 0)


async def test_it_flushes_by_itself(fixture: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLUSH_SECONDS", 0)
    running = asyncio.create_task(fixture.counters.run())
    fixture.counters.began("Resolve")
    async with asyncio.timeout(30):
        while not fixture.rpc("started_total", "Resolve"):  # noqa: ASYNC110 - iterations of the loop are what passes
            await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
