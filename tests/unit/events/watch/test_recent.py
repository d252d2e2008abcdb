"""The change sets in memory."""

import pytest

from pointsman_server.events.watch.change_set import ChangeSet
from pointsman_server.events.watch.recent import RecentChanges
from pointsman_server.ports.store import Clock
from tests.support.changes import make_change


def make_set(first: int, count: int = 1) -> ChangeSet:
    last = first + count - 1
    return ChangeSet(Clock("e1", last), [make_change(revision) for revision in range(first, last + 1)])


@pytest.fixture
def recent() -> RecentChanges:
    """Sets to 5 and 6, after 2, with room for four changes."""
    one = RecentChanges(4)
    one.start_over(2)
    one.append(make_set(3, 3))
    one.append(make_set(6))
    return one


def ends(sets: list[ChangeSet]) -> list[int]:
    return [changes.clock.revision for changes in sets]


@pytest.mark.parametrize(("revision", "expected"), [(2, [5, 6]), (5, [6]), (6, []), (9, [])])
def test_what_follows_a_revision(recent: RecentChanges, revision: int, expected: list[int]) -> None:
    assert ends(recent.after(revision)) == expected


def test_the_oldest_set_goes_first_and_whole(recent: RecentChanges) -> None:
    recent.append(make_set(7))
    assert (recent.complete_from, recent.revision, recent.count) == (5, 7, 2)
    assert ends(recent.after(5)) == [6, 7]


def test_one_set_larger_than_the_bound_is_kept(recent: RecentChanges) -> None:
    recent.append(make_set(7, 9))
    assert ends(recent.after(6)) == [15]
    assert (recent.complete_from, recent.count) == (6, 9)


def test_older_sets_are_added_where_they_fit() -> None:
    recent = RecentChanges(5)
    recent.start_over(4)
    recent.append(make_set(5))
    assert recent.prepend(1, [make_set(2), make_set(3, 2)])
    assert (recent.complete_from, ends(recent.after(1))) == (1, [2, 4, 5])
    assert not recent.prepend(-1, [make_set(0, 2)])


@pytest.mark.parametrize(
    "sets",
    [
        [make_set(3, 2)],  # a gap at the beginning
        [make_set(2), make_set(4)],  # a gap within
        [make_set(2), make_set(3)],  # a gap at the end
        [make_set(2), make_set(3, 3)],  # a set that ends beyond what is here
        [],
    ],
)
def test_sets_with_a_gap_are_not_added(sets: list[ChangeSet]) -> None:
    recent = RecentChanges(10)
    recent.start_over(4)
    assert not recent.prepend(1, sets)
    assert (recent.complete_from, recent.count) == (4, 0)


def test_it_starts_over(recent: RecentChanges) -> None:
    starts = recent.starts
    recent.start_over(9)
    assert (recent.complete_from, recent.revision, recent.count, recent.after(9)) == (9, 9, 0, [])
    assert recent.starts == starts + 1
