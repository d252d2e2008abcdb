"""``ports.BulkStore`` in memory, on the routes of a ``MemoryStore``."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import cast

from pointsman_server.domain.errors import FieldViolation, RequestIdReused, RevisionsMismatch, RoutesExist
from pointsman_server.domain.routes import Change, ChangeKind, Draft, Route, Wanted
from pointsman_server.ports.bulk_store import Existing, Imported, LockedImport, Merged
from pointsman_server.ports.store import Clock, Intent, LockedState, Outcome, StoredOutcome
from pointsman_server.writes.ledger import Ledger
from tests.support.fakes import MemoryStore


class MemoryBulkStore:
    """Imports into ``store``, with its lock, gates and failures."""

    def __init__(self, store: MemoryStore, make: "type[MemoryImport] | None" = None) -> None:
        self.store = store
        self.make = make or MemoryImport

    @asynccontextmanager
    async def begin_import(self) -> AsyncIterator["MemoryImport"]:
        store = self.store
        if store.failure:
            raise store.failure
        async with AsyncExitStack() as locks:
            yield self.make(store, locks)


class MemoryImport:
    """``ports.ImportTransaction`` in memory: it writes only at the end of ``merge``."""

    def __init__(self, store: MemoryStore, locks: AsyncExitStack) -> None:
        self._store = store
        self._locks = locks
        self._wanted: Sequence[Wanted] = ()
        self._changes: list[Change] = []
        self._tenant, self._intent, self._existing = "", Intent(""), Existing.UPDATE

    async def remembered(self, tenant: str, intent: Intent) -> Merged | None:
        found = self._store.requests.get((tenant, intent.request_id)) if intent.request_id else None
        if found is None:
            return None
        if found.fingerprint != intent.fingerprint:
            raise RequestIdReused(intent.request_id)
        return Merged(cast("Imported", found.outcome), self._store.epoch)

    async def stage(self, wanted: Sequence[Wanted]) -> None:
        self._store.journal.append("stage")
        self._wanted = wanted

    async def lock(self, tenant: str, intent: Intent, existing: Existing) -> LockedImport:
        store = self._store
        await self._locks.enter_async_context(store.writing)
        store.journal.append("lock")
        known = await self.remembered(tenant, intent)
        taken = [number for number, wanted in enumerate(self._wanted) if wanted.key in store.routes]
        if not known and taken and existing is Existing.REFUSE:
            raise RoutesExist([FieldViolation(f"routes[{number}].key", "exists") for number in taken])
        if not known:
            self._refuse_mismatches()
        self._tenant, self._intent, self._existing = tenant, intent, existing
        return LockedImport(Clock(store.epoch, store.revision), known)

    async def merge(self) -> Merged:
        store = self._store
        self._record(self._intent, self._existing)
        merged = self._merged()
        await store.before_commit.passing()
        store.journal.append("commit")
        if store.commit_failure is None or store.commits_anyway:
            self._commit(merged)
        if store.commit_failure:
            raise store.commit_failure
        return merged

    def _commit(self, merged: Merged) -> None:
        self._store.routes |= {change.key: change.after for change in self._changes if change.after}
        self._store.changes += self._changes
        self._store.revision += len(self._changes)
        if self._intent.request_id:
            name = (self._tenant, self._intent.request_id)
            outcome = cast("Outcome", merged.imported)
            self._store.requests[name] = StoredOutcome(*name, self._intent.fingerprint, outcome)

    def _refuse_mismatches(self) -> None:
        violations: list[FieldViolation] = []
        for number, wanted in enumerate(self._wanted):
            route, expected = self._store.routes.get(wanted.key), wanted.expected_revision
            if expected and (route is None or route.revision != expected):
                truth = f"the route is at revision {route.revision}" if route else "there is no such route"
                violations.append(FieldViolation(f"routes[{number}].expected_revision", f"is {expected}, and {truth}"))
        if violations:
            raise RevisionsMismatch(violations)

    def _record(self, intent: Intent, existing: Existing) -> None:
        drafts = [draft for wanted in self._wanted if (draft := self._draft(wanted, existing))]
        drafts.sort(key=lambda draft: bool(draft.before and draft.before.active and not draft.active))
        clock, routes = Clock(self._store.epoch, self._store.revision), list(self._store.routes.values())
        self._changes = Ledger(LockedState(clock, datetime.now(UTC), routes, ())).apply(drafts, intent)

    def _draft(self, wanted: Wanted, existing: Existing) -> Draft | None:
        before = self._store.routes.get(wanted.key)
        active, labels = _first(wanted.active, before.active if before else None, True), wanted.labels
        if before is None:
            return Draft(ChangeKind.CREATED, wanted.key, None, wanted.url, active, labels or {})
        labels = before.labels if labels is None else labels
        if existing is Existing.SKIP or (before.url, before.active, before.labels) == (wanted.url, active, labels):
            return None
        return Draft(_kind(before, wanted.url, active, dict(labels)), wanted.key, before, wanted.url, active, labels)

    def _merged(self) -> Merged:
        created = sum(change.kind is ChangeKind.CREATED for change in self._changes)
        last = self._store.revision + len(self._changes)
        first, final = (self._store.revision + 1, last) if self._changes else (0, 0)
        unchanged = len(self._wanted) - len(self._changes)
        changed = {change.key: change.revision for change in self._changes}
        revisions = [changed.get(wanted.key) or self._store.routes[wanted.key].revision for wanted in self._wanted]
        imported = Imported(created, len(self._changes) - created, unchanged, first, final, last)
        return Merged(imported, self._store.epoch, revisions)


def _kind(before: Route, url: str, active: bool, labels: dict[str, str]) -> ChangeKind:
    if (before.url, before.labels) != (url, labels):
        return ChangeKind.UPDATED
    return ChangeKind.ACTIVATED if active else ChangeKind.DEACTIVATED


def _first(*values: bool | None) -> bool:
    return next(value for value in values if value is not None)
