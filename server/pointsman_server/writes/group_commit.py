"""The write path: one transaction for all mutations that wait, then the caches, then the answers.

Each kind of mutation has a pure function that decides its changes (``mutations.decide_*``); ``GroupCommitter`` carries
out all kinds alike.
"""

import logging
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from pointsman_server.domain.errors import PointsmanError
from pointsman_server.domain.routes import Change, RouteKey, Snapshot, check_url
from pointsman_server.ports.cache import CacheUnavailable, RouteCache
from pointsman_server.ports.store import Intent, MutationScope, Outcome, RouteStore, StoredOutcome
from pointsman_server.runtime.batcher import Batcher
from pointsman_server.telemetry.tracing.batches import BatchSpans
from pointsman_server.writes.change_log import log_changes
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

# The most mutations in one transaction, and the most that wait for one: beyond that, Overloaded.
GROUP = 500
WAITING = 2000


@dataclass(frozen=True, slots=True, eq=False)
class Mutation:
    """One of a group: what to lock for it, and how it is then decided. Compared by identity."""

    scope: MutationScope
    decide: Decision


class GroupCommitter:
    """Carries out mutations in groups.

    **Groups.** A mutation that arrives when none is in progress starts a group at once. Those that arrive until that
    one is recorded form the next group, with one transaction and one flush to disk. A group is decided in the order of
    arrival. Each mutation sees the effects of those before it and has its own outcome: a rejected one does not affect
    the others. If the transaction fails, all of them fail with its error. A cancelled caller does not cancel its
    mutation.

    **Order.** The shared cache is marked before the commit, so that no reader fills it with the state before. It is
    settled after the commit, so that no reader sees what may still roll back. Then the mutations are answered.

    **Callbacks**, both after the commit, before the shared cache is settled, and without a pause in between:
    ``apply_local_write`` receives the state of every key that was changed or confirmed; then ``on_committed`` receives
    the changes of the transaction, if it made any.
    """

    def __init__(
        self,
        store: RouteStore,
        cache: RouteCache,
        apply_local_write: Callable[[Sequence[Snapshot]], None],
        on_committed: Callable[[Sequence[Change]], None] = lambda _changes: None,
        *,
        log_changes: Callable[[Sequence[tuple[Change, Intent]]], None] = log_changes,
    ) -> None:
        self._store = store
        self._cache = cache
        self._apply_local_write = apply_local_write
        self._on_committed = on_committed
        self._log_changes = log_changes
        self._groups: Batcher[Mutation, Outcome | Exception] = Batcher(
            self._carry_out, size=GROUP, concurrency=1, queue=WAITING, limit="writes", tracer=BatchSpans("commit")
        )

    async def create(self, command: Create, intent: Intent) -> Outcome:
        """Raises RouteExists, and InvalidField for the url; see also ``_change``."""
        check_url(command.url)
        return await self._change(MutationScope(command.key, intent), lambda state: decide_create(command, state))

    async def update(self, command: Update, intent: Intent) -> Outcome:
        """Raises RouteNotFound, RevisionMismatch, and InvalidField for the url; see also ``_change``."""
        if command.url is not None:
            check_url(command.url)
        return await self._change(MutationScope(command.key, intent), lambda state: decide_update(command, state))

    async def activate(self, command: Activate, intent: Intent) -> Outcome:
        """Raises RouteNotFound and RevisionMismatch; see also ``_change``."""
        scope = MutationScope(command.key, intent, family=command.exclusive)
        return await self._change(scope, lambda state: decide_activate(command, state))

    async def deactivate(self, command: Deactivate, intent: Intent) -> Outcome:
        """Raises RouteNotFound and RevisionMismatch; see also ``_change``."""
        return await self._change(MutationScope(command.key, intent), lambda state: decide_deactivate(command, state))

    async def delete(self, command: Delete, intent: Intent) -> Outcome:
        """Raises RouteNotFound and RevisionMismatch; see also ``_change``."""
        return await self._change(MutationScope(command.key, intent), lambda state: decide_delete(command, state))

    async def drain(self) -> None:
        """Wait until every mutation is carried out, those of cancelled callers too."""
        await self._groups.drain()

    async def _change(self, scope: MutationScope, decide: Decision) -> Outcome:
        """Add a mutation to the next group. Raises RequestIdReused, StoreUnavailable and Overloaded.

        The outcome is true as of its revision, which may be higher than that of its route.
        """
        outcome = await self._groups.get(Mutation(scope, decide))
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def _carry_out(self, group: Sequence[Mutation]) -> Sequence[Outcome | Exception]:
        owner = secrets.token_hex(8)
        try:
            batch = await self._transact(group, owner)
        except PointsmanError:
            raise
        except Exception:
            if len(group) == 1:
                raise
            logger.exception("%d mutations failed together: each is retried alone", len(group))
            return [await self._alone(mutation) for mutation in group]
        await self._publish(batch, owner)
        return batch.outcomes

    async def _alone(self, mutation: Mutation) -> Outcome | Exception:
        try:
            (outcome,) = await self._carry_out([mutation])
        except Exception as error:  # noqa: BLE001 - raised to the caller
            return error
        return outcome

    async def _transact(self, group: Sequence[Mutation], owner: str) -> "_Batch":
        """Lock, decide, mark, record, commit."""
        async with self._store.begin() as transaction:
            locked = await transaction.lock([mutation.scope for mutation in group])
            batch = _Batch(Ledger(locked))
            for mutation, known in zip(group, locked.remembered, strict=True):
                batch.carry_out(mutation, known)
            ledger = batch.ledger
            if ledger.changes:
                await self._cache.mark(list(batch.changed), owner)
            if ledger.changes or ledger.remembered:
                await transaction.record(ledger.changes, list(ledger.remembered.values()))
            # The next group may begin: it waits in the store for this commit, not here for the commit and the caches.
            self._groups.release()
        return batch

    async def _publish(self, batch: "_Batch", owner: str) -> None:
        """Make every cache hold the state after the group, and nothing older.

        A mutation that changes nothing is confirmed in the caches, too. Another server may have made its change a
        moment ago and died before it settled the shared cache, which would then still hold the state before.
        """
        ledger = batch.ledger
        changed = ledger.snapshots(batch.changed)
        confirmed = ledger.snapshots(key for key in batch.unchanged if key not in batch.changed)
        if changed or confirmed:
            self._apply_local_write([*changed, *confirmed])
        if ledger.changes:
            self._on_committed(ledger.changes)
            self._log_changes(batch.made)
        if changed:
            await self._cache.settle(changed, owner)
        if confirmed:
            # Best effort, as settling is: without Redis, entries expire by their time to live.
            with suppress(CacheUnavailable):
                await self._cache.consume(confirmed)


