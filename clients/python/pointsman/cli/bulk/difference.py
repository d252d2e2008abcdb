"""Compares the routes and the traffic of the server with those of a file. Pure: no calls."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pointsman.cli.files.entries import Entry
from pointsman.cli.files.traffic_entries import TrafficEntry
from pointsman.cli.output.effects import sign_of
from pointsman.cli.output.text import difference_text, traffic_difference_text
from pointsman.keys import FamilyKey, RouteKey
from pointsman.results import Route, Traffic


@dataclass(frozen=True, slots=True)
class Wanted:
    """The desired state of a route."""

    url: str
    active: bool
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Difference:
    """One route that differs from its entry: ``before`` None means to create, ``after`` None to delete.

    ``line`` is that of the entry; 0: it has none.
    """

    key: RouteKey
    before: Route | None
    after: Wanted | None
    line: int = 0

    @property
    def sign(self) -> str:
        """``+`` to create, ``~`` to change, ``-`` to delete."""
        return sign_of(self.before, self.after)

    @property
    def family(self) -> FamilyKey:
        """The tenant, service and env."""
        return self.key.family

    def __str__(self) -> str:
        return f"{self.sign} {self.key} {difference_text(self.before, self.after)}"


@dataclass(frozen=True, slots=True)
class TrafficDifference:
    """Traffic that differs from its entry: ``before`` None means that none is set, ``after`` None to delete it."""

    key: FamilyKey
    before: Traffic | None
    after: TrafficEntry | None

    @property
    def sign(self) -> str:
        """``+`` to set for the first time, ``~`` to change, ``-`` to delete."""
        return sign_of(self.before, self.after)

    @property
    def family(self) -> FamilyKey:
        """The tenant, service and env."""
        return self.key

    @property
    def line(self) -> int:
        """The line of the entry; 0: it has none."""
        return self.after.line if self.after else 0

    def __str__(self) -> str:
        return f"{self.sign} {self.key} {traffic_difference_text(self.before, self.after)}"


AnyDifference = Difference | TrafficDifference


def difference(entry: Entry, route: Route | None) -> Difference | None:
    """Return how ``route`` differs from its entry, or None when it does not."""
    wanted = Wanted(
        url=entry.url,
        active=entry.active if entry.active is not None else route is None or route.active,
        labels=entry.labels if entry.labels is not None else (route.labels if route else {}),
    )
    if route and (route.url, route.active, route.labels) == (wanted.url, wanted.active, wanted.labels):
        return None
    return Difference(entry.key, route, wanted, entry.line)


def differences(entries: Iterable[Entry], routes: Mapping[RouteKey, Route], *, prune: bool) -> list[Difference]:
    """Return every difference, in the order of the entries; ``prune`` also deletes the routes without an entry."""
    wanted = {entry.key: entry for entry in entries}
    found = [difference(entry, routes.get(key)) for key, entry in wanted.items()]
    gone = [Difference(key, route, None) for key, route in sorted(routes.items()) if prune and key not in wanted]
    return [each for each in (*found, *gone) if each is not None]


def traffic_differences(
    entries: Sequence[TrafficEntry] | None,
    routes: Iterable[Entry],
    traffic: Mapping[FamilyKey, Traffic],
    *,
    prune: bool,
) -> list[TrafficDifference]:
    """Return every difference of traffic, in the order of the entries.

    ``prune`` also deletes traffic without an entry: all of it if the file has traffic, else that of the families of
    which it has no route. ``routes`` are the entries of routes.
    """
    wanted = {entry.key: entry for entry in entries or ()}
    kept = {entry.key.family for entry in routes} if entries is None else frozenset[FamilyKey]()
    found = [
        TrafficDifference(key, traffic.get(key), entry)
        for key, entry in wanted.items()
        if not _is_as_wanted(entry, traffic.get(key))
    ]
    gone = [key for key in sorted(traffic) if prune and key not in wanted and key not in kept]
    return [*found, *(TrafficDifference(key, traffic[key], None) for key in gone)]


def _is_as_wanted(entry: TrafficEntry, traffic: Traffic | None) -> bool:
    # The order of targets says only who is asked last; that of fallbacks matters.
    return traffic is not None and (dict(entry.weights), entry.fallbacks) == (traffic.weights, traffic.fallbacks)
