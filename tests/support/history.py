"""``ports.RouteHistory`` in memory, for unit tests: over the history that a ``MemoryStore`` has."""

from collections.abc import Sequence
from datetime import datetime

from pointsman_server.domain.errors import HistoryCompacted, RevisionInFuture
from pointsman_server.domain.routes import Change, Family, Route, RouteKey, Snapshot, Traffic
from pointsman_server.ports.store import RouteQuery
from tests.support.fakes import MemoryStore, known


class MemoryHistory:
    """Reads what was, as far as transactions and imports made it: ``put`` and the like leave no history."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def revision_at(self, moment: datetime) -> int:
        self._check(self._store.compacted_revision)
        kept = [change for change in self._store.changes if change.revision > self._store.compacted_revision]
        found = [change.revision for change in kept if change.occur_time <= moment]
        if not found and self._store.compacted_revision and moment < self._store.compacted_at:
            raise HistoryCompacted(moment, self._store.compacted_revision)
        return max(found, default=self._store.compacted_revision)

    async def load_as_of(self, keys: Sequence[RouteKey], revision: int) -> list[Snapshot]:
        self._check(revision)
        return [Snapshot(key, self._value(key, revision), revision, self._store.epoch) for key in keys]

    async def list_routes_as_of(self, query: RouteQuery, revision: int) -> list[Route]:
        self._check(revision)
        wanted = (query.tenant, query.service, query.env)
        found = [
            route
            for key in sorted(self._keys())
            if all(not want or want == part for want, part in zip(wanted, key, strict=False))
            and (query.after is None or key > query.after)
            and (route := self._route(key, revision))
            and query.active in {None, route.active}
        ]
        return found[: query.limit]

    def _check(self, revision: int) -> None:
        if self._store.failure:
            raise self._store.failure
        if revision < self._store.compacted_revision:
            raise HistoryCompacted(revision, self._store.compacted_revision)
        if revision > self._store.revision:
            raise RevisionInFuture(revision, self._store.revision)

    def _value(self, key: RouteKey, revision: int) -> Route | Family | None:
        if key.version:
            return self._route(key, revision)
        routes = [route for each in self._keys() if each.family_key == key and (route := self._route(each, revision))]
        return known(Family.of(key, self._traffic(key, revision), routes))

    def _keys(self) -> set[RouteKey]:
        return {*self._store.routes, *(change.key for change in self._store.changes if change.key.version)}

    def _route(self, key: RouteKey, revision: int) -> Route | None:
        change = self._next(key, revision)
        return change.before if change else self._store.routes.get(key)

    def _traffic(self, key: RouteKey, revision: int) -> Traffic | None:
        change = self._next(key, revision)
        return change.traffic_before if change else self._store.traffic.get(key)

    def _next(self, key: RouteKey, revision: int) -> Change | None:
        """Return the first change of ``key`` after ``revision``."""
        return next((each for each in self._store.changes if each.key == key and each.revision > revision), None)
