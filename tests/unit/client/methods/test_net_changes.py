"""net_changes: what differs between two moments, from the changes between them."""

from datetime import UTC, datetime

import pytest

from pointsman import Change, ChangeKind, Route, RouteKey
from pointsman.methods.net_changes import NetChanges, bounds

TIME = datetime(2026, 1, 1, tzinfo=UTC)
KEY = RouteKey("a", "b", "c", "d")


def route(url: str, revision: int = 1) -> Route:
    return Route(KEY, url, True, {}, revision, TIME, TIME)


def change(revision: int, before: Route | None, after: Route | None) -> Change:
    return Change(revision, "", ChangeKind.UPDATED, KEY, before, after, "ada", "", "", TIME, "", "")


def test_keeps_the_first_state_and_the_last() -> None:
    net = NetChanges()
    net.add(change(2, route("https://one"), route("https://two", 2)))
    net.add(change(3, route("https://two", 2), route("https://three", 3)))
    [found] = net.differences()
    assert (found.before, found.after) == (route("https://one"), route("https://three", 3))
    assert (found.change_count, found.last_change.revision) == (2, 3)


def test_what_was_changed_back_does_not_differ() -> None:
    net = NetChanges()
    net.add(change(2, route("https://one"), None))
    net.add(change(3, None, route("https://one", 3)))
    assert net.differences() == ()


def test_what_came_and_went_does_not_differ() -> None:
    net = NetChanges()
    net.add(change(2, None, route("https://one")))
    net.add(change(3, route("https://one"), None))
    assert net.differences() == ()


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (5, None, {"after_revision": 5, "before_revision": 0}),
        (5, 9, {"after_revision": 5, "before_revision": 10}),
        (TIME, None, {"after_time": TIME, "after_revision": 0}),
        (5, TIME, {"after_revision": 5, "before_time": TIME, "before_revision": 0}),
    ],
)
def test_asks_for_the_changes_after_the_first_moment_up_to_the_last(
    start: int | datetime, end: int | datetime | None, expected: dict[str, object]
) -> None:
    assert bounds(start, end).items() >= expected.items()
