"""The pool of connections to one database, and the translation of the driver's errors."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

import psycopg
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from pointsman_server.adapters.postgres import pooler
from pointsman_server.adapters.postgres.connection import SYSTEM, Connection, Rows, Statement, Step, array
from pointsman_server.adapters.postgres.session import (
    BEGIN_SESSION,
    SERVER,
    SET_STATEMENT_TIMEOUT,
    BadDatabaseUrl,
    NoSession,
    UnsuitableDatabase,
    address,
    begin_transaction,
    check_encoding,
    parse_url,
    session_settings,
    to_conninfo,
    to_line,
)
from pointsman_server.domain.errors import Overloaded, StoreUnavailable
from pointsman_server.telemetry.tracing import spans
from pointsman_server.telemetry.tracing.spans import Kind

__all__ = ["BadDatabaseUrl", "Database"]

Pool = AsyncConnectionPool[Connection]
# The tables are missing, or are those of an earlier version.
OldSchema = psycopg.errors.UndefinedTable | psycopg.errors.UndefinedColumn

UNREACHABLE_WAIT_SECONDS = 0.25
# A failover that shows by no error (a name that now means another server) is noticed after this time at the latest.
LIFETIME_SECONDS = 300.0
# While a database stays read-only, its connections are replaced no more often than this.
RECONNECT_SECONDS = 2.0
# SQLSTATEs, or their classes, by which a server says that it takes no writes or that this session is over: read-only,
# connection exception, shut down, crashed, starting up, database dropped, idle for too long.
FAILOVER_STATES = ("25006", "08", "57P01", "57P02", "57P03", "57P04", "57P05")

# A pooler that was found to be in transaction mode is not tried again for this time.
NO_SESSION_SECONDS = 10.0

# Without names: a pooler, if there is one, may lend another session to what comes next.
SET_TIMEOUT = Statement("", SET_STATEMENT_TIMEOUT)
BEGIN = Statement("", BEGIN_SESSION)


class Database:
    """Connections to one database, each operation bounded by ``timeout`` seconds.

    ``failed`` is called once for every operation that the database could not do. A connection is replaced after
    ``lifetime`` seconds.

    After a failover open connections may stay with the old server, which goes on answering. All of them are replaced
    when one says that it takes no writes or that its session is over, when one does not answer, and when a new one
    reaches another server.

    ``pooled``: a pooler in transaction mode may stand before the database, so that nothing outlives a transaction. Only
    ``dedicated`` gives a session then, if there is a ``session_url``, which leads to the same database. Everywhere
    else a pooler in transaction mode is found, and refused by StoreUnavailable before anything is read or written.

    Raises BadDatabaseUrl.
    """

    def __init__(
        self,
        url: str,
        *,
        session_url: str = "",
        pooled: bool = False,
        pool_min: int = 2,
        pool_max: int = 10,
        timeout: float = 3.0,
        lifetime: float = LIFETIME_SECONDS,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        parameters = parse_url(url)
        self.address = address(parameters)
        self.server: datetime | None = None
        self._timeout = timeout
        self._conninfo = to_conninfo(parameters, timeout)
        session_parameters = parse_url(session_url) if session_url else parameters
        self.session_address = address(session_parameters)
        self._session_conninfo = to_conninfo(session_parameters, timeout)
        self._pooled = pooled or bool(session_url)
        self._has_sessions = bool(session_url) or not self._pooled
        self._examined = False
        self._examining = asyncio.Lock()
        self._no_session_until = float("-inf")
        self._failed = failed
        self._reachable: bool | None = None  # None: not known yet
        self._connect_error: Exception | None = None
        self._reconnected_at = float("-inf")
        self._begin = _begin_session(timeout)
        begin = self._begin_pooled if self._pooled else self._begin_session
        self._pool: Pool = AsyncConnectionPool(
            self._conninfo,
            kwargs={"begin": begin, "on_failure": self._connect_failed},
            min_size=pool_min,
            max_size=pool_max,
            timeout=timeout,
            max_lifetime=lifetime,
            reconnect_timeout=1,
            max_waiting=pool_max * 20,
            connection_class=Connection,
            open=False,
        )

    async def open(self) -> None:
        """Start connecting in the background; operations wait for a connection up to their timeout."""
        await self._pool.open(wait=False)

    async def close(self) -> None:
        await self._pool.close()

    def stats(self) -> dict[str, int]:
        """Return the gauges of the pool, as psycopg_pool names them."""
        return dict(self._pool.get_stats())

    @asynccontextmanager
    async def connection(self, *, statements: int = 1) -> AsyncIterator[Connection]:
        """Lend a connection; it commits when the block ends and rolls back when the block raises.

        The block may take the time of ``statements`` statements. Raises StoreUnavailable or Overloaded.
        """
        with self.translated(), spans.span("postgresql session", Kind.CLIENT, SYSTEM):
            try:
                async with (
                    asyncio.timeout(self._timeout * statements + 1),
                    self._pool.connection(self._patience) as connection,
                ):
                    self._reachable = True
                    yield connection
            except (psycopg.Error, TimeoutError) as error:
                await self._reconnect_after(error)
                raise

    async def exchange(self, *steps: Step) -> list[Rows]:
        """Send statements that need no transaction around them, as ``Connection.exchange`` does.

        Raises StoreUnavailable or Overloaded.
        """
        with self.translated():
            connection = await self._pool.getconn(self._patience)
            self._reachable = True
            try:
                return await self._exchange(connection, steps)
            finally:
                await self._pool.putconn(connection)

    async def dedicated(self) -> Connection:
        """Open a connection outside the pool, in autocommit. The caller closes it.

        It is a session, for LISTEN and locks, unless the database is ``pooled`` and has no ``session_url``.
        Raises StoreUnavailable.
        """
        begin = self._begin_session if self._has_sessions else self._begin_pooled
        with self.translated():
            return await Connection.connect(
                self._session_conninfo, autocommit=True, begin=begin, on_failure=self._connect_failed
            )

    async def exchange_on(self, connection: Connection, *steps: Step) -> list[Rows]:
        """Send statements on a dedicated connection, bounded and translated as ``exchange`` is."""
        with self.translated():
            return await self._exchange(connection, steps)

    async def reconnect(self) -> None:
        """Replace every connection of the pool, those in use when they are returned.

        Does nothing within RECONNECT_SECONDS of the last time.
        """
        now = time.monotonic()
        if now - self._reconnected_at >= RECONNECT_SECONDS and not self._pool.closed:
            self._reconnected_at = now
            self._reachable = None
            await self._pool.drain()

    async def reached(self, server: datetime) -> None:
        """Note the start time of a server that answered; another one than before replaces every connection."""
        before, self.server = self.server, server
        if before not in (None, server):
            await self.reconnect()

    def translated(self) -> "_Translation":
        """Raise what the ports promise instead of what the driver raises, which stays the ``__cause__``."""
        return _Translation(self)

    def translate(self, error: BaseException) -> Exception | None:
        """Return the error of the ports for an error of the driver; None when it is not about the database."""
        if isinstance(error, TooManyRequests | psycopg.errors.TooManyConnections):
            return Overloaded("store_connections")
        if isinstance(error, PoolTimeout):
            # The pool raises this both when all connections are busy and when it can open none.
            if self._reachable:
                return Overloaded("store_connections")
            self._reachable = False
            return StoreUnavailable()
        # A standby cancels a read that holds up what the primary has removed, by the second.
        if isinstance(error, psycopg.errors.QueryCanceled | psycopg.errors.SerializationFailure):
            return StoreUnavailable()
        if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError | PoolClosed | TimeoutError):
            self._reachable = False
            return StoreUnavailable()
        if isinstance(error, psycopg.errors.ReadOnlySqlTransaction | OldSchema):
            return StoreUnavailable()
        return None

    def explain(self, error: BaseException) -> str:
        """Say why an operation failed and what to do; the text continues "PostgreSQL at …"."""
        cause = error.__cause__
        if isinstance(cause, PoolTimeout) and not isinstance(error, Overloaded):
            cause = self._connect_error
        if isinstance(cause, UnsuitableDatabase):
            return str(cause)
        if isinstance(cause, OldSchema):
            return "has no schema: run `pointsman-server migrate`"
        if isinstance(cause, psycopg.errors.ReadOnlySqlTransaction):
            return "is read-only"
        if isinstance(error, Overloaded):
            return "has no free connection in the pool"
        if isinstance(cause, psycopg.errors.QueryCanceled | TimeoutError):
            return f"does not answer within {self._timeout:g} s"
        if isinstance(cause, psycopg.Error):
            return f"cannot be reached: {to_line(cause)}"
        return "cannot be reached"

    def count_failure(self) -> None:
        self._failed()

    @property
    def _patience(self) -> float:
        # While the database is unreachable no call waits long: asking the pool already makes it connect again.
        return min(self._timeout, UNREACHABLE_WAIT_SECONDS) if self._reachable is False else self._timeout

    async def _begin_session(self, connection: Connection) -> None:
        """Set our settings. Raises UnsuitableDatabase, and the driver's errors."""
        process = await self._look(connection, *self._begin)
        if pooler.is_pooled(connection, process):
            await self._examine(connection, process)
            connection.prologue = pooler.guard(process)

    async def _begin_pooled(self, connection: Connection) -> None:
        """Use nothing that outlives a transaction. Raises UnsuitableDatabase, and the driver's errors."""
        connection.prepares = False
        connection.prepare_threshold = None
        sql = begin_transaction(self._timeout, connection.pgconn.server_version)
        connection.prologue = Step(Statement("", sql))
        await self._look(connection, Step(Statement("", SERVER)))

    async def _look(self, connection: Connection, *steps: Step) -> int:
        """Send what a connection begins with, and note the server. Returns the process that answers."""
        try:
            async with asyncio.timeout(self._timeout + 1):
                *_, ((encoding, server, process, _),) = await connection.exchange(*steps)
        except TimeoutError as error:
            # The pool goes on after an error of the driver.
            raise psycopg.errors.ConnectionTimeout(f"no answer within {self._timeout:g} s") from error
        check_encoding(encoding)
        connection.server = server
        self._connect_error = None
        await self.reached(server)
        return int(process)

    async def _examine(self, connection: Connection, process: int) -> None:
        """Raise NoSession if the pooler is in transaction mode. Once it was found not to be, do not look again."""
        if time.monotonic() < self._no_session_until:
            raise NoSession
        if self._examined:
            return
        try:
            async with self._examining:
                self._examined = await pooler.examine(connection, process, self._connect_plainly)
        except NoSession:
            await self._found_no_session()
            raise

    async def _found_no_session(self) -> None:
        """Refuse every session for a while: whether another one is found out depends on what else goes on."""
        self._examined = False
        self._no_session_until = time.monotonic() + NO_SESSION_SECONDS
        await self.reconnect()

    async def _connect_plainly(self) -> Connection:
        return await Connection.connect(self._session_conninfo, autocommit=True)

    def _connect_failed(self, error: Exception) -> None:
        self._connect_error = error

    async def _exchange(self, connection: Connection, steps: Sequence[Step]) -> list[Rows]:
        try:
            async with asyncio.timeout(self._timeout + 1):
                return await connection.exchange(*steps)
        except (psycopg.Error, TimeoutError) as error:
            await self._reconnect_after(error)
            raise

    async def _reconnect_after(self, error: Exception) -> None:
        if isinstance(error, NoSession):
            await self._found_no_session()
        elif _shows_failover(error):
            await self.reconnect()


def _begin_session(timeout: float) -> tuple[Step, ...]:
    settings = session_settings(timeout)
    names_and_values = [array(list(settings)), array(list(settings.values()))]
    return Step(SET_TIMEOUT, [settings["statement_timeout"]]), Step(BEGIN, names_and_values)


def _shows_failover(error: Exception) -> bool:
    if isinstance(error, PoolTimeout | PoolClosed | TooManyRequests | UnsuitableDatabase):
        return False
    if isinstance(error, psycopg.Error) and error.sqlstate:
        return error.sqlstate.startswith(FAILOVER_STATES)
    # Not from the server: the connection is lost, or the server did not even cancel a statement at its timeout.
    return isinstance(error, psycopg.OperationalError | TimeoutError)


class _Translation:
    """Raises the port's error from the driver's, which stays its ``__cause__``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __enter__(self) -> None:
        return None

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        translated = self._database.translate(error) if error else None
        if translated:
            self._database.count_failure()
            raise translated from error
