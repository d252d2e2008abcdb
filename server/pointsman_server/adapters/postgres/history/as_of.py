"""``ports.RouteHistory`` on PostgreSQL."""

from collections.abc import Callable, Sequence
from datetime import datetime

from pointsman_server.adapters.postgres.database import Database
from pointsman_server.domain.routes import Route, RouteKey, Snapshot
from pointsman_server.ports.store import RouteQuery


class PostgresHistory:
    """Reads what was. ``queried`` is called with the name of each operation that is sent."""

    def __init__(self, database: Database, *, queried: Callable[[str], None] = lambda _: None) -> None:
        self._database = database
        self._queried = queried

    async def revision_at(self, moment: datetime) -> int:
        raise NotImplementedError

    async def load_as_of(self, keys: Sequence[RouteKey], revision: int) -> list[Snapshot]:
        raise NotImplementedError

    async def list_routes_as_of(self, query: RouteQuery, revision: int) -> list[Route]:
        raise NotImplementedError
