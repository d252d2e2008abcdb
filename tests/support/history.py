"""``ports.RouteHistory`` in memory, for unit tests: over the history that a ``MemoryStore`` has."""

from collections.abc import Sequence
from datetime import datetime

from pointsman_server.domain.routes import Route, RouteKey, Snapshot
from pointsman_server.ports.store import RouteQuery
from tests.support.fakes import MemoryStore


class MemoryHistory:
    """Reads what was."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def revision_at(self, moment: datetime) -> int:
        raise NotImplementedError

    async def load_as_of(self, keys: Sequence[RouteKey], revision: int) -> list[Snapshot]:
        raise NotImplementedError

    async def list_routes_as_of(self, query: RouteQuery, revision: int) -> list[Route]:
        raise NotImplementedError
