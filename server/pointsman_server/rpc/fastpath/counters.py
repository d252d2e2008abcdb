"""Counts what is answered on the short way (``rpc.warm``): plain numbers first, added to the metrics now and then.

Two histograms and six counters cost more than the answer itself. Numbers that only one thread touches cost a tenth.
"""

import asyncio
import time
from bisect import bisect_left
from collections.abc import Sequence

from prometheus_client import Histogram

from pointsman_server.telemetry.metrics import FAST, Metrics

SETTLE_SECONDS = 0.25
OUTCOMES = ("active", "inactive", "absent")


class Durations:
    """How often something took how long, by the buckets of ``FAST``, since it was last handed over."""

    def __init__(self) -> None:
        self.counts = [0] * (len(FAST) + 1)
        self.total = 0.0

    def add(self, seconds: float, times: int = 1) -> None:
        """Count one that took ``seconds``, or several that took as long together."""
        self.counts[bisect_left(FAST, seconds)] += times
        self.total += seconds * times

    def hand_over(self, *histograms: Histogram) -> int:
        """Add everything to histograms with these buckets, begin anew, and say how many it was."""
        counts, total = self.counts, self.total
        self.__init__()  # type: ignore[misc] # begins anew
        for histogram in histograms:
            add_to(histogram, counts, total)
        return sum(counts)


def add_to(histogram: Histogram, counts: Sequence[int], total: float) -> None:
    """Observe many at once, which prometheus_client has no method for: what ``Histogram.observe`` does, by number."""
    histogram._sum.inc(total)  # noqa: SLF001 - see above; a test compares it with observe
    for bucket, count in zip(histogram._buckets, counts, strict=True):  # noqa: SLF001
        if count:
            bucket.inc(count)


class FastPathCounters:
    """Counts Resolve and BatchResolve as the stage ``measure``, ``ResolveMeter`` and the resolver count them."""

    def __init__(self, metrics: Metrics, service: str) -> None:
        self._resolves = Durations()
        self._batches = Durations()
        self._keys = Durations()
        self._outcomes = [0, 0, 0]
        self._rpcs = {name: _Rpc(metrics, service, name) for name in ("Resolve", "BatchResolve")}
        self._seconds = metrics.resolve_seconds.labels("LOCAL")
        self._resolved = [metrics.resolves.labels(name) for name in OUTCOMES]
        self._hits = metrics.cache_lookups.labels("local", "hit")
        self._negative = metrics.cache_lookups.labels("local", "negative")
        self.waits = Waits(metrics, self._rpcs["Resolve"], service)

    def resolved(self, begun: float) -> None:
        """Count a Resolve that was answered with a route; it began at ``begun`` by ``time.perf_counter``."""
        self._resolves.add(time.perf_counter() - begun)

    def batch_resolved(self, outcomes: Sequence[int], begun: float) -> None:
        """Count a BatchResolve, with how many keys had each of ``OUTCOMES``."""
        seconds = time.perf_counter() - begun
        self._batches.add(seconds)
        self._keys.add(seconds, sum(outcomes))
        for place, count in enumerate(outcomes):
            self._outcomes[place] += count

    def settle(self) -> None:
        """Add everything to the metrics."""
        resolve, batch = self._rpcs["Resolve"], self._rpcs["BatchResolve"]
        resolved = self._resolves.hand_over(resolve.seconds, self._seconds)
        resolve.count(resolved)
        batch.count(self._batches.hand_over(batch.seconds))
        self._keys.hand_over(self._seconds)
        self._outcomes[0] += resolved
        active, inactive, absent = self._outcomes
        for counter, count in zip(self._resolved, self._outcomes, strict=True):
            counter.inc(count)
        self._hits.inc(active + inactive)
        self._negative.inc(absent)
        self._outcomes = [0, 0, 0]
        self.waits.settle()

    async def run(self) -> None:
        """Settle again and again, for ever."""
        while True:
            await asyncio.sleep(SETTLE_SECONDS)
            self.settle()


class _Rpc:
    """The metrics of one method, for calls that ended well."""

    def __init__(self, metrics: Metrics, service: str, name: str) -> None:
        labels = ("unary", service, name)
        self.seconds = metrics.rpc_seconds.labels(*labels)
        self._beginning = (metrics.rpc_started.labels(*labels), metrics.rpc_received.labels(*labels))
        self._end = (metrics.rpc_sent.labels(*labels), metrics.rpc_handled.labels(*labels, "OK"))

    def count(self, calls: int) -> None:
        """Count calls."""
        self.count_begun(calls)
        self.count_ended(calls)

    def count_begun(self, calls: int) -> None:
        """Count calls whose end is counted apart."""
        for counter in self._beginning:
            counter.inc(calls)

    def count_ended(self, calls: int) -> None:
        """Count calls whose beginning was counted."""
        for counter in self._end:
            counter.inc(calls)


class Waits:
    """Counts the Resolves that wait for a load (``rpc.cold``), as the same three count them."""

    def __init__(self, metrics: Metrics, rpc: _Rpc, service: str) -> None:
        self._rpc = rpc
        self._begun = self._missed = 0
        self._answered = {source: Durations() for source in ("LOCAL", "REDIS", "POSTGRES")}
        self._seconds = {source: metrics.resolve_seconds.labels(source) for source in self._answered}
        self._resolved = {name: metrics.resolves.labels(name) for name in (*OUTCOMES, "failed")}
        self._misses = metrics.cache_lookups.labels("local", "miss")
        self._handled = metrics.rpc_handled
        self._labels = ("unary", service, "Resolve")

    def began(self, *, looked: bool) -> None:
        """Count a call that begins; ``looked``: into the local cache, in vain."""
        self._begun += 1
        self._missed += looked

    def answered(self, source: str, begun: float) -> None:
        """Count a call that was answered with a route; it began at ``begun`` by ``time.perf_counter``."""
        self._answered[source].add(time.perf_counter() - begun)

    def resolved(self, outcome: str, source: str, begun: float) -> None:
        """Count a key whose ``outcome`` is a refusal, found out by ``source``."""
        self._resolved[outcome].inc()
        self._seconds[source].observe(time.perf_counter() - begun)

    def failed(self) -> None:
        """Count a key that could not be resolved."""
        self._resolved["failed"].inc()

    def refused(self, code: str, begun: float) -> None:
        """Count a call that ended with another code than OK."""
        self._rpc.seconds.observe(time.perf_counter() - begun)
        self._handled.labels(*self._labels, code).inc()

    def settle(self) -> None:
        """Add everything to the metrics."""
        self._rpc.count_begun(self._begun)
        self._misses.inc(self._missed)
        self._begun = self._missed = 0
        for source, durations in self._answered.items():
            answered = durations.hand_over(self._rpc.seconds, self._seconds[source])
            self._rpc.count_ended(answered)
            self._resolved["active"].inc(answered)
