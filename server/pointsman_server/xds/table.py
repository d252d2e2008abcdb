"""The table of a process: every route and all traffic, in memory, as of one revision."""

from collections.abc import Collection, Iterable, Sequence

from pointsman_server.domain.routes import Change, Route, RouteKey, Traffic
from pointsman_server.domain.traffic import Division
from pointsman_server.ports.store import Clock
from pointsman_server.xds import targets
from pointsman_server.xds.names import key_of, root_name
from pointsman_server.xds.targets import Target, Version


class Table:
    """Invariant: it has every change up to ``clock`` and nothing of a later one. It is not used before it is loaded.

    Compact: of a route it has what resources are made of, not its labels and times.
    """

    def __init__(self, clock: Clock, routes: Iterable[Route] = (), traffic: Iterable[Traffic] = ()) -> None:
        self.clock = clock
        self._families: dict[RouteKey, dict[str, Version]] = {}
        self._divisions: dict[RouteKey, Division] = {}
        self.add(routes)
        for each in traffic:
            self._divisions[each.key] = each.division

    def add(self, routes: Iterable[Route]) -> None:
        """Add routes while the table is loaded."""
        for route in routes:
            self._put(route.key, route)

    def target(self, root: str) -> Target:
        """Return what ``root`` leads to, whether or not it names anything."""
        key = key_of(root)
        if key is None:
            return targets.NOT_A_NAME
        versions = self._families.get(key.family_key, {})
        if key.version:
            return targets.of_route(versions.get(key.version))
        return targets.of_family(list(versions.values()), self._divisions.get(key))

    def roots(self) -> Iterable[str]:
        """Return every name that leads to a route, or to a family of routes."""
        for family, versions in self._families.items():
            yield root_name(family)
            for version in versions:
                yield root_name(family._replace(version=version))

    def apply(self, changes: Sequence[Change]) -> Collection[str]:
        """Apply a change set, whole. Returns the roots that it may have changed."""
        roots: dict[str, None] = {}
        for change in changes:
            if change.kind.of_traffic:
                if change.traffic_after:
                    self._divisions[change.key] = change.traffic_after.division
                else:
                    self._divisions.pop(change.key, None)
            else:
                self._put(change.key, change.after)
                roots[root_name(change.key)] = None
            roots[root_name(change.key.family_key)] = None
        self.clock = Clock(changes[-1].epoch, changes[-1].revision)
        return roots

    def _put(self, key: RouteKey, route: Route | None) -> None:
        family = key.family_key
        versions = self._families.get(family)
        if route is not None:
            if versions is None:
                versions = self._families[family] = {}
            versions[key.version] = Version(key.version, route.url, route.active)
        elif versions is not None:
            versions.pop(key.version, None)
            if not versions:
                del self._families[family]
