"""KnownChanges returns the last change of each key, and the revision after which no change is missing."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pointsman_server.reads.known_changes import KnownChanges


def test_the_last_change_of_a_key_is_returned_and_0_for_other_keys() -> None:
    changes = KnownChanges(10)
    changes.note(b"a", 3)
    changes.note(b"a", 7)
    assert (changes.last(b"a"), changes.last(b"b")) == (7, 0)


def test_the_key_that_changed_the_longest_ago_is_dropped_first() -> None:
    changes = KnownChanges(2)
    changes.note(b"a", 1)
    changes.note(b"b", 2)
    changes.note(b"a", 3)
    assert changes.complete_from == 0

    changes.note(b"c", 4)

    assert [changes.last(key) for key in (b"a", b"b", b"c")] == [3, 0, 4]
    assert changes.complete_from == 2


@pytest.mark.parametrize(("size", "dropped"), [(15, 1), (16, 1), (31, 1), (32, 2), (160, 10)])
def test_a_sixteenth_of_the_keys_is_dropped_at_once_and_at_least_one(size: int, dropped: int) -> None:
    changes = KnownChanges(size)
    for revision in range(1, size + 1):
        changes.note(b"%d" % revision, revision)
    assert changes.complete_from == 0

    changes.note(b"another", size + 1)

    assert changes.complete_from == dropped
    known = [revision for revision in range(1, size + 1) if changes.last(b"%d" % revision)]
    assert known == list(range(dropped + 1, size + 1))


@pytest.mark.parametrize(("revision", "complete_from"), [(40, 40), (10, 20)])
def test_what_was_noted_stays_true_where_changes_were_missed(revision: int, complete_from: int) -> None:
    changes = KnownChanges(1)
    changes.note(b"dropped", 20)
    changes.note(b"a", 30)
    changes.resume(revision)
    assert (changes.last(b"a"), changes.complete_from) == (30, complete_from)


@settings(deadline=None)
@given(st.integers(1, 40), st.lists(st.integers(0, 60), max_size=200))
def test_it_is_bounded_and_after_complete_from_nothing_is_missing(size: int, keys: list[int]) -> None:
    changes, truth = KnownChanges(size), dict[bytes, int]()
    for revision, number in enumerate(keys, start=1):
        key = str(number).encode()
        changes.note(key, revision)
        truth[key] = revision
        assert len(changes._revisions) <= size
        assert changes.last(key) == revision
        for each, last in truth.items():
            assert changes.last(each) == last or (changes.last(each) == 0 and last <= changes.complete_from)
