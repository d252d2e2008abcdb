"""Counts in the metrics what watches do."""

from pointsman_server.events.watch.observer import WatchObserver
from pointsman_server.telemetry.metrics import Metrics

SOURCES = ("snapshot", "ring", "history")


class WatchMeter(WatchObserver):
    """Binds the labels once, so that what has not happened shows as zero."""

    def __init__(self, metrics: Metrics) -> None:
        self._begun = {source: metrics.watch_begun.labels(source) for source in SOURCES}
        self._metrics = metrics

    def opened(self) -> None:
        self._metrics.watchers.inc()

    def closed(self) -> None:
        self._metrics.watchers.dec()

    def began(self, source: str) -> None:
        self._begun[source].inc()

    def queued(self, change_sets: int) -> None:
        self._metrics.watch_change_sets.inc(change_sets)

    def ended_slow(self) -> None:
        self._metrics.watch_slow.inc()

    def made_snapshot(self) -> None:
        self._metrics.watch_snapshots.inc()
