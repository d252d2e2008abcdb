"""The pool of connections, and the translation of the driver's errors."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from pointsman_server.adapters.postgres.connection import Connection, Rows, Step
from pointsman_server.domain.errors import Overloaded, StoreUnavailable

Pool = AsyncConnectionPool[Connection]
# The schema is not there, or that of a version before.
OldSchema = psycopg.errors.UndefinedTable | psycopg.errors.UndefinedColumn

AWAY_SECONDS = 0.25


class Database:
    """Connections to one database, each operation bounded by ``timeout`` seconds.

    ``failed`` is called once for every operation that the database could not do.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_min: int = 2,
        pool_max: int = 10,
        timeout: float = 3.0,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        self._timeout = timeout
        self._url = self._conninfo(url)
        self._failed = failed
        self._reachable: bool | None = None  # not known yet
        self._pool: Pool = AsyncConnectionPool(
            self._url,
            min_size=pool_min,
            max_size=pool_max,
            timeout=timeout,
            reconnect_timeout=1,
            max_waiting=pool_max * 20,
            connection_class=Connection,
            open=False,
        )

    @property
    def address(self) -> str:
        """Host and port, for messages: never the password."""
        parts = conninfo_to_dict(self._url)
        return f"{parts.get('host', 'localhost')}:{parts.get('port', 5432)}"

    async def open(self) -> None:
        """Start connecting in the background; operations wait for a connection up to their timeout."""
        await self._pool.open(wait=False)

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.close()

    def stats(self) -> dict[str, int]:
        """Return the gauges of the pool, as psycopg_pool names them."""
        return dict(self._pool.get_stats())

    @asynccontextmanager
    async def connection(self, *, statements: int = 1) -> AsyncIterator[Connection]:
        """Lend a connection; it commits when the block ends and rolls back when the block raises.

        The block may take the time of ``statements`` that each need all of theirs.

        Raises StoreUnavailable or Overloaded, as the ports say.
        """
        with self.translated():
            async with (
                asyncio.timeout(self._timeout * statements + 1),
                self._pool.connection(self._patience) as connection,
            ):
                self._reachable = True
                yield connection

    async def exchange(self, *steps: Step) -> list[Rows]:
        """Send statements that need no transaction around them, as ``Connection.exchange`` does.

        Raises StoreUnavailable or Overloaded.
        """
        with self.translated():
            async with asyncio.timeout(self._timeout + 1):
                connection = await self._pool.getconn(self._patience)
                self._reachable = True
                try:
                    return await connection.exchange(*steps)
                finally:
                    await self._pool.putconn(connection)

    @property
    def _patience(self) -> float:
        # While the database is away nobody waits long for it: the attempt itself makes the pool connect again.
        return min(self._timeout, AWAY_SECONDS) if self._reachable is False else self._timeout

    async def dedicated(self) -> Connection:
        """Open a connection outside the pool, in autocommit, for LISTEN and session locks. The caller closes it."""
        with self.translated():
            return await Connection.connect(self._url, autocommit=True)

    def translated(self) -> "_Translation":
        """Raise what the ports promise instead of what the driver raises, which stays the ``__cause__``."""
        return _Translation(self)

    def translate(self, error: BaseException) -> Exception | None:
        """Say what an error of the driver means in the terms of the ports; None when it is none of ours."""
        if isinstance(error, TooManyRequests | psycopg.errors.TooManyConnections):
            return Overloaded("store_connections")
        if isinstance(error, PoolTimeout):
            # The pool says the same when all its connections are busy and when it can make none.
            if self._reachable:
                return Overloaded("store_connections")
            self._reachable = False
            return StoreUnavailable()
        if isinstance(error, psycopg.errors.QueryCanceled):
            return StoreUnavailable()
        if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError | PoolClosed | TimeoutError):
            self._reachable = False
            return StoreUnavailable()
        if isinstance(error, psycopg.errors.ReadOnlySqlTransaction | OldSchema):
            return StoreUnavailable()
        return None

    def explain(self, error: BaseException) -> str:
        """Say in words why an operation failed, and what to do."""
        cause = error.__cause__
        if isinstance(cause, OldSchema):
            return "has no schema: run `pointsman-server migrate`"
        if isinstance(error, Overloaded):
            return "has no free connection in the pool"
        if isinstance(cause, psycopg.errors.QueryCanceled):
            return f"does not answer within {self._timeout:g} s"
        return "cannot be reached"

    def count_failure(self) -> None:
        """Tell the metrics."""
        self._failed()

    def _conninfo(self, url: str) -> str:
        milliseconds = int(self._timeout * 1000)
        # What the URL itself says wins.
        ours: dict[str, Any] = {
            "application_name": "pointsman",
            "connect_timeout": str(max(2, int(self._timeout))),
            "tcp_user_timeout": str(milliseconds),
            # A server that stops in the middle of a transaction may hold the clock, for which all others wait.
            "options": f"-c statement_timeout={milliseconds} -c idle_in_transaction_session_timeout={milliseconds}"
            " -c default_transaction_isolation=read\\ committed -c jit=off",
        }
        return make_conninfo(**(ours | conninfo_to_dict(url)))


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
