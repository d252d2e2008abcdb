"""What selects choose from: the traffic and the versions of each tenant, service and env, made ready when needed."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pointsman.near_cache.table.entries import CachedResolution
from pointsman.near_cache.table.selections import Entry, FamilyEntry
from pointsman.near_cache.table.view import View
from pointsman.v1.traffic_pb2 import Traffic


class StoredTraffic(NamedTuple):
    """Traffic as the table keeps it: the view that has it, and its message."""

    owner: View
    message: bytes


class Families:
    """The traffic of all views, and which versions each family has. Hold the lock of the table around every call.

    A family is named by ``tenant/service/env``. Which versions there are is known from the first select on, so that a
    near-cache that only resolves does not pay for it.
    """

    def __init__(self) -> None:
        self._traffic: dict[str, StoredTraffic] = {}
        self._keys: dict[str, set[str]] | None = None

    def stored(self) -> list[StoredTraffic]:
        """Return all traffic."""
        return list(self._traffic.values())

    def replace(self, view: View, traffic: Iterable[Traffic], routes: Mapping[str, Entry]) -> None:
        """Make the traffic of a view exactly ``traffic``; ``routes`` are those of all views by now."""
        self.drop(view)
        for each in traffic:
            self.set_traffic(view, family_name(each), each)
        if self._keys is not None:
            self._keys = _by_family(routes)

    def drop(self, view: View) -> None:
        """Remove the traffic of a view."""
        self._traffic = {family: kept for family, kept in self._traffic.items() if kept.owner is not view}

    def set_traffic(self, view: View, family: str, traffic: Traffic | None) -> None:
        """Set the traffic of a family; None: it has none any more."""
        if traffic is None:
            self._traffic.pop(family, None)
        else:
            self._traffic[family] = StoredTraffic(view, traffic.SerializeToString())

    def set_route(self, key: str, *, exists: bool) -> None:
        """Take note that a route has been put into the table, or has been removed."""
        if self._keys is None:
            return
        family = family_of(key)
        if exists:
            self._keys.setdefault(family, set()).add(key)
            return
        keys = self._keys.get(family, set())
        keys.discard(key)
        if not keys:
            self._keys.pop(family, None)

    def entry(
        self, view: View, family: str, routes: Mapping[str, Entry], news: Mapping[str, Entry] = {}
    ) -> FamilyEntry:
        """Return the entry of a family: of ``routes``, where ``news`` has no newer ones.

        Raises ValueError for traffic that does not divide all points.
        """
        if self._keys is None:
            self._keys = _by_family(routes)
        entries = (news.get(key) or routes.get(key) for key in sorted(self._keys.get(family, ())))
        active = {route.version: route for route in entries if isinstance(route, CachedResolution)}
        kept = self._traffic.get(family)
        return FamilyEntry(view, family, Traffic.FromString(kept.message) if kept else None, active)


def family_name(traffic: Traffic) -> str:
    """Return ``tenant/service/env``."""
    return f"{traffic.tenant}/{traffic.service}/{traffic.env}"


def family_of(key: str) -> str:
    """Return the family of ``tenant/service/env/version``."""
    return key.rpartition("/")[0]


def is_family(key: str) -> bool:
    """Return whether a key of the table names a family, and no route."""
    return key.count("/") == 2


def _by_family(routes: Mapping[str, Entry]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for key in routes:
        if not is_family(key):
            found.setdefault(family_of(key), set()).add(key)
    return found
