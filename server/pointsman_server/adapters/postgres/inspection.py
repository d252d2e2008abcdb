"""How a PostgreSQL server is set up, for an operator who asks."""

from dataclasses import dataclass

from pointsman_server.adapters.postgres.database import Database

INSPECT = """
SELECT current_setting('server_version'), current_setting('fsync'), current_setting('full_page_writes'),
       current_setting('synchronous_commit'), pg_is_in_recovery(), current_setting('max_connections')::int,
       current_setting('superuser_reserved_connections')::int,
       (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')::int
"""


@dataclass(frozen=True, slots=True)
class PostgresFacts:
    """``connections``: those that are open now, of all clients; ``reserved_connections``: those that we cannot have."""

    version: str
    fsync: str
    full_page_writes: str
    synchronous_commit: str
    standby: bool
    max_connections: int
    reserved_connections: int
    connections: int


async def inspect(database: Database) -> PostgresFacts:
    """Ask the server. Raises StoreUnavailable."""
    async with database.connection() as connection:
        row = await (await connection.execute(INSPECT)).fetchone()
    if row is None:
        raise RuntimeError("a query without FROM returned no row")
    return PostgresFacts(*row)
