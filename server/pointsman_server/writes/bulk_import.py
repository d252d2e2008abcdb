"""The write path of many routes at once: one transaction for all of them, then the caches, then the answer.

Unlike ``changing`` it never has a route in its hands: what becomes of each is decided in the store, in one statement.
"""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pointsman.rules import url_problem
from pointsman_server.domain.errors import MOST_VIOLATIONS, FieldViolation, InvalidField
from pointsman_server.domain.routes import RouteKey, Wanted
from pointsman_server.ports.bulk_store import BulkStore, Existing, Imported, Merged
from pointsman_server.ports.cache import RouteCache
from pointsman_server.ports.store import Clock, Intent

# One stages its routes while another one merges. More would only wait for each other, and keep connections from
# everybody else.
CONCURRENCY = 2


@dataclass(frozen=True, slots=True)
class Import:
    """Make each route what is wanted; ``existing`` says what becomes of those that are there."""

    wanted: Sequence[Wanted]
    existing: Existing = Existing.UPDATE


class BulkImporter:
    """Carries out imports. ``supersede`` is told the keys, and the revision at which each last changed; then
    ``on_committed`` how many changes were made, up to where the clock then was.

    The order of steps is that of ``GroupCommitter``. Caches are not filled: most of what is imported may never be read.
    What they do not hold is not marked: every load of it holds a lease, and that ends after the commit.
    """

    def __init__(
        self,
        store: BulkStore,
        cache: RouteCache,
        supersede: Callable[[Sequence[RouteKey], Sequence[int]], None],
        on_committed: Callable[[Clock, int], None] = lambda _clock, _changes: None,
    ) -> None:
        self._store = store
        self._cache = cache
        self._supersede = supersede
        self._on_committed = on_committed
        self._turns = asyncio.Semaphore(CONCURRENCY)

    async def import_(self, command: Import, intent: Intent) -> Imported:
        """Import everything, or nothing.

        Raises InvalidField, RoutesExist, RevisionsMismatch, RequestIdReused, StoreUnavailable and Overloaded.
        """
        keys = [wanted.key for wanted in command.wanted]
        check(command.wanted)
        async with self._turns:
            owner = secrets.token_hex(8)
            merged = await self._merge(command, keys, intent, owner)
            imported = merged.imported
            # A replay knows no more than that all of it is older than its answer.
            revisions = merged.revisions or [imported.revision] * len(keys)
            clock = Clock(merged.epoch, imported.revision)
            self._supersede(keys, revisions)
            if merged.revisions and imported.last:
                self._on_committed(clock, imported.last - imported.first + 1)
            await self._cache.drop_older(keys, revisions, clock, owner)
        return imported

    async def _merge(self, command: Import, keys: Sequence[RouteKey], intent: Intent, owner: str) -> Merged:
        tenant = keys[0].tenant
        async with self._store.begin_import() as transaction:
            known = await transaction.remembered(tenant, intent)
            if known:
                return known
            await transaction.stage(command.wanted)
            # Before the locks: nobody waits for Redis.
            await self._cache.mark_held(keys, owner)
            locked = await transaction.lock(tenant, intent, command.existing)
            return locked.known or await transaction.merge()


def check(wanted: Sequence[Wanted]) -> None:
    """Raise InvalidField for bad urls, and for keys that are given twice."""
    violations: list[FieldViolation] = []
    first: dict[RouteKey, int] = {}
    for number, each in enumerate(wanted):
        problem = url_problem(each.url)
        if problem:
            violations.append(FieldViolation(f"routes[{number}].url", problem))
        before = first.setdefault(each.key, number)
        if before != number:
            violations.append(FieldViolation(f"routes[{number}].key", f"is that of routes[{before}] again"))
        if len(violations) > MOST_VIOLATIONS:
            break
    if violations:
        raise InvalidField(violations)
