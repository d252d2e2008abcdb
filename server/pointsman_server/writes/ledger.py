"""The state that a group of mutations is decided against: what its transaction locked, plus the group's own changes.

The mutations of a group are applied one after the other, in memory. Each sees the effects of those before it and gets
revisions of its own. Nothing here does I/O, and nothing is final before the transaction commits.
"""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pointsman_server.domain.errors import RequestIdReused
from pointsman_server.domain.routes import Change, ChangeKind, Draft, Route, RouteKey, Snapshot
from pointsman_server.ports.store import Intent, LockedState, Outcome, StoredOutcome


@dataclass(frozen=True, slots=True)
class State:
    """The input of one decision, as of ``revision`` of ``epoch``.

    ``route`` is that of the mutation's key, None if there is none; ``siblings`` are empty unless its scope asks for
    them.
    """

    route: Route | None
    siblings: Sequence[Route]
    revision: int
    epoch: str


class Ledger:
    """The locked routes as of ``revision``, the ``changes`` that the group made, and the outcomes to store."""

    def __init__(self, locked: LockedState) -> None:
        self.epoch = locked.clock.epoch
        self.revision = locked.clock.revision
        self.changes: list[Change] = []
        self.remembered: dict[tuple[str, str], StoredOutcome] = {}
        self._moment = locked.moment
        self._families: dict[str, dict[RouteKey, Route]] = {}
        for route in locked.routes:
            self._family(route.key)[route.key] = route

    def see(self, key: RouteKey, *, family: bool = False) -> State:
        """Return the state of ``key``; with ``family`` including its siblings, in the order of their keys."""
        routes = self._family(key)
        siblings = [routes[other] for other in sorted(routes) if other != key] if family else []
        return State(routes.get(key), siblings, self.revision, self.epoch)

    def apply(self, drafts: Sequence[Draft], intent: Intent) -> list[Change]:
        """Make each draft a change with the next revision, in order; together they are a change set."""
        first, end = self.revision + 1, self.revision + len(drafts)
        changes = [self._change(draft, intent, revision, end) for revision, draft in enumerate(drafts, first)]
        for change in changes:
            if change.after:
                self._family(change.key)[change.key] = change.after
            else:
                del self._family(change.key)[change.key]
        self.changes += changes
        self.revision += len(changes)
        return changes

    def replay(self, key: RouteKey, intent: Intent, known: StoredOutcome | None) -> Outcome | None:
        """Return the outcome of an earlier request with this id: ``known`` of the store, or one of this group.

        None if there is none. Raises RequestIdReused if that request was another one.
        """
        found = known or self.remembered.get((key.tenant, intent.request_id))
        if found is None:
            return None
        if found.fingerprint != intent.fingerprint:
            raise RequestIdReused(intent.request_id)
        return found.outcome

    def remember(self, key: RouteKey, intent: Intent, outcome: Outcome) -> None:
        """Store ``outcome`` for replays, if the intent has a ``request_id``."""
        name = (key.tenant, intent.request_id)
        if intent.request_id:
            self.remembered[name] = StoredOutcome(*name, intent.fingerprint, outcome)

    def snapshots(self, keys: Iterable[RouteKey]) -> list[Snapshot]:
        """Return the state of each key after the whole group, each once."""
        return [Snapshot(key, self._family(key).get(key), self.revision, self.epoch) for key in dict.fromkeys(keys)]

    def _family(self, key: RouteKey) -> dict[RouteKey, Route]:
        return self._families.setdefault(key.family, {})

    def _change(self, draft: Draft, intent: Intent, revision: int, change_set_end: int) -> Change:
        create_time = draft.before.create_time if draft.before else self._moment
        after = Route(draft.key, draft.url, draft.active, dict(draft.labels), revision, create_time, self._moment)
        return Change(
            revision=revision,
            event_id=str(uuid.uuid4()),
            kind=draft.kind,
            key=draft.key,
            before=draft.before,
            after=None if draft.kind is ChangeKind.DELETED else after,
            actor=intent.actor,
            reason=intent.reason,
            request_id=intent.request_id,
            occur_time=self._moment,
            epoch=self.epoch,
            traceparent=intent.traceparent,
            change_set_end=change_set_end,
            tracestate=intent.tracestate,
        )
