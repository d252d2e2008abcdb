"""The state that a group of mutations is decided against: what its transaction locked, plus the group's own changes.

The mutations of a group are applied one after the other, in memory. Each sees the effects of those before it and gets
revisions of its own. Nothing here does I/O, and nothing is final before the transaction commits.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence

from pointsman_server.domain.errors import RequestIdReused
from pointsman_server.domain.routes import Change, Draft, Route, RouteKey, Snapshot, Traffic
from pointsman_server.ports.store import Intent, LockedState, Outcome, StoredOutcome
from pointsman_server.writes.overlay import Applied, Overlay, State

_NOTHING: Mapping[RouteKey, Route] = {}


class Ledger:
    """The locked routes as of ``revision``, the ``changes`` that the group made, and the outcomes to store."""

    def __init__(self, locked: LockedState) -> None:
        self.epoch = locked.clock.epoch
        self.revision = locked.clock.revision
        self.moment = locked.moment
        self.changes: list[Change] = []
        self.remembered: dict[tuple[str, str], StoredOutcome] = {}
        # By the first three parts of the key.
        self._families: dict[tuple[str, ...], dict[RouteKey, Route]] = {}
        self._traffic: dict[tuple[str, ...], Traffic] = {traffic.key[:3]: traffic for traffic in locked.traffic}
        for route in locked.routes:
            self._families.setdefault(route.key[:3], {})[route.key] = route

    def routes_of(self, key: RouteKey) -> Mapping[RouteKey, Route]:
        """Return the routes that are known of the family of ``key``."""
        return self._families.get(key[:3], _NOTHING)

    def traffic_of(self, key: RouteKey) -> Traffic | None:
        """Return the traffic of the family of ``key``, None if there is none."""
        return self._traffic.get(key[:3])

    def see(self, key: RouteKey, *, family: bool = False) -> State:
        """Return the state of ``key``; with ``family`` including its siblings, in no order."""
        return Overlay(self).see(key, family=family)

    def apply(self, drafts: Sequence[Draft], intent: Intent) -> list[Change]:
        """Make each draft a change with the next revision, in order; together they are a change set."""
        overlay = Overlay(self)
        overlay.apply(drafts)
        changes = changes_of(overlay, intent, self)
        self.adopt(overlay, changes)
        return changes

    def adopt(self, overlay: Overlay, changes: Sequence[Change]) -> None:
        """Take over what an overlay of this ledger did, and ``changes``, its ``changes_of``."""
        for family, routes in overlay.routes.items():
            known = self._families.setdefault(family, {})
            for key, route in routes.items():
                if route is None:
                    known.pop(key, None)
                else:
                    known[key] = route
        for family, traffic in overlay.traffic.items():
            if traffic is None:
                self._traffic.pop(family, None)
            else:
                self._traffic[family] = traffic
        self.changes += changes
        self.revision = overlay.revision

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
        """Return the state of each key of a route after the whole group, each once."""
        return [Snapshot(key, self.routes_of(key).get(key), self.revision, self.epoch) for key in dict.fromkeys(keys)]


def changes_of(overlay: Overlay, intent: Intent, ledger: Ledger) -> list[Change]:
    """Return the changes of an overlay of ``ledger``: one change set."""
    applied = overlay.applied
    if not applied:
        return []
    return [_change(each, intent, ledger, applied[0].revision, len(applied)) for each in applied]


def _change(applied: Applied, intent: Intent, ledger: Ledger, change_set_id: int, size: int) -> Change:
    draft, revision, after, traffic_after = applied
    return Change(
        revision=revision,
        event_id=str(uuid.uuid4()),
        kind=draft.kind,
        key=draft.key,
        before=draft.before,
        after=after,
        actor=intent.actor,
        reason=intent.reason,
        request_id=intent.request_id,
        occur_time=ledger.moment,
        epoch=ledger.epoch,
        traceparent=intent.traceparent,
        change_set_end=change_set_id + size - 1,
        tracestate=intent.tracestate,
        change_set_id=change_set_id,
        change_set_size=size,
        traffic_before=draft.traffic_before,
        traffic_after=traffic_after,
    )