class _Batch:
    """A group in progress: its ledger, the outcomes so far, and the keys that were changed or needed no change.

    ``made`` has each change with the intent behind it.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.outcomes: list[Outcome | Exception] = []
        self.changed: dict[RouteKey, None] = {}
        self.unchanged: dict[RouteKey, None] = {}
        self.made: list[tuple[Change, Intent]] = []

    def carry_out(self, mutation: Mutation, known: StoredOutcome | None) -> None:
        try:
            self.outcomes.append(self._outcome(mutation, known))
        except PointsmanError as error:
            self.outcomes.append(error)

    def _outcome(self, mutation: Mutation, known: StoredOutcome | None) -> Outcome:
        scope, ledger = mutation.scope, self.ledger
        replay = ledger.replay(scope.key, scope.intent, known)
        state = ledger.see(scope.key, family=scope.family)
        changes = [] if replay else ledger.apply(mutation.decide(state), scope.intent)
        self.made += [(change, scope.intent) for change in changes]
        self.changed |= dict.fromkeys(change.key for change in changes)
        if not changes:
            self.unchanged |= dict.fromkeys([scope.key, *(sibling.key for sibling in state.siblings)])
        if replay:
            return replay
        outcome = _outcome(scope.key, state, changes)
        ledger.remember(scope.key, scope.intent, outcome)
        return outcome


def _outcome(key: RouteKey, state: State, changes: Sequence[Change]) -> Outcome:
    route = next((change.after for change in changes if change.key == key), state.route)
    revision = changes[-1].revision if changes else state.revision
    return Outcome(route, revision)
