"""The store for imports: many routes in one transaction."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from pointsman_server.domain.routes import Wanted
from pointsman_server.ports.store import Clock, Intent


class Existing(StrEnum):
    """What an import does with a route that exists: update it, skip it, or reject the whole import."""

    UPDATE = "UPDATE"
    SKIP = "SKIP"
    REFUSE = "REFUSE"


@dataclass(frozen=True, slots=True)
class Imported:
    """The answer of an import, true as of ``revision``.

    ``first`` and ``last`` are the revisions of its changes, 0 if there are none.
    """

    created: int
    updated: int
    unchanged: int
    first: int
    last: int
    revision: int


@dataclass(frozen=True, slots=True)
class Merged:
    """The result of an import. ``revisions`` has that of the last change of each route, in the order of the request.

    It is empty if ``imported`` is the stored outcome of an earlier import with the same ``request_id``.
    """

    imported: Imported
    epoch: str
    revisions: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class LockedImport:
    """The clock, and in ``known`` the stored outcome of the intent's ``request_id``, if there is one by now."""

    clock: Clock
    known: Merged | None


class ImportTransaction(Protocol):
    """One import. Everything in it becomes visible at once, or never."""

    async def remembered(self, tenant: str, intent: Intent) -> Merged | None:
        """Return the stored outcome of the intent's ``request_id`` in the tenant, or None.

        Raises RequestIdReused if it has another fingerprint.
        """

    async def stage(self, wanted: Sequence[Wanted]) -> None:
        """Send the routes, each key once, without a lock that others wait for. Call it once."""

    async def lock(self, tenant: str, intent: Intent, existing: Existing) -> LockedImport:
        """Wait until no other transaction writes. From here to the end, no other transaction can move the clock.

        Raises RequestIdReused, RoutesExist if ``existing`` is REFUSE, and RevisionsMismatch. Call it once, after
        ``stage``.
        """

    async def merge(self) -> Merged:
        """Write what was staged, and commit. Call it at most once, and last.

        Each route that differs gets one change with the next revision, in their order, deactivations last: CREATED;
        UPDATED if the url or the labels differ; else ACTIVATED or DEACTIVATED. The outcome is stored under the intent's
        ``request_id``, if it has one.
        """


class BulkStore(Protocol):
    """Imports many routes in one transaction. Raises what RouteStore does."""

    def begin_import(self) -> AbstractAsyncContextManager[ImportTransaction]:
        """Open a transaction. Without ``merge`` it is rolled back."""
