"""Counts the answers of one method of the fast path: in plain numbers first, as ``counters`` does."""

import time
from collections.abc import Sequence

from pointsman_server.rpc.selections import OUTCOMES
from pointsman_server.telemetry.histogram import Durations, Histogram
from pointsman_server.telemetry.metrics import FAST, Metrics

SOURCES = ("LOCAL", "REDIS", "POSTGRES")


class RpcCounters:
    """The metrics of one method."""

    def __init__(self, metrics: Metrics, service: str, name: str) -> None:
        labels = ("unary", service, name)
        self._seconds = metrics.rpc_seconds.labels(*labels)
        self._started, self._received = metrics.rpc_started.labels(*labels), metrics.rpc_received.labels(*labels)
        self._sent, self._handled = metrics.rpc_sent.labels(*labels), metrics.rpc_handled
        self._ok = self._handled.labels(*labels, "OK")
        self._labels = labels

    def began(self, calls: int) -> None:
        self._started.inc(calls)
        self._received.inc(calls)

    def answered(self, durations: Durations) -> int:
        calls = sum(durations.counts)
        self._seconds.add(durations)
        self._sent.inc(calls)
        self._ok.inc(calls)
        return calls

    def refused(self, code: str, seconds: float) -> None:
        self._seconds.observe(seconds)
        self._handled.labels(*self._labels, code).inc()


class MethodCounters:
    """Counts how long answers took, by their source, and batches. ``begun`` is by ``time.perf_counter``.

    ``seconds`` is of answers alone, and of the items of batches.
    """

    def __init__(self, seconds: Histogram, rpc: RpcCounters, batch_rpc: RpcCounters) -> None:
        self._answers = {source: Durations(FAST) for source in SOURCES}
        self._local = self._answers["LOCAL"].observe
        self._batches, self._batch_items = Durations(FAST), Durations(FAST)
        self._seconds = {source: seconds.labels(source) for source in SOURCES}
        self._rpc, self._batch_rpc = rpc, batch_rpc

    def _flush_durations(self, hits: int) -> int:
        """Add the durations to the metrics, and the start of ``hits`` calls. Returns how many answers there were."""
        self._rpc.began(hits)
        count = 0
        for source, durations in self._answers.items():
            self._seconds[source].add(durations)
            count += self._rpc.answered(durations)
            durations.reset()
        self._batch_rpc.began(self._batch_rpc.answered(self._batches))
        self._batches.reset()
        self._seconds["LOCAL"].add(self._batch_items)
        self._batch_items.reset()
        return count


class SelectCounters(MethodCounters):
    """Counts as ``SelectMeter`` does. An outcome is a place in ``OUTCOMES``."""

    def __init__(self, metrics: Metrics, rpc: RpcCounters, batch_rpc: RpcCounters) -> None:
        super().__init__(metrics.select_seconds, rpc, batch_rpc)
        # Of Select answered by the local cache; and of all others.
        self._hits = [0] * len(OUTCOMES)
        self._batch_lookups = [0, 0]
        self._outcomes = [0] * len(OUTCOMES)
        self._selects = [metrics.selects.labels(outcome) for outcome in OUTCOMES]
        self._lookups = [metrics.cache_lookups.labels("local", found) for found in ("hit", "negative")]

    def selected_locally(self, outcome: int, begun: float) -> None:
        """Count a Select that the local cache answered with a route."""
        self._local(time.perf_counter() - begun)
        self._hits[outcome] += 1

    def batch_selected(self, outcomes: Sequence[int], lookups: Sequence[int], begun: float) -> None:
        """Count a BatchSelect that was answered.

        ``outcomes`` says how many selections had each, ``lookups`` how many families were found, and found absent.
        """
        seconds = time.perf_counter() - begun
        self._batches.observe(seconds)
        self._batch_items.observe(seconds, sum(outcomes))
        for counts, more in ((self._outcomes, outcomes), (self._batch_lookups, lookups)):
            for place, count in enumerate(more):
                counts[place] += count

    def answered(self, outcome: int, source: str, begun: float) -> None:
        """Count the end of a Select that ``source`` answered with a route."""
        self._answers[source].observe(time.perf_counter() - begun)
        self._outcomes[outcome] += 1

    def undecided(self, outcome: int, source: str, begun: float) -> None:
        """Count a Select for which nothing could be chosen from what ``source`` knows."""
        self._outcomes[outcome] += 1
        self._seconds[source].observe(time.perf_counter() - begun)

    def failed(self) -> None:
        """Count a Select whose family could not be read."""
        self._outcomes[-1] += 1

    def flush(self) -> None:
        """Add everything to the metrics."""
        hits = sum(self._hits)
        self._lookups[0].inc(hits)
        self._flush_durations(hits)
        by_outcome = ((self._selects, self._hits), (self._selects, self._outcomes))
        for counters, counts in (*by_outcome, (self._lookups, self._batch_lookups)):
            for place, counter in enumerate(counters):
                counter.inc(counts[place])
                counts[place] = 0
