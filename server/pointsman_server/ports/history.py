"""The history: what was, at any moment that is kept."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from pointsman_server.domain.routes import Route, RouteKey, Snapshot
from pointsman_server.ports.store import RouteQuery


class RouteHistory(Protocol):
    """Reads the state of the store as of an earlier revision of the current epoch.

    It is the same however often it is asked for: nothing rewrites the history. Every method raises HistoryCompacted
    for a revision below the one up to which the history is compacted, RevisionInFuture for one above the clock, and
    what RouteStore raises. The state of the compacted revision itself, and of each later one, can be told.
    """

    async def revision_at(self, moment: datetime) -> int:
        """Return the last revision that was made at ``moment`` or before it, by the clock of the database.

        0 if there was none yet. Raises HistoryCompacted if that revision is not kept.
        """

    async def load_as_of(self, keys: Sequence[RouteKey], revision: int) -> list[Snapshot]:
        """Read ``keys``, routes and families, as they were right after ``revision``: their ``as_of``."""

    async def list_routes_as_of(self, query: RouteQuery, revision: int) -> list[Route]:
        """Read the page of routes that ``RouteStore.list_routes`` would have returned right after ``revision``."""
