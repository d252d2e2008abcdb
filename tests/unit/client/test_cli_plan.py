"""cli.plan: what differs, and in which order it is put right."""

from datetime import UTC, datetime

from pointsman import Activation, Route, RouteKey
from pointsman.cli.entries import Entry
from pointsman.cli.plan import Progress, differences, steps

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


def test_the_new_version_is_live_before_the_old_one_goes() -> None:
    entries = [
        entry("a/b/c/v1", active=False),
        entry("a/b/c/v2", "https://new", active=True),
        entry("a/b/c/v3"),
    ]
    routes = [route("a/b/c/v1"), route("a/b/c/v2", active=False), route("a/b/c/v4")]
    found = differences(entries, {route.key: route for route in routes}, prune=True)
    assert [f"{step.method} {step.key.version}" for step in steps(found)] == [
        "create v3",
        "update v2",
        "activate v2",
        "deactivate v1",
        "delete v4",
    ]


def test_a_route_that_goes_out_of_service_keeps_its_url_until_then() -> None:
    old = route("a/b/c/v1")
    found = differences([entry("a/b/c/v1", "https://new", active=False)], {old.key: old}, prune=False)
    assert [step.method for step in steps(found)] == ["deactivate", "update"]


def test_only_what_changes_is_sent() -> None:
    old = route("a/b/c/v1")
    (step,) = steps(differences([entry("a/b/c/v1", "https://new")], {old.key: old}, prune=False))
    assert step.arguments == {"url": "https://new"}


def test_each_step_expects_the_route_as_the_one_before_left_it() -> None:
    old = route("a/b/c/v1", active=False, revision=7)
    update, activate = steps(differences([entry("a/b/c/v1", "https://new", True)], {old.key: old}, prune=False))
    progress = Progress("why")
    assert progress.arguments(update) == {"url": "https://new", "expected_revision": 7, "reason": "why"}
    progress.done(update, route("a/b/c/v1", revision=9))
    assert progress.arguments(activate)["expected_revision"] == 9
    progress.done(activate, Activation(route("a/b/c/v1", revision=10), 10))
    assert progress.arguments(activate)["expected_revision"] == 10
