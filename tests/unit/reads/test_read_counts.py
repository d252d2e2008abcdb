"""Counts of reads: exact while there are few, and about right when there are many."""

from random import Random

import pytest

from pointsman_server.reads import read_counts
from pointsman_server.reads.read_counts import COUNTED_AT_ONCE, MOST_SAMPLED, OFF, ReadCounts

KEYS = [b"%d" % number for number in range(16)]


@pytest.fixture
def counts() -> ReadCounts:
    return ReadCounts(random=Random(1).random)


def total(counts: ReadCounts) -> int:
    return sum(times for of_subject in counts.take().values() for times in of_subject.values())


def test_few_reads_are_counted_exactly(counts):
    for _ in range(COUNTED_AT_ONCE // 2):
        counts.read(b"k", "a")
        counts.read(b"k", "b")

    assert counts.of_key(b"k") == dict.fromkeys("ab", COUNTED_AT_ONCE // 2)
    assert counts.of_key(b"other") == {}
    assert counts.take() == {"a": {b"k": COUNTED_AT_ONCE // 2}, "b": {b"k": COUNTED_AT_ONCE // 2}}
    assert counts.take() == {}


@pytest.mark.parametrize("reads", [1_000, 10_000, 500_000])
def test_of_many_reads_the_number_is_about_right(counts, reads):
    for _ in range(reads):
        counts.read(b"k", "a")

    assert total(counts) == pytest.approx(reads, rel=0.1)


def test_to_look_at_the_counts_does_not_make_more_reads_count(counts):
    for number in range(100_000):
        counts.read(b"k", "a")
        if not number % 100:
            counts.of_key(b"k")
    assert counts._every == MOST_SAMPLED
    assert total(counts) == pytest.approx(100_000, rel=0.1)


def test_keys_that_are_read_in_turn_are_all_counted(counts):
    """With a fixed distance between two samples, a multiple of the number of keys, one key would get all."""
    rounds = 40_000
    for _ in range(rounds):
        for key in KEYS:
            counts.read(key, "a")

    for times in counts.take()["a"].values():
        assert times == pytest.approx(rounds, rel=0.1)


def test_batches_are_counted_as_single_reads_are(counts):
    counts.read_many(KEYS, "a")
    counts.read_many([], "a")
    assert counts.take() == {"a": dict.fromkeys(KEYS, 1)}

    rounds = 40_000
    for _ in range(rounds):
        counts.read_many(KEYS, "a")
    found = counts.take()["a"]
    assert set(found) == set(KEYS)
    for times in found.values():
        assert times == pytest.approx(rounds, rel=0.1)


def test_after_they_are_taken_counts_are_exact_again(counts):
    for _ in range(100_000):
        counts.read(b"k", "a")
    counts.take()

    counts.read(b"k", "rare")

    assert counts.take() == {"rare": {b"k": 1}}


def test_what_is_reported_is_added_as_it_is(counts):
    counts.add(b"k", "a", 1000)
    counts.read(b"k", "a")
    assert counts.take() == {"a": {b"k": 1001}}


def test_pairs_are_bounded_and_what_is_dropped_is_counted(counts, monkeypatch):
    monkeypatch.setattr(read_counts, "MOST_PAIRS", 2)
    counts.add(b"k", "a", 1)
    counts.read(b"k", "b")
    counts.read(b"k", "c")
    counts.add(b"l", "a", 5)
    counts.add(b"k", "a", 1)

    # What is known comes first, and then what was sampled.
    assert counts.take() == {"a": {b"k": 2, b"l": 5}}
    assert counts.dropped == 2
    counts.read(b"k", "c")
    assert counts.take() == {"c": {b"k": 1}}


def test_nothing_is_counted_where_it_is_off():
    OFF.left = 1
    OFF.read(b"k", "a")
    OFF.read_many([b"k"] * 1000, "a")
    assert OFF.take() == {}
    assert OFF.left > 1_000_000
