from datetime import timedelta
from typing import Any

import pytest

from pointsman.errors import Unauthenticated
from pointsman.near_cache.statistics.counts import ReadCounts
from pointsman.near_cache.statistics.usage import INTERVAL_SECONDS, KEYS_IN_A_CALL, UsageReporter, requests
from pointsman.v1.usage_pb2 import ReportUsageRequest, ReportUsageResponse

KEY = "team-a/payments/prod/v1"


class Call:
    """A call that is done when it has a response or an error."""

    def __init__(self) -> None:
        self.response: ReportUsageResponse | None = None
        self.error: Exception | None = None

    def done(self) -> bool:
        return bool(self.response or self.error)

    def result(self, timeout: float | None = None) -> Any:
        if self.error:
            raise self.error
        return self.response


class Service:
    def __init__(self) -> None:
        self.calls: list[tuple[ReportUsageRequest, Call]] = []
        self.refused = False

    def metadata(self) -> tuple[tuple[str, str], ...]:
        if self.refused:
            raise Unauthenticated("no token")
        return ()

    def report_usage(self, request: ReportUsageRequest, metadata: Any) -> Call:
        self.calls.append((request, Call()))
        return self.calls[-1][1]


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def reads() -> ReadCounts:
    return ReadCounts()


def answer(seconds: float | None) -> ReportUsageResponse:
    response = ReportUsageResponse()
    if seconds is not None:
        response.interval.FromTimedelta(timedelta(seconds=seconds))
    return response


def test_reads_are_reported_at_intervals(service: Service, reads: ReadCounts) -> None:
    reporter = UsageReporter(reads, 0.0)
    reads.add(KEY, 3)
    reporter.beat(service, INTERVAL_SECONDS - 1)
    assert not service.calls
    reporter.beat(service, INTERVAL_SECONDS)
    reporter.beat(service, INTERVAL_SECONDS + 1)
    [(request, call)] = service.calls
    assert request == requests({KEY: 3})[0]
    call.response = answer(60.0)
    reads.add(KEY, 1)
    reporter.beat(service, INTERVAL_SECONDS + 2)
    reporter.beat(service, INTERVAL_SECONDS + 61)
    assert len(service.calls) == 1
    reporter.beat(service, INTERVAL_SECONDS + 62)
    assert len(service.calls) == 2


def test_a_server_that_does_not_count_is_not_told(service: Service, reads: ReadCounts) -> None:
    reporter = UsageReporter(reads, 0.0)
    reads.add(KEY, 3)
    reporter.beat(service, 10.0)
    service.calls[0][1].response = answer(None)
    reads.add(KEY, 3)
    reporter.beat(service, 100.0)
    reporter.finish(service)
    assert len(service.calls) == 1
    assert not reporter.wanted


def test_a_failure_is_not_repeated_at_once(service: Service, reads: ReadCounts) -> None:
    reporter = UsageReporter(reads, 0.0)
    reads.add(KEY, 3)
    reporter.beat(service, 10.0)
    service.calls[0][1].error = RuntimeError("away")
    reporter.beat(service, 11.0)
    service.refused = True
    reads.add(KEY, 3)
    reporter.beat(service, 30.0)
    assert len(service.calls) == 1
    service.refused = False
    reads.add(KEY, 4)
    reporter.beat(service, 50.0)
    assert service.calls[1][0].reads[0].count == 4


def test_a_child_has_no_calls_of_its_parent(service: Service, reads: ReadCounts) -> None:
    reporter = UsageReporter(reads, 0.0)
    reads.add(KEY, 3)
    reporter.beat(service, 10.0)
    reporter.after_fork()
    service.calls[0][1].response = answer(None)
    reporter.beat(service, 11.0)
    assert reporter.wanted


def test_the_rest_is_reported_at_the_end(service: Service, reads: ReadCounts) -> None:
    reporter = UsageReporter(reads, 0.0)
    reads.add(KEY, 3)
    reporter.finish(service)
    assert len(service.calls) == 1


def test_many_keys_are_several_calls() -> None:
    counts = {f"team-a/s-{number}/prod/v1": 1 for number in range(KEYS_IN_A_CALL + 1)}
    assert [len(each.reads) for each in requests(counts)] == [KEYS_IN_A_CALL, 1]
    assert requests({}) == []
