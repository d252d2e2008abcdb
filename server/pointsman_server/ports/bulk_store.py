"""The store for imports: many routes in one transaction."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from pointsman_server.domain.routes import Wanted
from pointsman_server.ports.store import Clock, Intent


class Existing(StrEnum):
    """What an import does with a route that exists: change it, leave it, or refuse everything because of it."""

    UPDATE = "UPDATE"
    SKIP = "SKIP"
    REFUSE = "REFUSE"


@dataclass(frozen=True, slots=True)
class Imported:
    """The answer of an import. ``first`` and ``last`` are the revisions of its changes, 0 when there are none.

    Everything is as it shall be as of ``revision``.
    """

    created: int
    updated: int
    unchanged: int
    first: int
    last: int
    revision: int


@dataclass(frozen=True, slots=True)
class Merged:
    """What an import did: ``revisions`` has that of the last change of each route, in the order of the request.

    It is empty when ``imported`` was remembered under the intent's ``request_id``.
    """

    imported: Imported
    epoch: str
    revisions: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class LockedImport:
    """Where the clock is, and what was remembered under the intent's ``request_id`` meanwhile."""

    clock: Clock
    known: Merged | None


class ImportTransaction(Protocol):
    """One import. Everything in it becomes visible at once, or never."""

    async def remembered(self, tenant: str, intent: Intent) -> Merged | None:
        """Return what was remembered under the intent's ``request_id`` in the tenant.

        Raises RequestIdReused when that was of another fingerprint.
        """

    async def stage(self, wanted: Sequence[Wanted]) -> None:
        """Hand the routes over, each key once. Nobody waits for this. Call it once."""

    async def lock(self, tenant: str, intent: Intent, existing: Existing) -> LockedImport:
        """Wait until no other transaction writes. From here on this one owns the clock.

        Raises RequestIdReused, RoutesExist when ``existing`` says so, and RevisionsMismatch. Call it once, after
        ``stage``.
        """

    async def merge(self) -> Merged:
        """Make what was staged so. Call it at most once, and last: this also commits.

        Each route that has to change gets the next revision, in their order, those that go out of service last; and
        one change: CREATED, UPDATED where the url or the labels differ, else ACTIVATED or DEACTIVATED. The outcome is
        remembered under the intent's ``request_id``, if it has one.
        """


class BulkStore(Protocol):
    """The store, for many routes at once. It raises what RouteStore does."""

    def begin_import(self) -> AbstractAsyncContextManager[ImportTransaction]:
        """Open a transaction: what was not merged is rolled back."""
