"""What the core needs of the outside, as Protocols. These docstrings are law: every adapter obeys them, and one
contract suite (``tests/contract``) runs against every implementation, the fakes of the unit tests included.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from pointsman_server.domain.routes import Change, Route, RouteKey, Snapshot


@dataclass(frozen=True, slots=True)
class Clock:
    """Where the database is: ``revision`` is the number of its last committed change, ``epoch`` names its history."""

    epoch: str
    revision: int


@dataclass(frozen=True, slots=True)
class RouteQuery:
    """Which routes to list: those that match every part that is not empty, after ``after`` in key order."""

    tenant: str = ""
    service: str = ""
    env: str = ""
    active: bool | None = None
    after: RouteKey | None = None
    limit: int = 100


@dataclass(frozen=True, slots=True)
class ChangeQuery:
    """Which changes to list: those that match every part that is not empty; revisions are exclusive bounds."""

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
class Intent:
    """Who mutates, why, and under which ``request_id``; ``fingerprint`` is a digest of the whole request."""

    actor: str
    reason: str = ""
    request_id: str = ""
    fingerprint: bytes = b""
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer of a mutation: the route after it (None after a delete), true as of ``revision``."""

    route: Route | None
    revision: int


@dataclass(frozen=True, slots=True)
class MutationScope:
    """What a mutation asks to see before it is decided: the route of ``key``, and with ``family`` its siblings too.

    Siblings are the other versions of the same tenant, service and env. The intent's ``request_id``, where it has one,
    is looked up in the tenant of ``key``.
    """

    key: RouteKey
    intent: Intent
    family: bool = False


@dataclass(frozen=True, slots=True)
class StoredOutcome:
    """The outcome of a mutation, kept for replays of its ``request_id`` in the tenant."""

    tenant: str
    request_id: str
    fingerprint: bytes
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class LockedState:
    """What a transaction sees once it alone may write: all of it is true as of ``clock``, and stays so to its end.

    ``moment`` is the time of the database, in UTC, and not before any that was given out earlier. ``routes`` are those
    that were asked for and exist, each once. ``remembered`` says for each mutation, in the order asked, what its
    request_id is known for; the outcome's route has the key that was asked for.
    """

    clock: Clock
    moment: datetime
    routes: Sequence[Route]
    remembered: Sequence[StoredOutcome | None]


class RouteTransaction(Protocol):
    """A group of mutations. Everything it records becomes visible at once, or never."""

    async def lock(self, asked: Sequence[MutationScope]) -> LockedState:
        """Wait until no other transaction writes, and read what is asked for. Call it once, and first.

        From here to the end this transaction owns the clock, so **the order of commits is the order of revisions, and
        there are no gaps**; and of two transactions the later sees everything that the earlier did.
        """

    async def record(self, changes: Sequence[Change], remembered: Sequence[StoredOutcome]) -> None:
        """Write history, the routes that it leads to, and the outcomes. Call it at most once.

        The revisions of ``changes`` follow the clock's one by one, in its epoch. A key may change several times: each
        change begins where the one before ended. Errors may also come at the end of the transaction.
        """


class RouteStore(Protocol):
    """The truth: routes, their history, and the clock.

    Every method raises StoreUnavailable when the store cannot be reached or does not answer in time, and
    Overloaded when no connection comes free in time. After StoreUnavailable from the end of a transaction the
    outcome is unknown: it happened as a whole, or not at all.
    """

    async def load(self, keys: Sequence[RouteKey]) -> list[Snapshot]:
        """Read all ``keys`` in one snapshot of the database: one result per key, in order.

        All have one ``as_of``, and the ``epoch`` that it counts in.
        """

    def begin(self) -> AbstractAsyncContextManager[RouteTransaction]:
        """Open a transaction: it commits when the block ends, and rolls back when the block raises."""

    async def list_routes(self, query: RouteQuery) -> list[Route]:
        """Read routes in the order of their keys, compared by code point."""

    async def list_changes(self, query: ChangeQuery) -> list[Change]:
        """Read history in the order of revisions."""

    async def clock(self) -> Clock:
        """Read the clock."""
