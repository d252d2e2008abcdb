"""A group of mutations in progress: its ledger, the outcomes so far, and the keys that caches must learn of."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pointsman_server.domain.errors import PointsmanError
from pointsman_server.domain.routes import Change, RouteKey, Snapshot
from pointsman_server.ports.store import Intent, MutationScope, Outcome, Step, StoredOutcome
from pointsman_server.runtime.offload import LARGE
from pointsman_server.writes.ledger import Ledger, changes_of
from pointsman_server.writes.overlay import Overlay

# Returns what each step did. What it raises refuses the whole mutation.
Decision = Callable[[Overlay], Sequence[Step]]


@dataclass(frozen=True, slots=True, eq=False)
class Mutation:
    """One of a group: what to lock for it, and how it is then decided. Compared by identity.

    A ``change_set`` has many steps and is answered with them; one that is not has one step, of the scope's key. A
    ``dry_run`` is answered in the same way, and changes nothing.
    """

    scope: MutationScope
    decide: Decision
    change_set: bool = False
    dry_run: bool = False


class Batch:
    """A group in progress. ``made`` has each change with the intent behind it.

    For caches: ``settled`` are the routes that were changed; ``dropped`` are keys with the revision below which
    nothing may be held: families, and the routes of large change sets, most of which may never be read. ``confirmed``
    are routes that were found as wanted.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.outcomes: list[Outcome | Exception] = []
        self.made: list[tuple[Change, Intent]] = []
        self.settled: dict[RouteKey, None] = {}
        self.dropped: dict[RouteKey, int] = {}
        self._unchanged: dict[RouteKey, None] = {}
        self._unchanged_families: dict[RouteKey, int] = {}

    @property
    def records(self) -> bool:
        """Whether there is something to write."""
        return bool(self.ledger.changes or self.ledger.remembered)

    def carry_out(self, mutation: Mutation, known: StoredOutcome | None) -> None:
        """Decide a mutation and apply it; ``known`` is the stored outcome of its ``request_id``."""
        try:
            self.outcomes.append(self._outcome(mutation, known))
        except PointsmanError as error:
            self.outcomes.append(error)

    def confirmed(self) -> tuple[list[Snapshot], dict[RouteKey, int]]:
        """Return what was found as wanted and not changed: routes, and further keys as in ``dropped``."""
        changed = self.settled.keys() | self.dropped.keys()
        families = {
            key: revision for key, revision in self._unchanged_families.items() if revision and key not in changed
        }
        snapshots = self.ledger.snapshots(key for key in self._unchanged if key not in changed)
        if len(snapshots) <= LARGE:
            return snapshots, families
        return [], families | {each.key: each.route.revision if each.route else each.as_of for each in snapshots}

    def _outcome(self, mutation: Mutation, known: StoredOutcome | None) -> Outcome:
        scope, ledger = mutation.scope, self.ledger
        if replay := ledger.replay(scope.key, scope.intent, known):
            self._confirm_replay(scope, replay)
            return replay
        overlay = Overlay(ledger)
        steps = mutation.decide(overlay)
        changes = changes_of(overlay, scope.intent, ledger)
        outcome = _outcome_of(mutation, overlay, steps, changes)
        if not mutation.dry_run:
            ledger.adopt(overlay, changes)
            ledger.remember(scope.key, scope.intent, outcome)
            self._note(changes, overlay)
            self.made += [(change, scope.intent) for change in changes]
        return outcome

    def _note(self, changes: Sequence[Change], overlay: Overlay) -> None:
        large = len(changes) > LARGE
        for change in changes:
            key = change.key
            self.dropped[key.family_key] = change.revision
            if key.version and (large or key in self.dropped):
                self.settled.pop(key, None)
                self.dropped[key] = change.revision
            elif key.version:
                self.settled[key] = None
        self._unchanged |= overlay.unchanged
        self._confirm_families(overlay.unchanged_families.items())

    def _confirm_replay(self, scope: MutationScope, replay: Outcome) -> None:
        for key in (scope.key, *scope.others):
            routes = self.ledger.routes_of(key) if scope.family or not key.version else ()
            self._unchanged |= dict.fromkeys([*([key] if key.version else []), *routes])
            self._confirm_families([(key.family_key, replay.revision)])
        self._confirm_families((key, replay.revision) for key in scope.divided)

    def _confirm_families(self, families: Iterable[tuple[RouteKey, int]]) -> None:
        known = self._unchanged_families
        for key, revision in families:
            known[key] = max(known.get(key, 0), revision)


def _outcome_of(mutation: Mutation, overlay: Overlay, steps: Sequence[Step], changes: Sequence[Change]) -> Outcome:
    revision = overlay.revision - len(changes) if mutation.dry_run else overlay.revision
    if mutation.change_set:
        first = changes[0].revision if changes else 0
        return Outcome(None, revision, None, tuple(steps), first, len(changes), changes)
    key = mutation.scope.key
    if not key.version:
        return Outcome(None, revision, overlay.traffic_of(key))
    return Outcome(overlay.route_of(key), revision)
