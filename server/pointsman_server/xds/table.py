"""The table of a process: every route and all traffic, in memory, as of one revision."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from pointsman_server.domain.routes import Change, Route, Traffic
from pointsman_server.domain.traffic import Division
from pointsman_server.ports.store import Clock
from pointsman_server.xds import targets
from pointsman_server.xds.names import key_of, root_name
from pointsman_server.xds.targets import Target, Version

# A version of a family: its URL and whether it is active. Plain tuples, and no dict for a family of one version: of a
# hundred thousand routes, objects weigh more than texts, and the garbage collector need not visit tuples of texts.
_Entry = tuple[str, bool]


class _Only(NamedTuple):
    """A family with one version."""

    version: str
    entry: _Entry


class Table:
    """Invariant: it has every change up to ``clock`` and nothing of a later one. It is not used before it is loaded.

    Compact: of a route it has what resources are made of, not its labels and times. About 300 bytes for a route whose
    URL has 40 characters, in a family of its own.
    """

    def __init__(self, clock: Clock, routes: Iterable[Route] = (), traffic: Iterable[Traffic] = ()) -> None:
        self.clock = clock
        # By the root of the family.
        self._families: dict[str, _Only | dict[str, _Entry]] = {}
        self._divisions: dict[str, Division] = {}
        self._count = 0
        self.add(routes)
        for each in traffic:
            self._divisions[root_name(each.key)] = each.division

    def __len__(self) -> int:
        """Return the number of routes."""
        return self._count

    def add(self, routes: Iterable[Route]) -> None:
        """Add routes while the table is loaded."""
        for route in routes:
            self._put(root_name(route.key.family_key), route.key.version, route)

    def target(self, root: str) -> Target:
        """Return what ``root`` leads to, whether or not it names anything."""
        key = key_of(root)
        if key is None:
            return targets.NOT_A_NAME
        if key.version:
            return targets.of_route(self._version(root, key.version))
        family = self._of_family(root)
        return targets.of_family([Version(name, *entry) for name, entry in family.items()], self._divisions.get(root))

    def families(self) -> Iterator[str]:
        """Return the root of every family that has a route."""
        return iter(self._families)

    def has_family(self, family: str) -> bool:
        """Return whether the family of this root has a route."""
        return family in self._families

    def versions(self, family: str) -> Collection[str]:
        """Return the versions of the family of this root, in any order."""
        return self._of_family(family).keys()

    def roots(self) -> Iterator[str]:
        """Return every name that leads to a route, or to a family of routes."""
        for family in self._families:
            yield family
            for version in self.versions(family):
                yield f"{version}~{family}"

    def apply(self, changes: Iterable[Change]) -> Collection[str]:
        """Apply change sets, whole. Returns the roots that they may have changed."""
        roots: dict[str, None] = {}
        for change in changes:
            family = root_name(change.key.family_key)
            if change.kind.of_traffic:
                if change.traffic_after:
                    self._divisions[family] = change.traffic_after.division
                else:
                    self._divisions.pop(family, None)
            else:
                self._put(family, change.key.version, change.after)
                roots[root_name(change.key)] = None
            roots[family] = None
            self.clock = Clock(change.epoch, max(change.revision, self.clock.revision))
        return roots

    def _of_family(self, family: str) -> Mapping[str, _Entry]:
        found = self._families.get(family, {})
        return dict((found,)) if isinstance(found, _Only) else found

    def _version(self, root: str, version: str) -> Version | None:
        entry = self._of_family(root[len(version) + 1 :]).get(version)
        return None if entry is None else Version(version, *entry)

    def _put(self, family: str, version: str, route: Route | None) -> None:
        before = self._families.get(family, {})
        after = dict((before,)) if isinstance(before, _Only) else before
        self._count -= len(after)
        if route is not None:
            after[version] = (route.url, route.active)
        else:
            after.pop(version, None)
        self._count += len(after)
        if len(after) > 1:
            self._families[family] = after
        elif after:
            self._families[family] = _Only(*next(iter(after.items())))
        else:
            self._families.pop(family, None)
