"""Chooses the route of a Select from what is known of a family, by the rule that servers and clients share."""

from collections.abc import Callable
from typing import TypeVar

from pointsman.selection import Choice, Split, only_active
from pointsman_server.domain.errors import AmbiguousVersion, NoActiveVersion
from pointsman_server.domain.routes import Family, Route, Snapshot

T = TypeVar("T")


def chooser(family: Family, make: Callable[[Choice], T]) -> Callable[[bytes], T | None]:
    """Make the rule of a family ready for many choices.

    It takes sticky keys in UTF-8, and chooses at random for an empty one; it returns what ``make`` makes of a choice,
    as ``Split`` does, or None if nothing can be chosen.
    """
    active = [route.key.version for route in family.routes]
    if traffic := family.traffic:
        targets = [target.version for target in traffic.division.targets]
        slices, fallbacks = traffic.slices, traffic.division.fallbacks
        return Split(str(family.key), slices, targets, fallbacks, set(active), make).choose_encoded
    only = only_active(active)
    made = make(only) if only else None
    return lambda _sticky_key: made


class Selector:
    """A family, made ready for many selections."""

    __slots__ = ("_family", "_routes", "choose")

    def __init__(self, family: Family) -> None:
        self._family = family
        self._routes = {route.key.version: route for route in family.routes}
        self.choose: Callable[[bytes], Choice | None] = chooser(family, lambda choice: choice)

    @property
    def traffic_revision(self) -> int:
        """The revision of the traffic, 0 if none is set."""
        return self._family.traffic.revision if self._family.traffic else 0

    def route_of(self, choice: Choice) -> Route:
        """Return the route of a choice, which is active."""
        return self._routes[choice.version]

    def refusal(self, as_of: int, epoch: str) -> AmbiguousVersion | NoActiveVersion:
        """Return why nothing can be chosen, as of a revision."""
        family, traffic = str(self._family.key), self._family.traffic
        if traffic:
            named = (*(target.version for target in traffic.division.targets), *traffic.division.fallbacks)
            return NoActiveVersion(family, list(dict.fromkeys(named)), as_of, epoch)
        if self._routes:
            return AmbiguousVersion(family, list(self._routes), as_of, epoch)
        return NoActiveVersion(family, (), as_of, epoch)


def select(snapshot: Snapshot, sticky_key: str) -> tuple[Route, Choice]:
    """Choose from a snapshot of a family. Raises NoActiveVersion and AmbiguousVersion."""
    selector = Selector(snapshot.family)
    choice = selector.choose(sticky_key.encode())
    if choice is None:
        raise selector.refusal(snapshot.as_of, snapshot.epoch)
    return selector.route_of(choice), choice
