"""Chooses the route of a Select from what is known of a family, by the rule that servers and clients share."""

from pointsman.selection import Choice, Split, only_active
from pointsman_server.domain.errors import AmbiguousVersion, NoActiveVersion
from pointsman_server.domain.routes import Route, Snapshot
from pointsman_server.domain.traffic import Family


class Selector:
    """A family, made ready for many selections."""

    __slots__ = ("_family", "_only", "_routes", "_split", "traffic_revision")

    def __init__(self, family: Family) -> None:
        self._family = family
        self._routes = {route.key.version: route for route in family.routes}
        self._split: Split[Choice] | None = None
        self._only: Choice | None = None
        # 0 if no traffic is set.
        self.traffic_revision = 0
        if traffic := family.traffic:
            self.traffic_revision = traffic.revision
            targets = [target.version for target in traffic.division.targets]
            self._split = Split(str(family.key), traffic.slices, targets, traffic.division.fallbacks, self._routes)
        else:
            self._only = only_active(list(self._routes))

    def choose(self, sticky_key: bytes) -> Choice | None:
        """Choose for a sticky key in UTF-8, at random for an empty one; None if nothing can be chosen."""
        return self._split.choose_encoded(sticky_key) if self._split else self._only

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
