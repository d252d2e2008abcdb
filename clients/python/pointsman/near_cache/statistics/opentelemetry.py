"""Statistics as metrics of OpenTelemetry: ``pip install pointsman[opentelemetry]``."""

from collections.abc import Callable, Iterator

from opentelemetry.metrics import CallbackOptions, Meter, Observation, get_meter

from pointsman.near_cache.statistics.counts import StatisticsSource
from pointsman.near_cache.statistics.metrics import COUNTERS, GAUGES, PREFIX


def observe(*sources: StatisticsSource, meter: Meter | None = None) -> None:
    """Let a meter read near-caches when it exports; by default the global one. The attribute ``name`` is theirs.

    Call it once, with all near-caches of the process: a meter takes each instrument once.
    """
    chosen = meter or get_meter("pointsman")
    for field, (name, text) in GAUGES.items():
        chosen.create_observable_gauge(PREFIX + name, [_observer(field, sources)], description=text)
    for field, (name, text) in COUNTERS.items():
        instrument = PREFIX + name.removesuffix("_total")
        chosen.create_observable_counter(instrument, [_observer(field, sources)], description=text)


def _observer(field: str, sources: tuple[StatisticsSource, ...]) -> Callable[[CallbackOptions], Iterator[Observation]]:
    def observations(_: CallbackOptions) -> Iterator[Observation]:
        for source in sources:
            value = float(getattr(source.statistics(), field))
            if value < float("inf"):
                yield Observation(value, {"name": source.name})

    return observations
