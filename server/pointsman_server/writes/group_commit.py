"""The write path: one transaction for all mutations that wait, then the caches, then the answers.

Each kind of mutation has a pure function that decides its changes (``mutations.decide_*``); ``GroupCommitter`` carries
out all kinds alike.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence

from pointsman_server.domain.errors import PointsmanError
from pointsman_server.domain.routes import Change, RouteKey, Snapshot
from pointsman_server.ports.cache import RouteCache
from pointsman_server.ports.store import Intent, LockedState, MutationScope, Outcome, RouteStore
from pointsman_server.runtime.batcher import Batcher
from pointsman_server.runtime.fair_share import FairShare
from pointsman_server.runtime.offload import LARGE, in_thread_if_large
from pointsman_server.telemetry.tracing.batches import BatchSpans
from pointsman_server.writes import checks, commit
from pointsman_server.writes.batch import Batch, Decision, Mutation
from pointsman_server.writes.caches import WrittenCaches
from pointsman_server.writes.change_log import log_changes
from pointsman_server.writes.commit import Commit
from pointsman_server.writes.ledger import Ledger
from pointsman_server.writes.mutations import (
    Activate,
    Command,
    Create,
    Deactivate,
    Delete,
    DeleteTraffic,
    SetTraffic,
    Update,
    decide,
    of_family,
    of_traffic,
)

logger = logging.getLogger(__name__)

# The most mutations in one transaction, unless it is one large commit; and the most that wait: beyond that, Overloaded.
GROUP = 500
WAITING = 2000


class GroupCommitter:
    """Carries out mutations in groups.

    **Groups.** A mutation that arrives when none is in progress starts a group at once. Those that arrive until that
    one is recorded form the next group, with one transaction and one flush to disk. A group is decided in the order of
    arrival. Each mutation sees the effects of those before it and has its own outcome: a rejected one does not affect
    the others. If the transaction fails, all of them fail with its error. A cancelled caller does not cancel its
    mutation.

    **Order.** The shared cache is marked before the commit, so that no reader fills it with the state before. It is
    settled after the commit, so that no reader sees what may still roll back. Then the mutations are answered.

    **Callbacks**, after the commit, before the shared cache is settled, and without a pause unless it is large:
    ``apply_local_write`` receives the state of every route that was changed or confirmed; ``supersede`` receives the
    other keys that caches may hold, with the revisions below which they are stale; then ``on_committed`` receives the
    changes of the transaction, if it made any.
    """

    def __init__(
        self,
        store: RouteStore,
        cache: RouteCache,
        apply_local_write: Callable[[Sequence[Snapshot]], None],
        on_committed: Callable[[Sequence[Change]], None] = lambda _changes: None,
        *,
        supersede: Callable[[Sequence[RouteKey], Sequence[int]], None] = lambda _keys, _revisions: None,
        log_changes: Callable[[Sequence[tuple[Change, Intent]]], None] = log_changes,
        fair_share: FairShare | None = None,
    ) -> None:
        self._store = store
        self._caches = WrittenCaches(cache, apply_local_write, supersede, fair_share or FairShare())
        self._on_committed = on_committed
        self._log_changes = log_changes
        self._groups: Batcher[Mutation, Outcome | Exception] = Batcher(
            self._carry_out,
            size=GROUP,
            concurrency=1,
            queue=WAITING,
            limit="writes",
            tracer=BatchSpans("commit"),
            weigh=_weight,
        )

    async def create(self, command: Create, intent: Intent) -> Outcome:
        """Raises RouteExists, and InvalidField for the url; see also ``_change``."""
        return await self._change(command, intent)

    async def update(self, command: Update, intent: Intent) -> Outcome:
        """Raises RouteNotFound, RevisionMismatch, and InvalidField for the url; see also ``_change``."""
        return await self._change(command, intent)

    async def activate(self, command: Activate, intent: Intent) -> Outcome:
        """Raises RouteNotFound and RevisionMismatch; see also ``_change``."""
        return await self._change(command, intent)

    async def deactivate(self, command: Deactivate, intent: Intent) -> Outcome:
        """Raises RouteNotFound and RevisionMismatch; see also ``_change``."""
        return await self._change(command, intent)

    async def delete(self, command: Delete, intent: Intent) -> Outcome:
        """Raises RouteNotFound, RevisionMismatch and RouteInTraffic; see also ``_change``."""
        return await self._change(command, intent)

    async def set_traffic(self, command: SetTraffic, intent: Intent) -> Outcome:
        """Raises TargetNotFound, TrafficNotFound, RevisionMismatch, and InvalidField; see also ``_change``."""
        return await self._change(command, intent)

    async def delete_traffic(self, command: DeleteTraffic, intent: Intent) -> Outcome:
        """Raises TrafficNotFound and RevisionMismatch; see also ``_change``."""
        return await self._change(command, intent)

    async def commit(self, command: Commit, intent: Intent) -> Outcome:
        """Make all of the mutations, or none. Raises InvalidField and MutationsRefused; see also ``change_set``."""
        commands = command.commands
        scope = await in_thread_if_large(lambda: commit.scope_of(commands, intent), len(commands))
        return await self.change_set(scope, commit.decide_all(command.commands), dry_run=command.dry_run)

    async def change_set(self, scope: MutationScope, decide: Decision, *, dry_run: bool = False) -> Outcome:
        """Decide under the lock what to change, as one change set: all of it, or nothing.

        ``decide`` sees the keys of ``scope``, ``others`` included. It applies drafts with ``Overlay.apply``, one call
        for each step, and returns the steps; what it raises is raised here, and then nothing is changed. After a fault
        it is called again. With ``dry_run`` nothing is changed and nothing stored, and the outcome is the one that
        there would have been, but as of the revision before it.

        Raises RequestIdReused, StoreUnavailable and Overloaded. The outcome of a replay has no ``changes``: the history
        has them.
        """
        return await self._get(Mutation(scope, decide, change_set=True, dry_run=dry_run))

    async def drain(self) -> None:
        """Wait until every mutation is carried out, those of cancelled callers too."""
        await self._groups.drain()

    async def _change(self, command: Command, intent: Intent) -> Outcome:
        """Add a mutation to the next group. Raises RequestIdReused, StoreUnavailable and Overloaded.

        The outcome is true as of its revision, which may be higher than that of its route.
        """
        checks.check(command)
        key, family = command.key, of_family(command)
        return await self._get(
            Mutation(
                MutationScope(key, intent, family, divided=(key.family_key,) if of_traffic(command) else ()),
                lambda overlay: [overlay.apply(decide(command, overlay.see(key, family=family)))],
            )
        )

    async def _get(self, mutation: Mutation) -> Outcome:
        outcome = await self._groups.get(mutation)
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

    async def _transact(self, group: Sequence[Mutation], owner: str) -> Batch:
        """Lock, decide, mark, record, commit."""
        async with self._store.begin() as transaction:
            locked = await transaction.lock([mutation.scope for mutation in group])
            largest = max(len(mutation.scope.others) for mutation in group)
            batch = await in_thread_if_large(lambda: _decided(group, locked), largest)
            ledger = batch.ledger
            if ledger.changes:
                await self._caches.mark(batch, owner)
            if batch.records:
                await transaction.record(ledger.changes, list(ledger.remembered.values()))
            # The next group may begin: it waits in the store for this commit, not here for the commit and the caches.
            self._groups.release()
        return batch

    async def _publish(self, batch: Batch, owner: str) -> None:
        """Make every cache hold the state after the group, and nothing older."""
        written = self._caches.written(batch)
        await written.apply_locally()
        logged: asyncio.Future[None] | None = None
        if batch.ledger.changes:
            self._on_committed(batch.ledger.changes)
            logged = self._log(batch.made)
        await written.settle(owner)
        if logged is not None:
            await logged

    def _log(self, made: Sequence[tuple[Change, Intent]]) -> asyncio.Future[None] | None:
        """Log the changes: a few at once, many in a thread."""
        if len(made) <= LARGE:
            self._log_changes(made)
            return None
        return asyncio.get_running_loop().run_in_executor(None, self._log_changes, made)


def _weight(mutation: Mutation) -> int:
    # A commit of a thousand takes as long as a thousand mutations.
    return len(mutation.scope.others) or 1


def _decided(group: Sequence[Mutation], locked: LockedState) -> Batch:
    batch = Batch(Ledger(locked))
    for mutation, known in zip(group, locked.remembered, strict=True):
        batch.carry_out(mutation, known)
    return batch
