"""A histogram to which many observations are added at once."""

from bisect import bisect_left
from collections.abc import Sequence

import prometheus_client


class Durations:
    """Durations in seconds, counted by the buckets with these upper ``bounds``, for ``Histogram.add``."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.reset()

    def reset(self) -> None:
        """Count from zero again."""
        self.counts = [0] * (len(self._bounds) + 1)
        self.total = 0.0

    def observe(self, seconds: float, times: int = 1) -> None:
        """Count one duration, or several equal ones."""
        self.counts[bisect_left(self._bounds, seconds)] += times
        self.total += seconds * times


class Histogram(prometheus_client.Histogram):
    """``prometheus_client.Histogram``, which itself only takes one observation at a time."""

    def add(self, durations: Durations) -> None:
        """Do what ``observe`` does for each of ``durations``, whose buckets are those of this histogram."""
        self._sum.inc(durations.total)
        for bucket, count in zip(self._buckets, durations.counts, strict=True):
            if count:
                bucket.inc(count)
