"""cli.plan: what differs, and in which order it is put right."""

from datetime import UTC, datetime

from pointsman import ImportedRoute, Route, RouteKey
from pointsman.cli.bulk.difference import Difference, changes, creations, deletions, differences
from pointsman.cli.files.entries import Entry

TIME = datetime(2026, 1, 1, tzinfo=UTC)


def entry(key: str, url: str = "https://x", active: bool | None = None, labels: dict[str, str] | None = None) -> Entry:
    return Entry(1, RouteKey.parse(key), url, active, labels)


def route(key: str, url: str = "https://x", active: bool = True, revision: int = 1) -> Route:
    return Route(RouteKey.parse(key), url, active, {"tier": "gold"}, revision, TIME, TIME)


def diff(entries: list[Entry], routes: list[Route], *, prune: bool = False) -> list[str]:
    return [str(each) for each in differences(entries, {route.key: route for route in routes}, prune=prune)]


def test_reads_like_a_diff() -> None:
    entries = [entry("a/b/c/v1"), entry("a/b/c/v2", "https://y", labels={}), entry("a/b/c/v3")]
    assert diff(entries, [route("a/b/c/v2"), route("a/b/c/v3"), route("a/b/c/v4")], prune=True) == [
        "+ a/b/c/v1 https://x active",
        "~ a/b/c/v2 url: https://x → https://y; labels: tier=gold → (none)",
        "- a/b/c/v4 https://x active tier=gold",
    ]


def test_what_an_entry_leaves_out_stays_as_it_is() -> None:
    assert diff([entry("a/b/c/v1")], [route("a/b/c/v1", active=False)]) == []
    assert diff([entry("a/b/c/v1", active=True)], [route("a/b/c/v1", active=False)]) == ["~ a/b/c/v1 inactive → active"]


def test_without_prune_nothing_is_deleted() -> None:
    assert diff([], [route("a/b/c/v1")]) == []


def found(entries: list[Entry], routes: list[Route], *, prune: bool = False) -> list[Difference]:
    return differences(entries, {route.key: route for route in routes}, prune=prune)


def test_what_is_new_is_created_as_a_whole() -> None:
    some = found([entry("a/b/c/v1", active=False), entry("a/b/c/v2", labels={"x": "y"}), entry("a/b/c/v3")], [])
    assert creations(some) == [
        ImportedRoute(RouteKey.parse("a/b/c/v1"), "https://x", {}, False),
        ImportedRoute(RouteKey.parse("a/b/c/v2"), "https://x", {"x": "y"}, True),
        ImportedRoute(RouteKey.parse("a/b/c/v3"), "https://x", {}, True),
    ]
    assert (changes(some), deletions(some)) == ([], [])


def test_of_what_there_is_only_what_changes_is_sent_and_only_for_the_revision_that_was_seen() -> None:
    routes = [route(f"a/b/c/v{number}", revision=number) for number in (1, 2, 3)]
    entries = [entry("a/b/c/v1", "https://new"), entry("a/b/c/v2", labels={}), entry("a/b/c/v3", active=False)]
    some = found(entries, routes)
    assert changes(some) == [
        ImportedRoute(RouteKey.parse("a/b/c/v1"), "https://new", None, None, 1),
        ImportedRoute(RouteKey.parse("a/b/c/v2"), "https://x", {}, None, 2),
        ImportedRoute(RouteKey.parse("a/b/c/v3"), "https://x", None, False, 3),
    ]
    assert (creations(some), deletions(some)) == ([], [])


def test_what_goes_out_of_service_comes_last() -> None:
    entries = [
        entry("a/b/c/v1", "https://new", active=False),
        entry("a/b/c/v2", "https://new", active=True),
        entry("a/b/c/v3", active=False),
        entry("a/b/c/v4", "https://new"),
    ]
    routes = [route("a/b/c/v1"), route("a/b/c/v2", active=False), route("a/b/c/v3"), route("a/b/c/v4", active=False)]
    assert [str(each.key)[-2:] for each in changes(found(entries, routes))] == ["v2", "v4", "v1", "v3"]


def test_what_is_pruned_is_deleted_as_it_is() -> None:
    gone = route("a/b/c/v4", revision=7)
    some = found([], [gone], prune=True)
    assert (deletions(some), creations(some), changes(some)) == ([gone], [], [])
