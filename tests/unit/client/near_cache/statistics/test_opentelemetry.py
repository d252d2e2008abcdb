from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from opentelemetry.metrics import CallbackOptions, NoOpMeter

from pointsman.near_cache.statistics.counts import Statistics
from pointsman.near_cache.statistics.metrics import COUNTERS, GAUGES
from pointsman.near_cache.statistics.opentelemetry import observe
from tests.support.statistics import Source


class Meter(NoOpMeter):
    """Keeps the instruments."""

    def __init__(self) -> None:
        super().__init__("test")
        self.callbacks: dict[str, Any] = {}

    def create_observable_gauge(self, name: str, callbacks: Any = None, *more: Any, **text: Any) -> Any:
        self.callbacks[name] = callbacks[0]

    def create_observable_counter(self, name: str, callbacks: Any = None, *more: Any, **text: Any) -> Any:
        self.callbacks[name] = callbacks[0]

    def read(self, name: str) -> Iterable[Any]:
        return [(each.value, each.attributes) for each in self.callbacks[name](CallbackOptions())]


class Unloaded(Source):
    def statistics(self) -> Statistics:
        return replace(super().statistics(), age_seconds=float("inf"))


def test_what_is_observed() -> None:
    meter = Meter()
    observe(Source("one"), Unloaded("two"), meter=meter)
    assert len(meter.callbacks) == len(GAUGES) + len(COUNTERS)
    assert meter.read("pointsman_near_cache_reads") == [(6.0, {"name": "one"}), (6.0, {"name": "two"})]
    assert meter.read("pointsman_near_cache_age_seconds") == [(3.0, {"name": "one"})]


def test_without_a_meter_it_is_the_global_one() -> None:
    observe(Source("one"))
