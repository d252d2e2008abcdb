"""The write path: one transaction for all mutations that wait, then the caches, then the answers.

What a mutation does is decided by a pure function of what it sees (``decide_*``); how it is carried out is the same
for all of them (``GroupCommitter``).
"""

import logging
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from pointsman_server.domain.errors import (
    PointsmanError,
)
from pointsman_server.domain.routes import Change, RouteKey, Snapshot, check_url
from pointsman_server.ports.cache import CacheUnavailable, RouteCache
from pointsman_server.ports.store import Clock, Intent, MutationScope, Outcome, RouteStore, StoredOutcome
from pointsman_server.runtime.batcher import Batcher
from pointsman_server.writes.ledger import Ledger, State
from pointsman_server.writes.mutations import (
    Activate,
    Create,
    Deactivate,
    Decision,
    Delete,
    Update,
    decide_activate,
    decide_create,
    decide_deactivate,
    decide_delete,
    decide_update,
)

logger = logging.getLogger(__name__)

# How many mutations share a transaction at most, and how many may wait for the next one before they are refused.
GROUP = 500
WAITING = 2000


@dataclass(frozen=True, slots=True, eq=False)
class Mutation:
    """One of a group: what it asks to see, and what it then does. Equal to nothing but itself."""

    asked: MutationScope
    decide: Decision


class GroupCommitter:
    """Carries out mutations. ``apply_local_write`` is told what they left behind, before they are answered, and
    ``on_committed`` how many
    changes they made, up to where the clock then was.

    **Groups.** What arrives while a group is decided waits, and is the next group: it shares one transaction and
    one flush to disk. The first goes at once. A group is decided in the order of arrival, each mutation seeing what
    those before it did, and each has an outcome of its own: a refusal has no effect on the others. What befalls the
    transaction befalls all of them. Who stops waiting stops nothing.

    **Order**, and why: the shared cache is marked before the commit, so no reader fills it with the state before;
    it is settled after the commit, so no reader sees what may still roll back; only then come the answers.
    """

    def __init__(
        self,
        store: RouteStore,
        cache: RouteCache,
        apply_local_write: Callable[[Sequence[Snapshot]], None],
        on_committed: Callable[[Clock, int], None] = lambda _clock, _changes: None,
    ) -> None:
        self._store = store
        self._cache = cache
        self._learn = apply_local_write
        self._on_committed = on_committed
        self._groups: Batcher[Mutation, Outcome | Exception] = Batcher(
            self._carry_out, size=GROUP, concurrency=1, queue=WAITING, limit="writes"
        )

    async def create(self, command: Create, intent: Intent) -> Outcome:
        """Raises RouteExists, and InvalidField for the url; see also ``_change``."""
        check_url(command.url)
        return await self._change(MutationScope(command.key, intent), lambda seen: decide_create(command, seen))

    async def update(self, command: Update, intent: Intent) -> Outcome:
        """Raises RouteNotFound, RevisionMismatch, and InvalidField for the url; see also ``_change``."""
        if command.url is not None:
            check_url(command.url)
        return await self._change(MutationScope(command.key, intent), lambda seen: decide_update(command, seen))

    async def activate(self, command: Activate, intent: Intent) -> Outcome:
        """Raises RouteNotFound and RevisionMismatch; see also ``_change``."""
        asked = MutationScope(command.key, intent, family=command.exclusive)
        return await self._change(asked, lambda seen: decide_activate(command, seen))

    async def deactivate(self, command: Deactivate, intent: Intent) -> Outcome:
        """Raises RouteNotFound and RevisionMismatch; see also ``_change``."""
        return await self._change(MutationScope(command.key, intent), lambda seen: decide_deactivate(command, seen))

    async def delete(self, command: Delete, intent: Intent) -> Outcome:
        """Raises RouteNotFound and RevisionMismatch; see also ``_change``."""
        return await self._change(MutationScope(command.key, intent), lambda seen: decide_delete(command, seen))

    async def drain(self) -> None:
        """Wait until everything that was asked for is carried out, also what nobody waits for any more."""
        await self._groups.drain()

    async def _change(self, asked: MutationScope, decide: Decision) -> Outcome:
        """Go with the next group. Raises RequestIdReused, StoreUnavailable and Overloaded.

        The answer may say a higher revision than the route's: it is one as of which everything decided holds.
        """
        outcome = await self._groups.get(Mutation(asked, decide))
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def _carry_out(self, group: Sequence[Mutation]) -> Sequence[Outcome | Exception]:
        owner = secrets.token_hex(8)
        try:
            work = await self._transact(group, owner)
        except PointsmanError:
            raise
        except Exception:
            if len(group) == 1:
                raise
            logger.exception("%d mutations failed together: each is tried alone", len(group))
            return [await self._alone(mutation) for mutation in group]
        await self._publish(work, owner)
        return work.outcomes

    async def _alone(self, mutation: Mutation) -> Outcome | Exception:
        try:
            (outcome,) = await self._carry_out([mutation])
        except Exception as error:  # noqa: BLE001 - handed to who waits for it
            return error
        return outcome

    async def _transact(self, group: Sequence[Mutation], owner: str) -> "_Batch":
        """Lock, decide, mark, record, commit."""
        async with self._store.begin() as transaction:
            locked = await transaction.lock([mutation.asked for mutation in group])
            work = _Batch(Ledger(locked))
            for mutation, known in zip(group, locked.remembered, strict=True):
                work.carry_out(mutation, known)
            ledger = work.ledger
            if ledger.changes:
                await self._cache.mark(list(work.changed), owner)
            if ledger.changes or ledger.remembered:
                await transaction.record(ledger.changes, list(ledger.remembered.values()))
            # The next group waits in the store, for this commit, and no longer here for its answer and the caches.
            self._groups.release()
        return work

    async def _publish(self, work: "_Batch", owner: str) -> None:
        """Let every cache show what is now, and nothing older.

        What changes nothing is answered OK too, also when another server did it a moment ago, and perhaps died before
        it settled: so what the lock showed is confirmed before the answer, or else caches could go on with the state
        before.
        """
        ledger = work.ledger
        changed = ledger.snapshots(work.changed)
        confirmed = ledger.snapshots(key for key in work.unchanged if key not in work.changed)
        if changed or confirmed:
            self._learn([*changed, *confirmed])
        if ledger.changes:
            self._on_committed(Clock(ledger.epoch, ledger.revision), len(ledger.changes))
        if changed:
            await self._cache.settle(changed, owner)
        if confirmed:
            # Best effort, as settling is: where Redis is out, the bounds of the caches hold.
            with suppress(CacheUnavailable):
                await self._cache.consume(confirmed)


