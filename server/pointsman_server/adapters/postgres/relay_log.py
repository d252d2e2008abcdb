"""``ports.RelayLog`` on PostgreSQL: leadership is a session's advisory lock, and NOTIFY wakes the leader."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg

from pointsman_server.adapters.postgres.connection import Connection, Rows, Statement, Step
from pointsman_server.adapters.postgres.database import Database
from pointsman_server.adapters.postgres.pooler import holds
from pointsman_server.adapters.postgres.rows import CHANGE_COLUMNS, change_from_row
from pointsman_server.adapters.postgres.session import NoSession, UnsuitableDatabase
from pointsman_server.adapters.postgres.store import CLOCK, READ_ONLY
from pointsman_server.adapters.postgres.transaction import NOTIFY_CHANNEL
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

# The WHERE: a leader that was paused and lost its session must not move the progress back.
PUBLISHED = Statement("published", "UPDATE relay SET revision = $1::bigint WHERE revision < $1::bigint")

# None: the process has the lock already. So somebody else leads in what is to be our session.
TRY_LOCK = Step(Statement("try_lock", f"SELECT CASE WHEN NOT {holds(LOCK)} THEN pg_try_advisory_lock({LOCK}) END"))
# Progress that a crash of the database loses is published again, as when the relay dies: no need to wait for the disk.
ASYNCHRONOUS_COMMIT = Step(Statement("asynchronous_commit", "SET synchronous_commit = off"))
LISTEN = Step(Statement("listen", f"LISTEN {NOTIFY_CHANNEL}"))

STATE = """
SELECT relay.revision, clock.revision,
       coalesce(extract(epoch FROM clock_timestamp() - (
           SELECT occurred_at FROM route_changes WHERE revision = relay.revision + 1)), 0)::float8
  FROM relay, clock
"""


class PostgresRelayLog:
    """``ports.RelayLog``: the table ``route_changes`` is the outbox."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._had_session = False

    async def check_session(self) -> None:
        """Raise StoreUnavailable if the relay can have no session. Once it had one, that is not tried again."""
        if not self._had_session:
            connection = await self._database.dedicated()
            try:
                await PostgresLeadership(self._database, connection).check()
                self._had_session = True
            finally:
                await connection.close()

    @asynccontextmanager
    async def lead(self) -> AsyncIterator["PostgresLeadership"]:
        connection = await self._database.dedicated()
        try:
            leadership = PostgresLeadership(self._database, connection)
            await leadership.begin()
            yield leadership
        finally:
            await connection.close()

    async def state(self) -> RelayState:
        async with self._database.connection() as connection:
            row = await (await connection.execute(STATE)).fetchone()
        return RelayState(*row) if row else RelayState(0, 0, 0.0)

    async def rewind(self, revision: int) -> None:
        """Publish again everything after ``revision``, for a broker that lost messages."""
        async with self._database.connection() as connection:
            await connection.execute("UPDATE relay SET revision = least(revision, %s)", [revision])


class PostgresLeadership:
    """``ports.Leadership``: its session holds the lock, so every statement fails once the lock is lost.

    The lock is of one server. So each operation also fails once that server takes no writes, or once the pool has
    reached another one: after a failover the old server may still answer and grant its lock.
    """

    def __init__(self, database: Database, connection: Connection) -> None:
        self._database = database
        self._connection = connection

    async def check(self) -> None:
        """Raise StoreUnavailable unless the session is with the database that everybody else writes to."""
        if self._database.session_address == self._database.address:
            return
        (((epoch, _),),) = await self._exchange(CLOCK)
        (((other, _),),) = await self._database.exchange(CLOCK)
        if epoch != other:
            with self._database.translated():
                raise UnsuitableDatabase("is another database than that of DATABASE_URL: its epoch is another one")

    async def begin(self) -> None:
        """Check the session, wait for the lock, then listen. Raises StoreUnavailable."""
        await self.check()
        # Tried in a loop: a session that waits inside the database holds a snapshot, which blocks index builds.
        while True:
            (((is_leader,),),) = await self._exchange(TRY_LOCK)
            if is_leader is None:
                with self._database.translated():
                    raise NoSession
            if is_leader:
                break
            await asyncio.sleep(STANDBY_SECONDS)
        await self._exchange(ASYNCHRONOUS_COMMIT, LISTEN)

    async def unpublished(self, limit: int, published: int = 0) -> list[Change]:
        steps = [Step(PUBLISHED, [str(published)])] if published else []
        *_, rows = await self._exchange(*steps, Step(UNPUBLISHED, [str(limit)]))
        return [change_from_row(row) for row in rows]

    async def published(self, revision: int) -> None:
        await self._exchange(Step(PUBLISHED, [str(revision)]))

    async def wait(self, seconds: float) -> None:
        with self._database.translated():
            async for _ in self._connection.notifies(timeout=seconds, stop_after=1):
                pass

    async def _exchange(self, *steps: Step) -> list[Rows]:
        read_only, *rows = await self._database.exchange_on(self._connection, READ_ONLY, *steps)
        with self._database.translated():
            if read_only[0][0]:
                raise psycopg.errors.ReadOnlySqlTransaction("the relay's session takes no writes")
            if self._connection.server != self._database.server:
                raise psycopg.OperationalError("the relay's session is with a server that was replaced")
        return rows
