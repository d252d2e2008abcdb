"""Compares the routes of the server with those of a file. Pure: no calls."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pointsman.chunks import ImportedRoute
from pointsman.cli.files.entries import Entry
from pointsman.cli.output.text import difference_text
from pointsman.keys import RouteKey
from pointsman.results import Route


@dataclass(frozen=True, slots=True)
class Wanted:
    """The desired state of a route."""

    url: str
    active: bool
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Difference:
    """One route that differs from its entry: ``before`` None means to create, ``after`` None to delete."""

    key: RouteKey
    before: Route | None
    after: Wanted | None

    @property
    def sign(self) -> str:
        """``+`` to create, ``~`` to change, ``-`` to delete."""
        if self.before is None:
            return "+"
        return "-" if self.after is None else "~"

    def __str__(self) -> str:
        return f"{self.sign} {self.key} {difference_text(self.before, self.after)}"


def difference(entry: Entry, route: Route | None) -> Difference | None:
    """Return how ``route`` differs from its entry, or None when it does not."""
    wanted = Wanted(
        url=entry.url,
        active=entry.active if entry.active is not None else route is None or route.active,
        labels=entry.labels if entry.labels is not None else (route.labels if route else {}),
    )
    if route and (route.url, route.active, route.labels) == (wanted.url, wanted.active, wanted.labels):
        return None
    return Difference(entry.key, route, wanted)


def differences(entries: Iterable[Entry], routes: Mapping[RouteKey, Route], *, prune: bool) -> list[Difference]:
    """Return every difference, in the order of the entries; ``prune`` also deletes the routes without an entry."""
    wanted = {entry.key: entry for entry in entries}
    found = [difference(entry, routes.get(key)) for key, entry in wanted.items()]
    gone = [Difference(key, route, None) for key, route in sorted(routes.items()) if prune and key not in wanted]
    return [each for each in (*found, *gone) if each is not None]


def creations(found: Iterable[Difference]) -> list[ImportedRoute]:
    """Return the routes to create."""
    return [
        ImportedRoute(each.key, each.after.url, each.after.labels, each.after.active)
        for each in found
        if each.after and not each.before
    ]


def changes(found: Iterable[Difference]) -> list[ImportedRoute]:
    """Return the routes to change; those that go out of service last.

    So a family with a live version always keeps one.
    """
    pairs = [(each.before, each.after) for each in found if each.before and each.after]
    pairs.sort(key=lambda pair: pair[0].active and not pair[1].active)
    return [_change(before, after) for before, after in pairs]


def _change(before: Route, after: Wanted) -> ImportedRoute:
    labels = after.labels if after.labels != before.labels else None
    active = after.active if after.active != before.active else None
    return ImportedRoute(before.key, after.url, labels, active, before.revision)


def deletions(found: Iterable[Difference]) -> list[Route]:
    """Return the routes to delete, as they are."""
    return [each.before for each in found if each.before and not each.after]
