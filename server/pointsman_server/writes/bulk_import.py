"""The write path for many routes at once: one transaction for all of them, then the caches, then the answer.

Unlike ``group_commit``, the process does not read the routes: the store decides about all of them in one statement.
"""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from pointsman.rules import url_problem
from pointsman_server.domain.errors import MOST_VIOLATIONS, FieldViolation, InvalidField
from pointsman_server.domain.routes import RouteKey, Wanted
from pointsman_server.ports.bulk_store import BulkStore, Existing, Imported, Merged
from pointsman_server.ports.cache import RouteCache
from pointsman_server.ports.store import Clock, Intent
from pointsman_server.runtime.offload import LARGE, in_thread_if_large
from pointsman_server.writes.change_log import log_import

# One import stages its routes while another merges. More would only wait for each other and occupy connections.
CONCURRENCY = 2


@dataclass(frozen=True, slots=True)
class Import:
    """The routes to import, of one tenant; ``existing`` says what to do with those that exist."""

    wanted: Sequence[Wanted]
    existing: Existing = Existing.UPDATE


class BulkImporter:
    """Carries out imports.

    The order of steps is that of ``GroupCommitter``. Caches are invalidated, not filled: most imported routes may never
    be read. Keys that the shared cache does not hold are not marked: their loads hold a lease, which ends after the
    commit.

    After the commit ``supersede`` receives the keys, those of their families too, and the revision at which each last
    changed; then ``on_imported`` the epoch and the first and last revision of the import, if it made changes.
    """

    def __init__(
        self,
        store: BulkStore,
        cache: RouteCache,
        supersede: Callable[[Sequence[RouteKey], Sequence[int]], None],
        on_imported: Callable[[str, int, int], None] = lambda _epoch, _first, _last: None,
    ) -> None:
        self._store = store
        self._cache = cache
        self._supersede = supersede
        self._on_imported = on_imported
        self._turns = asyncio.Semaphore(CONCURRENCY)

    async def import_(self, command: Import, intent: Intent) -> Imported:
        """Import everything, or nothing.

        Raises InvalidField, RoutesExist, RevisionsMismatch, RequestIdReused, StoreUnavailable and Overloaded.
        """
        keys = [wanted.key for wanted in command.wanted]
        check(command.wanted)
        families, places = await in_thread_if_large(lambda: families_of(keys), len(keys))
        held = [*keys, *families]
        async with self._turns:
            owner = secrets.token_hex(8)
            merged = await self._merge(command, held, intent, owner)
            imported = merged.imported
            # Of a replay it is only known that no route changed later than its answer says.
            revisions = merged.revisions or [imported.revision] * len(keys)
            clock = Clock(merged.epoch, imported.revision)
            logged: asyncio.Future[None] | None = None
            held_revisions = [*revisions, *highest_of(places, revisions, len(families))]
            self._supersede(held, held_revisions)
            if merged.revisions and imported.last:
                self._on_imported(merged.epoch, imported.first, imported.last)
                logged = self._log(keys, merged, intent)
            await self._cache.drop_older(held, held_revisions, clock, owner)
            if logged is not None:
                await logged
        return imported

    def _log(self, keys: Sequence[RouteKey], merged: Merged, intent: Intent) -> asyncio.Future[None] | None:
        """Log the changes: a few at once, many in a thread, also when the caller of the import has gone."""
        write = partial(log_import, keys, merged.revisions, merged.imported.first, intent)
        if len(keys) <= LARGE:
            write()
            return None
        return asyncio.get_running_loop().run_in_executor(None, write)

    async def _merge(self, command: Import, held: Sequence[RouteKey], intent: Intent, owner: str) -> Merged:
        tenant = command.wanted[0].key.tenant
        async with self._store.begin_import() as transaction:
            known = await transaction.remembered(tenant, intent)
            if known:
                return known
            await transaction.stage(command.wanted)
            # Before the locks, so that no other transaction waits for Redis.
            await self._cache.mark_held(held, owner)
            locked = await transaction.lock(tenant, intent, command.existing)
            return locked.known or await transaction.merge()


def families_of(keys: Sequence[RouteKey]) -> tuple[list[RouteKey], list[int]]:
    """Return the keys of the families of ``keys``, each once, and for each key the place of its family among them."""
    found: dict[tuple[str, ...], int] = {}
    places = [found.setdefault(key[:3], len(found)) for key in keys]
    return [RouteKey(tenant, service, env, "") for tenant, service, env in found], places


def highest_of(places: Sequence[int], revisions: Sequence[int], count: int) -> list[int]:
    """Return for each of ``count`` families the highest of the revisions of its members."""
    highest = [0] * count
    for place, revision in zip(places, revisions, strict=True):
        if revision > highest[place]:
            highest[place] = revision
    return highest


def check(wanted: Sequence[Wanted]) -> None:
    """Raise InvalidField for invalid URLs and for keys that occur twice."""
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
