"""Selections of the fast path reach the metrics with the next flush, and once."""

import time

import pytest

from pointsman_server.rpc import SERVICE
from pointsman_server.rpc.fastpath.counters import FastPathCounters
from pointsman_server.rpc.selections import OUTCOMES
from pointsman_server.telemetry.metrics import Metrics


class Fixture:
    def __init__(self) -> None:
        self.metrics = Metrics()
        self.all = FastPathCounters(self.metrics, SERVICE)
        self.counters = self.all.selects

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    def rpcs(self, method: str) -> tuple[float, ...]:
        labels = {"grpc_type": "unary", "grpc_service": SERVICE, "grpc_method": method}
        names = ("started_total", "msg_received_total", "msg_sent_total", "handling_seconds_count")
        ok = self.value("grpc_server_handled_total", **labels, grpc_code="OK")
        return (*(self.value(f"grpc_server_{name}", **labels) for name in names), ok)

    def selects(self) -> dict[str, float]:
        found = {outcome: self.value("pointsman_select_requests_total", outcome=outcome) for outcome in OUTCOMES}
        return {outcome: count for outcome, count in found.items() if count}

    def seconds(self, source: str) -> float:
        return self.value("pointsman_select_seconds_count", source=source)

    def lookups(self, outcome: str) -> float:
        return self.value("pointsman_cache_lookups_total", layer="local", outcome=outcome)


@pytest.fixture
def fixture() -> Fixture:
    return Fixture()


def test_local_answers_are_added_by_the_next_flush_and_once(fixture: Fixture) -> None:
    begun = time.perf_counter()
    for outcome in (0, 0, 2):
        fixture.counters.selected_locally(outcome, begun)
    assert fixture.rpcs("Select") == (0, 0, 0, 0, 0)
    for _ in range(2):
        fixture.all.flush()
        assert fixture.rpcs("Select") == (3, 3, 3, 3, 3)
        assert fixture.selects() == {"split": 2, "only_active": 1}
        assert (fixture.seconds("LOCAL"), fixture.lookups("hit")) == (3, 3)
    assert fixture.rpcs("BatchSelect") == fixture.rpcs("Resolve") == (0, 0, 0, 0, 0)


def test_a_call_that_waited_is_counted_at_its_start_and_at_its_end(fixture: Fixture) -> None:
    begun = time.perf_counter()
    fixture.all.began("Select", "miss")
    fixture.all.flush()
    assert fixture.rpcs("Select") == (1, 1, 0, 0, 0)
    fixture.counters.answered(1, "REDIS", begun)
    for _ in range(2):
        fixture.all.flush()
        assert fixture.rpcs("Select") == (1, 1, 1, 1, 1)
    assert fixture.selects() == {"fallback": 1}
    assert (fixture.seconds("REDIS"), fixture.lookups("hit"), fixture.lookups("miss")) == (1, 0, 1)


def test_what_chose_nothing_or_failed_is_counted(fixture: Fixture) -> None:
    fixture.counters.undecided(3, "POSTGRES", time.perf_counter())
    fixture.counters.failed()
    fixture.all.flush()
    assert fixture.selects() == {"ambiguous": 1, "failed": 1}
    assert fixture.seconds("POSTGRES") == 1
    assert fixture.rpcs("Select") == (0, 0, 0, 0, 0)


def test_a_batch_counts_each_selection_and_each_family_that_was_looked_up(fixture: Fixture) -> None:
    fixture.counters.batch_selected([5, 0, 1, 0, 2, 0], [2, 1], time.perf_counter())
    for _ in range(2):
        fixture.all.flush()
        assert fixture.rpcs("BatchSelect") == (1, 1, 1, 1, 1)
        assert fixture.selects() == {"split": 5, "only_active": 1, "absent": 2}
        assert (fixture.seconds("LOCAL"), fixture.lookups("hit"), fixture.lookups("negative")) == (8, 2, 1)