class _Batch:
    """A group under way: its ledger, an outcome for each mutation so far, and what was changed, or found as wanted."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.outcomes: list[Outcome | Exception] = []
        self.changed: dict[RouteKey, None] = {}
        self.unchanged: dict[RouteKey, None] = {}

    def carry_out(self, mutation: Mutation, known: StoredOutcome | None) -> None:
        try:
            self.outcomes.append(self._outcome(mutation, known))
        except PointsmanError as error:
            self.outcomes.append(error)

    def _outcome(self, mutation: Mutation, known: StoredOutcome | None) -> Outcome:
        asked, ledger = mutation.asked, self.ledger
        replay = ledger.replay(asked.key, asked.intent, known)
        seen = ledger.see(asked.key, family=asked.family)
        changes = [] if replay else ledger.apply(mutation.decide(seen), asked.intent)
        self.changed |= dict.fromkeys(change.key for change in changes)
        if not changes:
            self.unchanged |= dict.fromkeys([asked.key, *(sibling.key for sibling in seen.siblings)])
        if replay:
            return replay
        outcome = _outcome(asked.key, seen, changes)
        ledger.remember(asked.key, asked.intent, outcome)
        return outcome


def _outcome(key: RouteKey, seen: State, changes: Sequence[Change]) -> Outcome:
    route = next((change.after for change in changes if change.key == key), seen.route)
    revision = changes[-1].revision if changes else seen.revision
    return Outcome(route, revision)
