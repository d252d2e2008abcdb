"""The watches of one process: which are open, what they have applied, and what is to be published."""

from datetime import UTC, datetime

import pytest

from pointsman_server.events.receipts.local_watches import LocalWatches, has_applied
from pointsman_server.ports.store import Clock
from pointsman_server.ports.watcher_registry import OpenWatch, RegisteredWatch, WatchName


def watch(number: int = 1, title: str = "") -> OpenWatch:
    return OpenWatch(WatchName(f"watcher-{number}", "jwt:cache"), title, "ipv4:127.0.0.1:1", datetime.now(UTC))


@pytest.fixture
def local() -> LocalWatches:
    return LocalWatches("a")


def test_what_was_opened_and_closed_is_published_once(local):
    one, two, three = watch(1), watch(2), watch(3)
    local.open(one)
    local.open(two)
    assert local.unpublished
    assert local.take_changes() == ([one, two], [])
    assert not local.unpublished

    local.close(one)
    local.open(three)
    assert local.take_changes() == ([three], [one.name])
    assert local.take_changes() == ([], [])
    assert local.take_all() == ([two, three], [])


def test_what_was_closed_before_it_was_published_is_only_closed(local):
    one = watch()
    local.open(one)
    local.close(one)
    assert local.take_changes() == ([], [one.name])
    assert not local


def test_a_client_that_reconnects_is_one_watch_until_both_streams_have_ended(local):
    before, after = watch(title="before"), watch(title="after")
    local.open(before)
    local.report(before.name, Clock("e", 5))
    local.open(after)
    local.close(before)

    assert (len(local), list(local.registered())) == (1, [RegisteredWatch("a", after, Clock("e", 5))])
    assert local.take_changes() == ([after], [])
    local.close(after)
    assert after.name not in local


def test_what_a_watch_has_applied_is_forgotten_with_it(local):
    one = watch()
    assert not local.report(one.name, Clock("e", 5))
    local.open(one)
    assert local.report(one.name, Clock("e", 5))
    local.close(one)
    local.open(one)
    assert local.behind(Clock("e", 5)) == [one.name]


@pytest.mark.parametrize(
    ("reports", "kept"),
    [
        ([5, 6], Clock("e", 6)),
        ([6, 5], Clock("e", 6)),
    ],
)
def test_the_highest_revision_of_an_epoch_is_kept(local, reports, kept):
    one = watch()
    local.open(one)
    for revision in reports:
        local.report(one.name, Clock("e", revision))
    assert [entry.applied for entry in local.registered()] == [kept]
    local.report(one.name, Clock("new", 1))
    assert [entry.applied for entry in local.registered()] == [Clock("new", 1)]


@pytest.mark.parametrize(
    ("applied", "expected"),
    [(None, False), (Clock("e", 4), False), (Clock("e", 5), True), (Clock("e", 6), True), (Clock("other", 6), False)],
)
def test_a_revision_is_applied_from_it_on_and_in_its_epoch(applied, expected):
    assert has_applied(applied, Clock("e", 5)) is expected
