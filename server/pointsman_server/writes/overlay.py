"""One change set while it is decided: its effects lie over the ledger, and reach it all together or not at all."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from pointsman_server.domain.routes import ChangeKind, Draft, Route, RouteKey, Traffic
from pointsman_server.domain.traffic import allot
from pointsman_server.ports.store import Step


@dataclass(frozen=True, slots=True)
class State:
    """The input of one decision, as of ``revision`` of ``epoch``.

    ``route`` is that of the mutation's key, None if there is none, and for the key of a family. ``siblings`` are the
    other routes of the family; empty unless they are asked for. ``traffic`` is that of the family, if the scope of the
    mutation has that; otherwise it is None.
    """

    route: Route | None
    siblings: Sequence[Route]
    revision: int
    epoch: str
    traffic: Traffic | None = None


class Applied(NamedTuple):
    """A draft with its revision, and what it left."""

    draft: Draft
    revision: int
    after: Route | None
    traffic_after: Traffic | None


class Base(Protocol):
    """What an overlay lies over: a ledger that does not change meanwhile."""

    epoch: str
    revision: int
    moment: datetime

    def routes_of(self, key: RouteKey) -> Mapping[RouteKey, Route]:
        """Return the routes that are known of the family of ``key``."""

    def traffic_of(self, key: RouteKey) -> Traffic | None:
        """Return the traffic of the family of ``key``, None if there is none."""


class Overlay:
    """The state after the drafts that were applied so far; copy-on-write over the ledger.

    ``applied`` has the drafts in order. ``unchanged`` and ``unchanged_families`` are the keys that a decision saw and
    found as wanted; a family has the highest revision of the parts that were seen.
    """

    def __init__(self, base: Base) -> None:
        self.revision = base.revision
        self.applied: list[Applied] = []
        # By the first three parts of the key, which are quicker to get than the key of the family.
        self.routes: dict[tuple[str, ...], dict[RouteKey, Route | None]] = {}
        self.traffic: dict[tuple[str, ...], Traffic | None] = {}
        self.unchanged: dict[RouteKey, None] = {}
        self.unchanged_families: dict[RouteKey, int] = {}
        self._base = base
        self._seen: list[tuple[RouteKey, State]] = []

    def see(self, key: RouteKey, *, family: bool = False) -> State:
        """Return the state of ``key``; with ``family`` including its siblings, in no order.

        The key, with ``family`` its family too, must be in the scope of the mutation: what was not locked is absent.
        """
        routes, changed = self._base.routes_of(key), self.routes.get(key[:3])
        route = changed[key] if changed and key in changed else routes.get(key)
        siblings: Sequence[Route] = ()
        if family:
            known: Mapping[RouteKey, Route | None] = {**routes, **changed} if changed else routes
            siblings = [other for other in known.values() if other is not None and other.key != key]
        state = State(route, siblings, self.revision, self._base.epoch, self.traffic_of(key))
        self._seen.append((key, state))
        return state

    def route_of(self, key: RouteKey) -> Route | None:
        """Return the route of a key, without taking a look that ``apply`` confirms."""
        changed = self.routes.get(key[:3])
        return changed[key] if changed and key in changed else self._base.routes_of(key).get(key)

    def traffic_of(self, key: RouteKey) -> Traffic | None:
        """Return the traffic of the family of ``key`` in the same way."""
        name = key[:3]
        return self.traffic[name] if name in self.traffic else self._base.traffic_of(key)

    def apply(self, drafts: Sequence[Draft]) -> Step:
        """Give each draft the next revision and apply it, in order: what one mutation of the change set does."""
        if not drafts:
            self._confirm(self._seen)
            self._seen = []
            return Step(0, 0)
        self._seen = []
        first = self.revision + 1
        for draft in drafts:
            self.revision += 1
            name = draft.key[:3]
            if draft.kind.of_traffic:
                traffic = self._traffic_after(draft, self.revision)
                self.traffic[name] = traffic
                self.applied.append(Applied(draft, self.revision, None, traffic))
            else:
                after = self._route_after(draft, self.revision)
                self.routes.setdefault(name, {})[draft.key] = after
                self.applied.append(Applied(draft, self.revision, after, None))
        return Step(first, len(drafts))

    def _confirm(self, seen: Iterable[tuple[RouteKey, State]]) -> None:
        for key, state in seen:
            if key.version:
                self.unchanged[key] = None
                self.unchanged |= dict.fromkeys(sibling.key for sibling in state.siblings)
            parts = [part for part in (state.route, state.traffic, *state.siblings) if part]
            name, known = key.family_key, self.unchanged_families
            known[name] = max([known.get(name, 0), *(part.revision for part in parts)])

    def _route_after(self, draft: Draft, revision: int) -> Route | None:
        if draft.kind is ChangeKind.DELETED:
            return None
        moment = self._base.moment
        create_time = draft.before.create_time if draft.before else moment
        return Route(draft.key, draft.url, draft.active, dict(draft.labels), revision, create_time, moment)

    def _traffic_after(self, draft: Draft, revision: int) -> Traffic | None:
        if draft.division is None:
            return None
        before, moment = draft.traffic_before, self._base.moment
        slices = draft.slices or allot(draft.division.targets, before.slices if before else ())
        create_time = before.create_time if before else moment
        return Traffic(draft.key, draft.division, slices, revision, create_time, moment)
