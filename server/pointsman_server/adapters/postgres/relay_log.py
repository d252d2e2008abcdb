"""``ports.RelayLog`` on PostgreSQL: leadership is a session's advisory lock, waking is NOTIFY."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pointsman_server.adapters.postgres.connection import Connection, Statement, Step
from pointsman_server.adapters.postgres.database import Database
from pointsman_server.adapters.postgres.rows import CHANGE_COLUMNS, change_from_row
from pointsman_server.adapters.postgres.store import NOTIFY_CHANNEL
from pointsman_server.domain.routes import Change
from pointsman_server.ports.broker import RelayState

LOCK = 0x72656C6179  # "relay"
STANDBY_SECONDS = 0.5

UNPUBLISHED = Statement(
    "unpublished",
    f"""
SELECT {CHANGE_COLUMNS} FROM route_changes
 WHERE revision > (SELECT revision FROM relay) ORDER BY revision LIMIT $1::bigint
""",
)

# A leader that was paused, lost its session and woke up must not move the progress back.
PUBLISHED = Statement("published", "UPDATE relay SET revision = $1::bigint WHERE revision < $1::bigint")
# Progress that a crash of the database takes back is a repetition, as it is when the relay dies: no need for the disk.
RELAXED = "SET synchronous_commit = off"

STATE = """
SELECT relay.revision, clock.revision,
       coalesce(extract(epoch FROM clock_timestamp() - (
           SELECT occurred_at FROM route_changes WHERE revision = relay.revision + 1)), 0)::float8
  FROM relay, clock
"""


class PostgresRelayLog:
    """The outbox that ``route_changes`` is."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def lead(self) -> AsyncIterator["PostgresLeadership"]:
        """See RelayLog.lead."""
        connection = await self._database.dedicated()
        try:
            with self._database.translated():
                await _become_leader(connection)
                await connection.execute(RELAXED)
                await connection.execute(f"LISTEN {NOTIFY_CHANNEL}")
            yield PostgresLeadership(self._database, connection)
        finally:
            await connection.close()

    async def state(self) -> RelayState:
        """See RelayLog.state."""
        async with self._database.connection() as connection:
            row = await (await connection.execute(STATE)).fetchone()
        return RelayState(*row) if row else RelayState(0, 0, 0.0)

    async def rewind(self, revision: int) -> None:
        """Publish again everything after ``revision``: for a broker that lost what it had."""
        async with self._database.connection() as connection:
            await connection.execute("UPDATE relay SET revision = least(revision, %s)", [revision])


class PostgresLeadership:
    """``ports.Leadership``: its session holds the lock, so every statement fails once that is lost."""

    def __init__(self, database: Database, connection: Connection) -> None:
        self._database = database
        self._connection = connection

    async def unpublished(self, limit: int, published: int = 0) -> list[Change]:
        """See Leadership.unpublished."""
        steps = [Step(PUBLISHED, [str(published)])] if published else []
        with self._database.translated():
            *_, rows = await self._connection.exchange(*steps, Step(UNPUBLISHED, [str(limit)]))
            return [change_from_row(row) for row in rows]

    async def published(self, revision: int) -> None:
        """See Leadership.published."""
        with self._database.translated():
            await self._connection.exchange(Step(PUBLISHED, [str(revision)]))

    async def wait(self, seconds: float) -> None:
        """See Leadership.wait."""
        with self._database.translated():
            async for _ in self._connection.notifies(timeout=seconds, stop_after=1):
                pass


async def _become_leader(connection: Connection) -> None:
    # Tried in a loop: a session that waits inside the database holds a snapshot, which blocks index builds.
    while True:
        row = await (await connection.execute("SELECT pg_try_advisory_lock(%s)", [LOCK])).fetchone()
        if row and row[0]:
            return
        await asyncio.sleep(STANDBY_SECONDS)
