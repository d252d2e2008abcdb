"""The mutations, and for each a pure function that decides its changes from the state in the ledger."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pointsman_server.domain.errors import (
    FieldViolation,
    InvalidField,
    PointsmanError,
    RevisionMismatch,
    RouteExists,
    RouteNotFound,
)
from pointsman_server.domain.routes import ChangeKind, Draft, Route, RouteKey
from pointsman_server.writes.ledger import State

Decision = Callable[[State], Sequence[Draft]]


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
        drafts += [_activity_change(sibling, ChangeKind.DEACTIVATED) for sibling in state.siblings if sibling.active]
    return drafts


def decide_deactivate(command: Deactivate, state: State) -> Sequence[Draft]:
    """Raises RouteNotFound, RevisionMismatch and the refusal of the command."""
    route = _route_at_expected_revision(command.key, command.expected_revision, state)
    if not route.active:
        return []
    _raise(command.refusal)
    return [_activity_change(route, ChangeKind.DEACTIVATED)]


def decide_delete(command: Delete, state: State) -> Sequence[Draft]:
    """Raises RouteNotFound, RevisionMismatch and the refusal of the command."""
    route = _route_at_expected_revision(command.key, command.expected_revision, state)
    _raise(command.refusal)
    return [Draft(ChangeKind.DELETED, route.key, route)]


def _route_at_expected_revision(key: RouteKey, expected_revision: int, state: State) -> Route:
    if state.route is None:
        raise RouteNotFound(str(key), state.revision, state.epoch)
    if expected_revision and state.route.revision != expected_revision:
        raise RevisionMismatch(str(key), expected_revision, state.route.revision)
    return state.route


def _activity_change(route: Route, kind: ChangeKind) -> Draft:
    return Draft(kind, route.key, route, route.url, kind is ChangeKind.ACTIVATED, route.labels)


def _raise(refusal: PointsmanError | None) -> None:
    if refusal is not None:
        raise refusal
