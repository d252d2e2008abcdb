"""From what is and what shall be to the steps between: pure, no calls."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pointsman.cli.entries import Entry
from pointsman.cli.texts import difference_text
from pointsman.keys import RouteKey
from pointsman.results import Activation, Route


@dataclass(frozen=True, slots=True)
class Wanted:
    """The state that a route shall have."""

    url: str
    active: bool
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Difference:
    """One route that is not as it shall be: ``before`` None means to create, ``after`` None to delete."""

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


@dataclass(frozen=True, slots=True)
class Step:
    """One call: the client's method and its arguments. ``turn`` orders the steps of many routes.

    ``revision`` is the one that the route had when the step was planned; 0: there was no route.
    """

    turn: int
    method: str
    key: RouteKey
    revision: int
    arguments: Mapping[str, Any] = field(default_factory=dict)


class Progress:
    """Guards a run of steps: each one is refused if somebody else has changed its route since it was planned."""

    def __init__(self, reason: str) -> None:
        self._reason = reason
        self._revisions: dict[RouteKey, int] = {}

    def arguments(self, step: Step) -> dict[str, Any]:
        """Return the keyword arguments of the call."""
        expected = self._revisions.get(step.key, step.revision)
        guard = {"expected_revision": expected} if expected else {}
        return {**step.arguments, **guard, "reason": self._reason}

    def done(self, step: Step, result: Route | Activation | int) -> None:
        """Remember what the call returned: the next step of the same route builds upon it."""
        route = result.route if isinstance(result, Activation) else result
        if isinstance(route, Route):
            self._revisions[step.key] = route.revision


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


def steps(changes: Iterable[Difference]) -> list[Step]:
    """Return the calls that remove the differences, in an order that keeps traffic safe.

    New versions come before old ones go, so that a family with a live version always keeps one; a route gets its
    new URL before it goes live and loses its old one only after it went out of service.
    """
    return sorted((step for change in changes for step in _steps(change)), key=lambda step: step.turn)


def _steps(change: Difference) -> list[Step]:
    before, after = change.before, change.after
    if after is None:
        return [Step(5, "delete", change.key, before.revision if before else 0)]
    content = {"url": after.url, "labels": after.labels}
    if before is None:
        return [Step(0, "create", change.key, 0, {**content, "active": after.active})]
    changed = {name: value for name, value in content.items() if getattr(before, name) != value}
    leaving = before.active and not after.active
    found = [Step(4 if leaving else 1, "update", change.key, before.revision, changed)] if changed else []
    if before.active != after.active:
        turn, method = (3, "deactivate") if leaving else (2, "activate")
        found.append(Step(turn, method, change.key, before.revision))
    return sorted(found, key=lambda step: step.turn)
