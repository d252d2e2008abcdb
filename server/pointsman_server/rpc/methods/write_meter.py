"""Measures and counts writes, for all methods alike."""

import time
from collections.abc import Awaitable
from itertools import product
from typing import TypeVar

from pointsman_server.domain.errors import PointsmanError, RetryLater
from pointsman_server.telemetry.metrics import Metrics
from pointsman_server.telemetry.tracing import spans

ACTIONS = (
    "create",
    "update",
    "activate",
    "deactivate",
    "delete",
    "import",
    "commit",
    "revert",
    "set_traffic",
    "delete_traffic",
)
OUTCOMES = ("ok", "refused", "failed")

T = TypeVar("T")


class WriteMeter:
    """Measures writes by action, and counts them by action and outcome."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        for action, outcome in product(ACTIONS, OUTCOMES):
            # So that no failure shows as zero.
            metrics.writes.labels(action, outcome)

    async def measured(self, action: str, change: Awaitable[T]) -> T:
        """Carry out a write of ``ACTIONS``; raises what it raises."""
        outcome, begun = "failed", time.perf_counter()
        with spans.span(action):
            try:
                result = await change
                outcome = "ok"
            except PointsmanError as error:
                outcome = "failed" if isinstance(error, RetryLater) else "refused"
                raise
            else:
                return result
            finally:
                self._metrics.write_seconds.labels(action).observe(time.perf_counter() - begun, spans.exemplar())
                self._metrics.writes.labels(action, outcome).inc()
