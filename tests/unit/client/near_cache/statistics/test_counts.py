import pytest

from pointsman.near_cache.statistics import counts as module
from pointsman.near_cache.statistics.counts import Counts, ReadCounts


def test_what_was_not_counted_is_zero() -> None:
    counts = Counts()
    counts.add("calls")
    counts.add("calls", 2)
    assert (counts.values()["calls"], counts.values()["absent"]) == (3, 0)
    counts.after_fork()
    counts.add("calls")
    assert counts.values()["calls"] == 4


def test_a_sampled_read_stands_for_many_at_varying_distances() -> None:
    reads = ReadCounts(100)
    distances = [reads.sample("key") for _ in range(2000)]
    assert (min(distances) >= 1, max(distances) < 200) == (True, True)
    assert 80 < sum(distances) / len(distances) < 120
    assert len(set(distances)) > 50
    assert reads.take() == {"key": 200_000}
    assert reads.take() == {}


def test_the_keys_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_KEYS", 2)
    reads = ReadCounts()
    for key in ("a", "b", "c", "a"):
        reads.add(key, 1)
    assert reads.take() == {"a": 2, "b": 1}


def test_a_child_counts_its_own() -> None:
    reads = ReadCounts()
    reads.add("a", 1)
    reads.after_fork()
    assert reads.take() == {}
