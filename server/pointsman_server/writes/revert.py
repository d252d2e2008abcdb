"""Undoes changes: what they did to each key, and the changes that make it again what it was."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pointsman_server.domain.errors import EpochChanged, PointsmanError, RouteInTraffic, TargetNotFound
from pointsman_server.domain.routes import HEARTBEAT, Change, ChangeKind, Draft, Route, RouteKey, Traffic
from pointsman_server.ports.store import Intent, MutationScope, Step
from pointsman_server.writes.overlay import Overlay, State

FIND_AGAIN = "find what is to be undone in its history again"


@dataclass(frozen=True, slots=True)
class Undone:
    """What consecutive changes did to one key, of a route or, for traffic, of a family.

    ``before`` is what was there before the first of them, None if there was nothing. The last one has ``revision``, and
    left something if it ``left`` anything.
    """

    key: RouteKey
    before: Route | Traffic | None
    revision: int
    left: bool


class Touched(PointsmanError):
    """Keys were changed since: what was undone, and the present revision, 0 if there is nothing any more.

    Never sent, so it has no reason: ``writes.revert_history`` makes it ChangedSince, which says who did it.
    """

    def __init__(self, touched: Sequence[tuple[Undone, int]]) -> None:
        super().__init__(f"{len(touched)} keys were changed since")
        self.touched = touched


class Undoing:
    """Collects changes, in the order of their revisions; ``undone`` has each key that they changed, in that order.

    Those of the heartbeat are left out: it measures caches, and undoing them would undo nothing.
    """

    def __init__(self) -> None:
        self.undone: dict[RouteKey, Undone] = {}

    def add(self, changes: Iterable[Change]) -> None:
        """Take the next changes."""
        for change in changes:
            if change.key == HEARTBEAT:
                continue
            before = change.traffic_before if change.kind.of_traffic else change.before
            left = change.traffic_after if change.kind.of_traffic else change.after
            known = self.undone.get(change.key)
            first = known.before if known else before
            self.undone[change.key] = Undone(change.key, first, change.revision, left is not None)


def scope_of(undone: Sequence[Undone], intent: Intent) -> MutationScope:
    """Return what to lock; the ``request_id`` belongs to the tenant of the first key, of at least one."""
    first = undone[0]
    names = dict.fromkeys(each.key.family_key if _needs_family(each) else each.key for each in undone)
    return MutationScope(first.key, intent, _needs_family(first), tuple(names))


def decide_revert(undone: Sequence[Undone], epoch: str, *, force: bool) -> Callable[[Overlay], Sequence[Step]]:
    """Return the decision that makes every key what it was ``before``, in one step.

    Activations come first, then traffic, then deactivations, then deletions: a reader never finds all versions inactive
    while one takes over from another, and traffic never names a version without a route. A key that is as it was before
    already stays as it is.

    It raises Touched, unless ``force`` is set, if the present revision of another key is not that of its last change;
    RouteInTraffic if traffic names a version that is to be deleted; TargetNotFound if traffic that is to be set again
    names a version that has no route any more; and EpochChanged if the store is not in ``epoch`` any more.
    """

    def decision(overlay: Overlay) -> Sequence[Step]:
        present = overlay.see(undone[0].key).epoch
        if present != epoch:
            raise EpochChanged(epoch, present, FIND_AGAIN)
        return [overlay.apply(drafts_of(undone, overlay.see, force=force))]

    return decision


def drafts_of(undone: Sequence[Undone], see: Callable[..., State], *, force: bool) -> Sequence[Draft]:
    """Return the changes that ``decide_revert`` makes, in their order; ``see`` is that of an overlay."""
    present = {each.key: _present(each, see) for each in undone}
    different = [each for each in undone if not _same(each.before, present[each.key])]
    if not force:
        touched = [
            (each, now.revision if now else 0) for each in different if _is_touched(each, now := present[each.key])
        ]
        if touched:
            raise Touched(touched)
    _check_invariants({each.key: each.before for each in different}, see)
    drafts = [_draft(each, present[each.key]) for each in sorted(different, key=lambda each: each.key)]
    return sorted(drafts, key=_phase)


def _needs_family(undone: Undone) -> bool:
    # Traffic may name a version that is to be deleted, and must not be set where it would name one without a route.
    return undone.before is None or not undone.key.version


def _present(undone: Undone, see: Callable[..., State]) -> Route | Traffic | None:
    state = see(undone.key, family=not undone.key.version)
    return state.route if undone.key.version else state.traffic


def _same(before: Route | Traffic | None, present: Route | Traffic | None) -> bool:
    if isinstance(before, Route) and isinstance(present, Route):
        return _content(before) == _content(present)
    if isinstance(before, Traffic) and isinstance(present, Traffic):
        return (before.division, before.slices) == (present.division, present.slices)
    return before is present


def _content(route: Route) -> tuple[str, bool, dict[str, str]]:
    return route.url, route.active, dict(route.labels)


def _is_touched(undone: Undone, present: Route | Traffic | None) -> bool:
    # What was created and deleted again since leaves nothing that could be lost.
    return undone.left if present is None else present.revision != undone.revision


def _check_invariants(wanted: Mapping[RouteKey, Route | Traffic | None], see: Callable[..., State]) -> None:
    """Raise RouteInTraffic or TargetNotFound if traffic would name a version without a route."""
    for family in dict.fromkeys(key.family_key for key, before in wanted.items() if before is None or not key.version):
        state = see(family, family=True)
        traffic = wanted.get(family, state.traffic)
        if not isinstance(traffic, Traffic):
            continue
        known = {route.key.version for route in state.siblings}
        named = traffic.division.versions
        for version in sorted(named):
            key = family._replace(version=version)
            if key in wanted and wanted[key] is None:
                raise RouteInTraffic(str(key), traffic.revision)
        if family in wanted:
            absent = sorted(v for v in named - known if wanted.get(family._replace(version=v)) is None)
            if absent:
                raise TargetNotFound(str(family), absent)


def _draft(undone: Undone, present: Route | Traffic | None) -> Draft:
    key, before = undone.key, undone.before
    if not key.version:
        return _traffic_draft(key, before, present)
    now = present if isinstance(present, Route) else None
    if not isinstance(before, Route):
        return Draft(ChangeKind.DELETED, key, now)
    if now is None:
        kind = ChangeKind.CREATED
    elif (before.url, before.labels) != (now.url, now.labels):
        kind = ChangeKind.UPDATED
    else:
        kind = ChangeKind.ACTIVATED if before.active else ChangeKind.DEACTIVATED
    return Draft(kind, key, now, before.url, before.active, before.labels)


def _traffic_draft(key: RouteKey, before: Route | Traffic | None, present: Route | Traffic | None) -> Draft:
    now = present if isinstance(present, Traffic) else None
    if not isinstance(before, Traffic):
        return Draft(ChangeKind.TRAFFIC_DELETED, key, None, traffic_before=now)
    # The former slices, not new ones: every caller is again where it was.
    return Draft(ChangeKind.TRAFFIC_SET, key, None, traffic_before=now, division=before.division, slices=before.slices)


def _phase(draft: Draft) -> int:
    if draft.kind is ChangeKind.DELETED:
        return 3
    if draft.kind.of_traffic:
        return 1
    return 2 if draft.before and draft.before.active and not draft.active else 0
