"""What watches do, as metrics."""

from pointsman_server.events.watch.meter import WatchMeter
from pointsman_server.telemetry.metrics import Metrics


def test_everything_is_counted_and_shows_as_zero_before():
    metrics = Metrics()
    meter = WatchMeter(metrics)

    def values() -> list[float | None]:
        names = ("watchers", "watch_change_sets_total", "watch_slow_total", "watch_snapshots_total")
        begun = [("pointsman_watch_begun_total", {"source": source}) for source in ("snapshot", "ring", "history")]
        wanted = [*((f"pointsman_{name}", {}) for name in names), *begun]
        return [metrics.registry.get_sample_value(name, labels) for name, labels in wanted]

    assert values() == [0] * 7
    for _ in range(2):
        meter.opened()
    meter.closed()
    meter.queued(5)
    meter.ended_slow()
    meter.made_snapshot()
    for source in ("snapshot", "ring", "ring", "history", "history", "history"):
        meter.began(source)
    assert values() == [1, 5, 1, 1, 1, 2, 3]
