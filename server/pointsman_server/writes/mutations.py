"""The mutations, and for each a pure function that decides its changes from the state in the ledger."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pointsman_server.domain.errors import (
    FieldViolation,
    InvalidField,
    PointsmanError,
    RevisionMismatch,
    RouteExists,
    RouteInTraffic,
    RouteNotFound,
    TargetNotFound,
    TrafficNotFound,
)
from pointsman_server.domain.routes import ChangeKind, Draft, Route, RouteKey, Traffic
from pointsman_server.domain.traffic import Division
from pointsman_server.writes.overlay import State


@dataclass(frozen=True, slots=True)
class Create:
    """Create a route."""

    key: RouteKey
    url: str
    labels: Mapping[str, str]
    active: bool = True


@dataclass(frozen=True, slots=True)
class Update:
    """Change the url or the labels; None leaves them as they are."""

    key: RouteKey
    url: str | None = None
    labels: Mapping[str, str] | None = None
    expected_revision: int = 0
    allow_missing: bool = False


@dataclass(frozen=True, slots=True)
class Activate:
    """Activate a route; with ``exclusive`` deactivate its siblings."""

    key: RouteKey
    expected_revision: int = 0
    exclusive: bool = False


@dataclass(frozen=True, slots=True)
class Deactivate:
    """Deactivate a route; ``refusal`` is why it must stay as it is, None if it need not."""

    key: RouteKey
    expected_revision: int = 0
    refusal: PointsmanError | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a route; ``refusal`` is why it must stay as it is, None if it need not."""

    key: RouteKey
    expected_revision: int = 0
    refusal: PointsmanError | None = None


@dataclass(frozen=True, slots=True)
class SetTraffic:
    """Divide the calls of a family, whose key it has."""

    key: RouteKey
    division: Division
    expected_revision: int = 0


@dataclass(frozen=True, slots=True)
class DeleteTraffic:
    """Remove the traffic of a family, whose key it has."""

    key: RouteKey
    expected_revision: int = 0


Command = Create | Update | Activate | Deactivate | Delete | SetTraffic | DeleteTraffic


def decide_create(command: Create, state: State) -> Sequence[Draft]:
    """Raises RouteExists."""
    if state.route:
        raise RouteExists(str(command.key), state.route.revision)
    return [Draft(ChangeKind.CREATED, command.key, None, command.url, command.active, command.labels)]


def decide_update(command: Update, state: State) -> Sequence[Draft]:
    """Raises RouteNotFound, RevisionMismatch, and InvalidField when a route is to be created without a URL."""
    if command.allow_missing and state.route is None:
        if command.url is None:
            raise InvalidField([FieldViolation("url", "is required to create the route, which does not exist")])
        return [Draft(ChangeKind.CREATED, command.key, None, command.url, active=True, labels=command.labels or {})]
    route = _route_at_expected_revision(command.key, command.expected_revision, state)
    url = route.url if command.url is None else command.url
    labels = route.labels if command.labels is None else command.labels
    if url == route.url and labels == route.labels:
        return []
    return [Draft(ChangeKind.UPDATED, route.key, route, url, route.active, labels)]


def decide_activate(command: Activate, state: State) -> Sequence[Draft]:
    """Activate first, then deactivate the siblings, so that at every revision at least one is active.

    Raises RouteNotFound and RevisionMismatch.
    """
    route = _route_at_expected_revision(command.key, command.expected_revision, state)
    drafts = [] if route.active else [_activity_change(route, ChangeKind.ACTIVATED)]
    if command.exclusive:
        active = sorted((route for route in state.siblings if route.active), key=lambda route: route.key)
        drafts += [_activity_change(sibling, ChangeKind.DEACTIVATED) for sibling in active]
    return drafts


def decide_deactivate(command: Deactivate, state: State) -> Sequence[Draft]:
    """Raises RouteNotFound, RevisionMismatch and the refusal of the command."""
    route = _route_at_expected_revision(command.key, command.expected_revision, state)
    if not route.active:
        return []
    _raise(command.refusal)
    return [_activity_change(route, ChangeKind.DEACTIVATED)]


def decide_delete(command: Delete, state: State) -> Sequence[Draft]:
    """Raises RouteNotFound, RevisionMismatch, RouteInTraffic and the refusal of the command."""
    route = _route_at_expected_revision(command.key, command.expected_revision, state)
    traffic = state.traffic
    if traffic and route.key.version in traffic.division.versions:
        raise RouteInTraffic(str(route.key), traffic.revision)
    _raise(command.refusal)
    return [Draft(ChangeKind.DELETED, route.key, route)]


def decide_set_traffic(command: SetTraffic, state: State) -> Sequence[Draft]:
    """Raises TargetNotFound; if a revision is expected TrafficNotFound and RevisionMismatch."""
    before = state.traffic
    if command.expected_revision:
        before = _traffic_at_expected_revision(command.key, command.expected_revision, state)
    if before and before.division == command.division:
        return []
    known = {route.key.version for route in state.siblings}
    named = [*(target.version for target in command.division.targets), *command.division.fallbacks]
    if absent := [version for version in dict.fromkeys(named) if version not in known]:
        raise TargetNotFound(str(command.key), absent)
    return [Draft(ChangeKind.TRAFFIC_SET, command.key, None, traffic_before=before, division=command.division)]


def decide_delete_traffic(command: DeleteTraffic, state: State) -> Sequence[Draft]:
    """Raises TrafficNotFound and RevisionMismatch."""
    before = _traffic_at_expected_revision(command.key, command.expected_revision, state)
    return [Draft(ChangeKind.TRAFFIC_DELETED, command.key, None, traffic_before=before)]


def of_family(command: Command) -> bool:
    """Return whether the decision needs the siblings of the key."""
    return isinstance(command, SetTraffic) or (isinstance(command, Activate) and command.exclusive)


def of_traffic(command: Command) -> bool:
    """Return whether the decision needs the traffic of the key's family, and no siblings."""
    return isinstance(command, Delete | DeleteTraffic)


def decide(command: Command, state: State) -> Sequence[Draft]:
    """Decide a command of any kind. ``state`` has the siblings of a command that is ``of_family``."""
    return _DECISIONS[type(command)](command, state)


def _route_at_expected_revision(key: RouteKey, expected_revision: int, state: State) -> Route:
    if state.route is None:
        raise RouteNotFound(str(key), state.revision, state.epoch)
    if expected_revision and state.route.revision != expected_revision:
        raise RevisionMismatch(str(key), expected_revision, state.route.revision)
    return state.route


def _traffic_at_expected_revision(key: RouteKey, expected_revision: int, state: State) -> Traffic:
    if state.traffic is None:
        raise TrafficNotFound(str(key), state.revision, state.epoch)
    if expected_revision and state.traffic.revision != expected_revision:
        raise RevisionMismatch(str(key), expected_revision, state.traffic.revision, "the traffic of")
    return state.traffic


def _activity_change(route: Route, kind: ChangeKind) -> Draft:
    return Draft(kind, route.key, route, route.url, kind is ChangeKind.ACTIVATED, route.labels)


def _raise(refusal: PointsmanError | None) -> None:
    if refusal is not None:
        raise refusal


_DECISIONS: Mapping[type, Callable[..., Sequence[Draft]]] = {
    Create: decide_create,
    Update: decide_update,
    Activate: decide_activate,
    Deactivate: decide_deactivate,
    Delete: decide_delete,
    SetTraffic: decide_set_traffic,
    DeleteTraffic: decide_delete_traffic,
}
