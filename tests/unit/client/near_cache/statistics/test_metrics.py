from dataclasses import fields

from pointsman.near_cache.statistics.counts import Statistics
from pointsman.near_cache.statistics.metrics import COUNTERS, GAUGES


def test_every_figure_is_a_metric() -> None:
    assert {field.name for field in fields(Statistics)} == {*GAUGES, *COUNTERS}
    names = [name for name, _ in (*GAUGES.values(), *COUNTERS.values())]
    assert len(set(names)) == len(names)
    assert all(name.endswith("_total") for name, _ in COUNTERS.values())
