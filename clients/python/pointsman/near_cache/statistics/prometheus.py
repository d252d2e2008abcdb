"""Statistics as metrics of Prometheus: ``pip install pointsman[prometheus]``."""

from collections.abc import Iterator

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import REGISTRY, Collector, CollectorRegistry

from pointsman.near_cache.statistics.counts import StatisticsSource
from pointsman.near_cache.statistics.metrics import COUNTERS, GAUGES, PREFIX


class NearCacheCollector(Collector):
    """Reads near-caches when it is scraped. Registers itself, and takes itself off by ``close``.

    ``NearCacheCollector(cache)`` is all that is needed. The label ``name`` is the name of the near-cache.
    """

    def __init__(self, *sources: StatisticsSource, registry: CollectorRegistry = REGISTRY) -> None:
        self._sources = sources
        self._registry = registry
        registry.register(self)

    def close(self) -> None:
        """Take the metrics off the registry."""
        self._registry.unregister(self)

    def collect(self) -> Iterator[Metric]:
        """Return the metrics now."""
        now = [(source.name, source.statistics()) for source in self._sources]
        for field, (name, text) in GAUGES.items():
            gauge = GaugeMetricFamily(PREFIX + name, text, labels=["name"])
            for source, values in now:
                gauge.add_metric([source], float(getattr(values, field)))
            yield gauge
        for field, (name, text) in COUNTERS.items():
            counter = CounterMetricFamily(PREFIX + name, text, labels=["name"])
            for source, values in now:
                counter.add_metric([source], float(getattr(values, field)))
            yield counter
