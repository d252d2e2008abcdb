"""The write path: one transaction per mutation, then the caches, then the answer.

What a mutation does is decided by a pure function of what the transaction sees (``decide_*``); how it is carried
out is the same for all of them (``Changer``).
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from pointsman_server.errors import FieldViolation, InvalidField, RevisionMismatch, RouteExists, RouteNotFound
from pointsman_server.ports import CacheUnavailable, Intent, Locked, Outcome, RouteCache, RouteStore
from pointsman_server.routes import Change, ChangeKind, Draft, Route, RouteKey, Snapshot, check_url

Decision = Callable[[Locked], Sequence[Draft]]


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


class Changer:
    """Carries out mutations. ``learn`` is told what each left behind, before it is answered.

    Order, and why: the shared cache is marked before the commit, so no reader fills it with the state before;
    it is settled after the commit, so no reader sees what may still roll back; only then comes the answer.
    """

    def __init__(self, store: RouteStore, cache: RouteCache, learn: Callable[[Sequence[Snapshot]], None]) -> None:
        self._store = store
        self._cache = cache
        self._learn = learn

    async def create(self, command: Create, intent: Intent) -> Outcome:
        """Raises RouteExists, and InvalidField for the url; see also ``_change``."""
        check_url(command.url)
        return await self._change(command.key, intent, lambda seen: decide_create(command, seen))

    async def update(self, command: Update, intent: Intent) -> Outcome:
        """Raises RouteNotFound, RevisionMismatch, and InvalidField for the url; see also ``_change``."""
        if command.url is not None:
            check_url(command.url)
        return await self._change(command.key, intent, lambda seen: decide_update(command, seen))

    async def activate(self, command: Activate, intent: Intent) -> Outcome:
        """Raises RouteNotFound and RevisionMismatch; see also ``_change``."""
        return await self._change(command.key, intent, lambda seen: decide_activate(command, seen))

    async def deactivate(self, command: Deactivate, intent: Intent) -> Outcome:
        """Raises RouteNotFound and RevisionMismatch; see also ``_change``."""
        return await self._change(command.key, intent, lambda seen: decide_deactivate(command, seen))

    async def delete(self, command: Delete, intent: Intent) -> Outcome:
        """Raises RouteNotFound and RevisionMismatch; see also ``_change``."""
        return await self._change(command.key, intent, lambda seen: decide_delete(command, seen))

    async def _change(self, key: RouteKey, intent: Intent, decide: Decision) -> Outcome:
        """Lock, decide, mark, record, commit, settle. Raises RequestIdReused, StoreUnavailable and Overloaded.

        The answer may say a higher revision than the route's: it is one as of which everything decided holds.
        What changes nothing is answered OK too, also when another server did it a moment ago, and perhaps died before
        it settled: so what the lock showed is confirmed before the answer, or else caches could go on with the state
        before.
        """
        token = secrets.token_hex(8)
        changes: Sequence[Change] = ()
        async with self._store.begin() as transaction:
            seen = await transaction.lock(key, intent)
            if seen.replay:
                await self._confirm(key, seen)
                return seen.replay
            drafts = decide(seen)
            if drafts:
                await self._cache.mark([draft.key for draft in drafts], token)
                changes = await transaction.record(drafts, intent)
            else:
                await self._confirm(key, seen)
            outcome = _outcome(key, seen, changes)
            if intent.request_id:
                await transaction.remember(key.tenant, intent, outcome)
        if changes:
            snapshots = [change.snapshot for change in changes]
            self._learn(snapshots)
            await self._cache.settle(snapshots, token)
        return outcome

    async def _confirm(self, key: RouteKey, seen: Locked) -> None:
        """Let no cache answer anything older than what the lock showed, of the siblings too."""
        current = _current(key, seen)
        self._learn([current])
        siblings = [Snapshot(sibling.key, sibling, seen.revision, seen.epoch) for sibling in seen.siblings]
        # Best effort, as settling is: where Redis is out, the bounds of the caches hold.
        with suppress(CacheUnavailable):
            await self._cache.consume([current, *siblings])


def decide_create(command: Create, seen: Locked) -> Sequence[Draft]:
    """Create, unless the key is taken."""
    if seen.route:
        raise RouteExists(str(command.key), seen.route.revision)
    return [Draft(ChangeKind.CREATED, command.key, None, command.url, command.active, command.labels)]


def decide_update(command: Update, seen: Locked) -> Sequence[Draft]:
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


def decide_activate(command: Activate, seen: Locked) -> Sequence[Draft]:
    """Activate first, then deactivate the siblings: nobody ever sees none active."""
    route = _expected(command.key, command.expected_revision, seen)
    drafts = [] if route.active else [_switched(route, ChangeKind.ACTIVATED)]
    if command.exclusive:
        drafts += [_switched(sibling, ChangeKind.DEACTIVATED) for sibling in seen.siblings if sibling.active]
    return drafts


def decide_deactivate(command: Deactivate, seen: Locked) -> Sequence[Draft]:
    """Deactivate, unless it is done already."""
    route = _expected(command.key, command.expected_revision, seen)
    return [_switched(route, ChangeKind.DEACTIVATED)] if route.active else []


def decide_delete(command: Delete, seen: Locked) -> Sequence[Draft]:
    """Delete."""
    route = _expected(command.key, command.expected_revision, seen)
    return [Draft(ChangeKind.DELETED, route.key, route)]


def _expected(key: RouteKey, expected_revision: int, seen: Locked) -> Route:
    if seen.route is None:
        raise RouteNotFound(str(key), seen.revision, seen.epoch)
    if expected_revision and seen.route.revision != expected_revision:
        raise RevisionMismatch(str(key), expected_revision, seen.route.revision)
    return seen.route


def _switched(route: Route, kind: ChangeKind) -> Draft:
    return Draft(kind, route.key, route, route.url, kind is ChangeKind.ACTIVATED, route.labels)


def _current(key: RouteKey, seen: Locked) -> Snapshot:
    return Snapshot(key, seen.route, seen.revision, seen.epoch)


def _outcome(key: RouteKey, seen: Locked, changes: Sequence[Change]) -> Outcome:
    route = next((change.after for change in changes if change.key == key), seen.route)
    revision = changes[-1].revision if changes else seen.revision
    return Outcome(route, revision)
