"""Observations that are added at once are what they would be one by one."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from pointsman_server.telemetry.histogram import Durations, Histogram

BOUNDS = (0.001, 0.01, 0.1)


def samples(registry: CollectorRegistry) -> dict[tuple[str, str], float]:
    return {
        (sample.name, sample.labels.get("le", "")): sample.value
        for family in registry.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.0005, 0.001, 0.005, 0.01, 0.1, 0.5, 7.0]), st.integers(0, 5))))
def test_added_durations_are_observations(observed: list[tuple[float, int]]) -> None:
    one_by_one, at_once = CollectorRegistry(), CollectorRegistry()
    reference = Histogram("seconds", "", ["method"], buckets=BOUNDS, registry=one_by_one).labels("a")
    histogram = Histogram("seconds", "", ["method"], buckets=BOUNDS, registry=at_once).labels("a")
    durations = Durations(BOUNDS)
    for seconds, times in observed:
        durations.observe(seconds, times)
        for _ in range(times):
            reference.observe(seconds)
    histogram.add(durations)

    found, expected = samples(at_once), samples(one_by_one)
    assert abs(found.pop(("seconds_sum", "")) - expected.pop(("seconds_sum", ""))) < 1e-9
    assert found == expected
    assert sum(durations.counts) == sum(times for _, times in observed)


def test_after_a_reset_nothing_is_added() -> None:
    registry = CollectorRegistry()
    histogram = Histogram("seconds", "", buckets=BOUNDS, registry=registry)
    durations = Durations(BOUNDS)
    durations.observe(0.005)
    histogram.add(durations)
    before = samples(registry)

    durations.reset()
    histogram.add(durations)

    assert (durations.counts, durations.total) == ([0, 0, 0, 0], 0.0)
    assert samples(registry) == before
    durations.observe(0.005)
    histogram.add(durations)
    assert samples(registry)["seconds_count", ""] == 2
