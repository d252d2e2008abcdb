"""Counts the calls of the fast path: in plain numbers first, which are added to the metrics a few times a second.

Two histograms and six counters cost more than an answer from the local cache. Numbers that only one thread changes cost
a tenth of that.
"""

import asyncio
import time
from collections.abc import Sequence

from pointsman_server.rpc.fastpath.method_counters import MethodCounters, RpcCounters, SelectCounters
from pointsman_server.telemetry.metrics import Metrics

FLUSH_SECONDS = 0.25
OUTCOMES = ("active", "inactive", "absent")
METHODS = ("Resolve", "BatchResolve", "Select", "BatchSelect")
LOOKUPS = ("hit", "negative", "stale", "miss")


class FastPathCounters(MethodCounters):
    """Counts as the interceptor chain, ``ResolveMeter`` and the resolver do. ``selects`` counts what is selected."""

    def __init__(self, metrics: Metrics, service: str) -> None:
        self._rpcs = {method: RpcCounters(metrics, service, method) for method in METHODS}
        super().__init__(metrics.resolve_seconds, self._rpcs["Resolve"], self._rpcs["BatchResolve"])
        self.selects = SelectCounters(metrics, self._rpcs["Select"], self._rpcs["BatchSelect"])
        self._hits = 0
        self._batch_outcomes = [0, 0, 0]
        self._began = {(method, lookup): 0 for method in METHODS for lookup in ("", *LOOKUPS)}
        self._resolved = {outcome: metrics.resolves.labels(outcome) for outcome in (*OUTCOMES, "failed")}
        self._lookups = {lookup: metrics.cache_lookups.labels("local", lookup) for lookup in LOOKUPS}

    def resolved_locally(self, begun: float) -> None:
        """Count a Resolve that the local cache answered with a route."""
        self._local(time.perf_counter() - begun)
        self._hits += 1

    def batch_resolved(self, outcomes: Sequence[int], begun: float) -> None:
        """Count a BatchResolve that was answered, with how many keys had each of ``OUTCOMES``."""
        seconds = time.perf_counter() - begun
        self._batches.observe(seconds)
        self._batch_items.observe(seconds, sum(outcomes))
        for place, count in enumerate(outcomes):
            self._batch_outcomes[place] += count

    def began(self, method: str, lookup: str = "") -> None:
        """Count the start of a call whose end is counted later, and its lookup in the local cache, if there was one."""
        self._began[method, lookup] += 1

    def answered(self, source: str, begun: float) -> None:
        """Count the end of a Resolve that ``source`` answered with a route."""
        self._answers[source].observe(time.perf_counter() - begun)

    def resolved(self, outcome: str, source: str, begun: float) -> None:
        """Count a key that ``source`` knows as inactive or absent."""
        self._resolved[outcome].inc()
        self._seconds[source].observe(time.perf_counter() - begun)

    def failed(self) -> None:
        """Count a key that could not be resolved."""
        self._resolved["failed"].inc()

    def refused(self, method: str, code: str, begun: float) -> None:
        """Count the end of a call with another code than OK."""
        self._rpcs[method].refused(code, time.perf_counter() - begun)

    def flush(self) -> None:
        """Add everything to the metrics."""
        self._flush_resolves()
        self.selects.flush()
        for (method, lookup), count in self._began.items():
            if count:
                self._rpcs[method].began(count)
                if lookup:
                    self._lookups[lookup].inc(count)
                self._began[method, lookup] = 0

    async def run(self) -> None:
        """Flush several times a second."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            self.flush()

    def _flush_resolves(self) -> None:
        active, inactive, absent = self._batch_outcomes
        self._lookups["hit"].inc(self._hits + active + inactive)
        self._lookups["negative"].inc(absent)
        active += self._flush_durations(self._hits)
        for outcome, count in zip(OUTCOMES, (active, inactive, absent), strict=True):
            self._resolved[outcome].inc(count)
        self._hits, self._batch_outcomes = 0, [0, 0, 0]
