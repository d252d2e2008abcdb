"""The mutations, and how each is decided against what the ledger holds. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pointsman_server.domain.errors import (
    FieldViolation,
    InvalidField,
    RevisionMismatch,
    RouteExists,
    RouteNotFound,
)
from pointsman_server.domain.routes import ChangeKind, Draft, Route, RouteKey
from pointsman_server.writes.ledger import State

Decision = Callable[[State], Sequence[Draft]]


@dataclass(frozen=True, slots=True)
class Create:
    """Make a new route."""

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
    """Make a route live; exclusively, its siblings go inactive."""

    key: RouteKey
    expected_revision: int = 0
    exclusive: bool = False


@dataclass(frozen=True, slots=True)
class Deactivate:
    """Take a route out of service."""

    key: RouteKey
    expected_revision: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove a route."""

    key: RouteKey
    expected_revision: int = 0


def decide_create(command: Create, seen: State) -> Sequence[Draft]:
    """Create, unless the key is taken."""
    if seen.route:
        raise RouteExists(str(command.key), seen.route.revision)
    return [Draft(ChangeKind.CREATED, command.key, None, command.url, command.active, command.labels)]


def decide_update(command: Update, seen: State) -> Sequence[Draft]:
    """Update what is set and differs; an absent route is created if the command allows it."""
    if command.allow_missing and seen.route is None:
        if command.url is None:
            raise InvalidField([FieldViolation("url", "is required to create the route, which does not exist")])
        return [Draft(ChangeKind.CREATED, command.key, None, command.url, active=True, labels=command.labels or {})]
    route = _expected(command.key, command.expected_revision, seen)
    url = route.url if command.url is None else command.url
    labels = route.labels if command.labels is None else command.labels
    if url == route.url and labels == route.labels:
        return []
    return [Draft(ChangeKind.UPDATED, route.key, route, url, route.active, labels)]


def decide_activate(command: Activate, seen: State) -> Sequence[Draft]:
    """Activate first, then deactivate the siblings: nobody ever sees none active."""
    route = _expected(command.key, command.expected_revision, seen)
    drafts = [] if route.active else [_switched(route, ChangeKind.ACTIVATED)]
    if command.exclusive:
        drafts += [_switched(sibling, ChangeKind.DEACTIVATED) for sibling in seen.siblings if sibling.active]
    return drafts


def decide_deactivate(command: Deactivate, seen: State) -> Sequence[Draft]:
    """Deactivate, unless it is done already."""
    route = _expected(command.key, command.expected_revision, seen)
    return [_switched(route, ChangeKind.DEACTIVATED)] if route.active else []


def decide_delete(command: Delete, seen: State) -> Sequence[Draft]:
    """Delete."""
    route = _expected(command.key, command.expected_revision, seen)
    return [Draft(ChangeKind.DELETED, route.key, route)]


def _expected(key: RouteKey, expected_revision: int, seen: State) -> Route:
    if seen.route is None:
        raise RouteNotFound(str(key), seen.revision, seen.epoch)
    if expected_revision and seen.route.revision != expected_revision:
        raise RevisionMismatch(str(key), expected_revision, seen.route.revision)
    return seen.route


def _switched(route: Route, kind: ChangeKind) -> Draft:
    return Draft(kind, route.key, route, route.url, kind is ChangeKind.ACTIVATED, route.labels)
