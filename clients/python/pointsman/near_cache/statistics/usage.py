"""Says to servers how often this near-cache has answered by itself, so that they know who still reads a route."""

import logging
from collections.abc import Mapping
from typing import Any, Protocol

from pointsman.errors import PointsmanError
from pointsman.near_cache.statistics.counts import ReadCounts
from pointsman.near_cache.watch.follower import Metadata
from pointsman.v1.route_pb2 import RouteKey
from pointsman.v1.usage_pb2 import ReportUsageRequest

INTERVAL_SECONDS = 10.0
"""Between two reports, until the server has said another interval."""
LAST_REPORT_SECONDS = 1.0
KEYS_IN_A_CALL = 1000

_LOG = logging.getLogger(__name__)


class Service(Protocol):
    """What a reporter calls."""

    def metadata(self) -> Metadata: ...

    def report_usage(self, request: ReportUsageRequest, metadata: Metadata) -> Any: ...


class UsageReporter:
    """Reports reads every few seconds. Best effort: a report that fails is not repeated."""

    def __init__(self, counts: ReadCounts, now: float) -> None:
        self._counts = counts
        self._calls: list[Any] = []
        self._next_at = now + INTERVAL_SECONDS
        self.wanted = True
        """False once a server has said that it does not count reads."""

    def beat(self, service: Service, now: float) -> None:
        """Report if it is time. Does not wait."""
        self._collect(now)
        if self.wanted and now >= self._next_at:
            self._next_at = now + INTERVAL_SECONDS
            self._begin(service)

    def after_fork(self) -> None:
        """Forget the calls of the parent: threads that are not here may hold their locks."""
        self._calls = []

    def finish(self, service: Service) -> None:
        """Report what has not been reported, and wait for that a little."""
        if not self.wanted:
            return
        self._begin(service)
        for call in self._calls:
            try:
                call.result(LAST_REPORT_SECONDS)
            except Exception as error:  # noqa: BLE001 - whatever it is, this is the end
                _LOG.debug("usage was not reported: %s", error)
                break

    def _begin(self, service: Service) -> None:
        reads = self._counts.take()
        try:
            self._calls += [service.report_usage(request, service.metadata()) for request in requests(reads)]
        except PointsmanError as error:
            _LOG.debug("usage was not reported: %s", error)

    def _collect(self, now: float) -> None:
        for call in [call for call in self._calls if call.done()]:
            self._calls.remove(call)
            try:
                response = call.result()
            except Exception as error:  # noqa: BLE001 - a call that was cancelled, for example by a fork, too
                _LOG.debug("usage was not reported: %s", error)
                continue
            self.wanted = response.HasField("interval")
            self._next_at = max(self._next_at, now + response.interval.ToTimedelta().total_seconds())


def requests(reads: Mapping[str, int]) -> list[ReportUsageRequest]:
    """Return the requests that report reads."""
    every = []
    for key, count in reads.items():
        tenant, service, env, version = key.split("/")
        name = RouteKey(tenant=tenant, service=service, env=env, version=version)
        every.append(ReportUsageRequest.Read(key=name, count=count))
    return [
        ReportUsageRequest(reads=every[start : start + KEYS_IN_A_CALL])
        for start in range(0, len(every), KEYS_IN_A_CALL)
    ]
