"""Who counts as a watcher of a key, and when it has applied a revision."""

from datetime import UTC, datetime, timedelta

import pytest

from pointsman_server.events.receipts.propagation import MOST_BEHIND, count, overlap
from pointsman_server.events.watch.filters import Filter
from pointsman_server.ports.store import Clock
from pointsman_server.ports.watcher_registry import OpenWatch, RegisteredWatch, WatchName

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
WANTED, ALL = Clock("e", 5), Filter()
DONE, SHORT, FOREIGN = Clock("e", 5), Clock("e", 4), Clock("other", 9)


def entry(
    number: int = 1, applied: Clock | None = None, *, of: Filter = ALL, subject: str = "s", server: str = "a", since=0
) -> RegisteredWatch:
    name = WatchName(f"watcher-{number}", subject, *of[:3])
    return RegisteredWatch(server, OpenWatch(name, "", "", BEGINNING + timedelta(seconds=since)), applied)


def test_those_that_have_applied_it_and_those_that_have_not():
    entries = [entry(1, DONE), entry(2, Clock("e", 6)), entry(3, SHORT), entry(4, FOREIGN), entry(5)]
    found = count(entries, WANTED, ALL)

    assert (found.watchers, found.applied, found.all_servers) == (5, 2, True)
    assert {(laggard.watch.name.id, laggard.revision) for laggard in found.behind} == {
        ("watcher-3", 4),
        ("watcher-4", 0),
        ("watcher-5", 0),
    }


def test_nobody():
    found = count([], WANTED, ALL, all_servers=False)
    assert (found.watchers, found.applied, found.behind, found.all_servers) == (0, 0, [], False)


def test_one_that_is_open_at_two_servers_is_one_and_either_may_have_its_report():
    assert count([entry(1, server="a"), entry(1, DONE, server="b")], WANTED, ALL).applied == 1
    found = count([entry(1, SHORT, server="a", since=3), entry(1, server="b", since=9)], WANTED, ALL)
    assert (found.watchers, found.behind[0].revision) == (1, 4)
    assert found.behind[0].watch.since == BEGINNING + timedelta(seconds=9)


def test_a_client_with_several_filters_has_applied_what_it_has_for_all_of_them():
    one, two = Filter("team-a"), Filter("team-b")
    entries = [entry(1, DONE, of=one), entry(1, SHORT, of=two)]

    both = count(entries, WANTED, ALL)
    assert (both.watchers, both.applied, both.behind[0].watch.name.tenant) == (1, 0, "team-b")
    assert count(entries, WANTED, one).applied == 1
    assert count(entries, WANTED, two).applied == 0


def test_the_same_id_of_two_subjects_is_two_watchers():
    found = count([entry(1, DONE, subject="a"), entry(1, subject="b")], WANTED, ALL)
    assert (found.watchers, found.applied) == (2, 1)


@pytest.mark.parametrize(
    ("watched", "asked", "expected"),
    [
        (Filter(), Filter("a", "s", "e"), True),
        (Filter("a", "s", "e"), Filter(), True),
        (Filter("a"), Filter(env="e"), True),
        (Filter("a", env="e"), Filter("a", "s"), True),
        (Filter("a"), Filter("b"), False),
        (Filter("a", "s"), Filter("a", "t"), False),
        (Filter(env="e"), Filter("a", env="f"), False),
    ],
)
def test_filters_overlap_where_a_key_can_match_both(watched, asked, expected):
    assert overlap(entry(of=watched).watch.name, asked) is expected
    assert count([entry(of=watched)], WANTED, asked).watchers == expected


def test_at_most_a_hundred_are_named_those_that_watch_longest_first():
    entries = [entry(number, since=-number) for number in range(MOST_BEHIND + 5)]
    found = count(entries, WANTED, ALL)

    assert (found.watchers, len(found.behind)) == (MOST_BEHIND + 5, MOST_BEHIND)
    assert found.behind[0].watch.name.id == f"watcher-{MOST_BEHIND + 4}"
