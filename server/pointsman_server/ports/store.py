"""The store: routes, their history, and the clock.

The docstrings of the ports are their contracts. One suite (``tests/contract``) checks every implementation against
them, including the fakes of the unit tests.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol

from pointsman_server.domain.routes import Change, Route, RouteKey, Snapshot, Traffic


@dataclass(frozen=True, slots=True)
class Clock:
    """The state of the database: ``revision`` is that of its last committed change, ``epoch`` names its history."""

    epoch: str
    revision: int

    def is_before(self, other: "Clock") -> bool:
        """Return whether ``other`` is of the same epoch, and later. Revisions of two epochs cannot be compared."""
        return self.epoch == other.epoch and self.revision < other.revision


@dataclass(frozen=True, slots=True)
class RouteQuery:
    """A filter for routes: every field that is not empty must match. Starts after the key ``after``."""

    tenant: str = ""
    service: str = ""
    env: str = ""
    active: bool | None = None
    after: RouteKey | None = None
    limit: int = 100


@dataclass(frozen=True, slots=True)
class ChangeQuery:
    """A filter for changes: every field that is not empty must match. The revisions are exclusive bounds."""

    tenant: str = ""
    service: str = ""
    env: str = ""
    version: str = ""
    actor: str = ""
    after_revision: int = 0
    before_revision: int = 0
    newest_first: bool = False
    limit: int = 100


@dataclass(frozen=True, slots=True)
class TrafficQuery:
    """A filter for traffic: every field that is not empty must match. Starts after the key ``after``."""

    tenant: str = ""
    service: str = ""
    env: str = ""
    after: RouteKey | None = None
    limit: int = 100


@dataclass(frozen=True, slots=True)
class Intent:
    """Who mutates, why, and under which ``request_id``; ``fingerprint`` is a digest of the whole request.

    ``call_id`` is the ``x-request-id`` of the call, for logs.
    """

    actor: str
    reason: str = ""
    request_id: str = ""
    fingerprint: bytes = b""
    traceparent: str = ""
    tracestate: str = ""
    call_id: str = ""


class Step(NamedTuple):
    """What one mutation of a commit did: ``change_count`` changes from ``first_revision`` on; 0 if it had none."""

    first_revision: int
    change_count: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer of a mutation: the route after it (None after a delete), true as of ``revision``.

    That of traffic has ``traffic``. That of a commit or a revert has ``steps``, one for each mutation, and the
    ``change_set_id`` and number of its changes, 0 if there are none; its ``changes`` are not stored.
    """

    route: Route | None
    revision: int
    traffic: Traffic | None = None
    steps: Sequence[Step] = ()
    change_set_id: int = 0
    change_count: int = 0
    changes: Sequence[Change] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class MutationScope:
    """What to lock and read for a mutation: the route of ``key``, and with ``family`` its siblings and the traffic.

    Siblings are the other versions of the same tenant, service and env. The key of a family is read with ``family``.
    A commit reads ``others`` too: keys, those of whole families without a version. Of the families ``divided`` only the
    traffic is read: they may have thousands of versions. The intent's ``request_id``, if it has one, is looked up in
    the tenant of ``key``.
    """

    key: RouteKey
    intent: Intent
    family: bool = False
    others: Sequence[RouteKey] = ()
    divided: Sequence[RouteKey] = ()


@dataclass(frozen=True, slots=True)
class StoredOutcome:
    """The outcome of a mutation, kept for replays of its ``request_id`` in the tenant."""

    tenant: str
    request_id: str
    fingerprint: bytes
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class LockedState:
    """What a transaction read under the write lock, true as of ``clock`` until the transaction ends.

    ``moment`` is the time of the database, in UTC, never before that of an earlier transaction. ``routes`` are the
    existing ones of all scopes, each once; ``traffic`` is that of their whole families and of those that are
    ``divided``. ``remembered`` has for each scope, in order, the stored outcome of its request_id, or None; the
    outcome's route has the key of the scope.
    """

    clock: Clock
    moment: datetime
    routes: Sequence[Route]
    remembered: Sequence[StoredOutcome | None]
    traffic: Sequence[Traffic] = ()


class RouteTransaction(Protocol):
    """A transaction of a group of mutations: all of what it records becomes visible at once, or nothing."""

    async def lock(self, scopes: Sequence[MutationScope]) -> LockedState:
        """Wait until no other transaction writes, and read the state of ``scopes``. Call it once, and first.

        From here to the end, no other transaction can move the clock. So **commits are in the order of revisions,
        without gaps**, and each transaction sees all that earlier ones wrote.
        """

    async def record(self, changes: Sequence[Change], remembered: Sequence[StoredOutcome]) -> None:
        """Write the changes, the resulting routes, and the outcomes. Call it at most once.

        The revisions of ``changes`` continue the clock's without a gap, in its epoch. A key may change several times;
        each change starts from the result of the one before. Errors may be raised only at the end of the transaction.
        """


@dataclass(frozen=True, slots=True)
class Table:
    """Routes as of ``clock``, in the order of their keys, in ``batches`` that are read one after the other.

    ``traffic`` is all that matches, as of the same clock.
    """

    clock: Clock
    batches: AsyncIterator[Sequence[Route]]
    traffic: Sequence[Traffic] = ()


class RouteStore(Protocol):
    """The source of truth: routes, their history, and the clock.

    **No read is older than its call.** What a method returns is the state of the store at one moment after the call
    began. So it has every change that was answered before, by any server, and nothing of another history; its revision
    is at or above every one that anybody could know when the call began. This holds for each copy of the database that
    a read may come from. A copy that is behind may be read only if the state that it returns is known to be that of the
    store at a moment after the call began.

    Every method raises StoreUnavailable if the store cannot be reached or does not answer in time, and Overloaded if
    no connection becomes free in time. If the end of a transaction raises StoreUnavailable, its outcome is unknown: all
    of it was committed, or nothing.
    """

    async def load(self, keys: Sequence[RouteKey]) -> list[Snapshot]:
        """Read all ``keys`` in one snapshot of the database: one result per key, in order.

        All have the same ``as_of`` and ``epoch``. A key without a version is that of a family.
        """

    def begin(self) -> AbstractAsyncContextManager[RouteTransaction]:
        """Open a transaction. It commits when the block ends, and rolls back if the block raises."""

    async def list_routes(self, query: RouteQuery) -> list[Route]:
        """Read routes in the order of their keys, compared by code point."""

    async def list_traffic(self, query: TrafficQuery) -> list[Traffic]:
        """Read traffic in the order of its keys, compared by code point."""

    def scan(self, query: RouteQuery) -> AbstractAsyncContextManager[Table]:
        """Read every route that matches in one snapshot of the database; the ``limit`` bounds a batch.

        It holds a connection until the block ends. Each batch must be read in the time of a statement.
        """

    async def list_changes(self, query: ChangeQuery) -> list[Change]:
        """Read history in the order of revisions."""

    async def compacted(self) -> int:
        """Read the revision up to which old changes may be gone from the history; 0 when all are there.

        It grows before a change goes. So a read of the changes after some revision had no gap if this, read afterwards,
        is not above that revision.
        """

    async def clock(self) -> Clock:
        """Read the clock."""
