"""``ports.RouteStore`` on PostgreSQL."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from psycopg import AsyncServerCursor

from pointsman_server.adapters.postgres.connection import BEGIN_SNAPSHOT, Connection, Statement, Step
from pointsman_server.adapters.postgres.database import Database
from pointsman_server.adapters.postgres.rows import (
    CHANGE_COLUMNS,
    ROUTE_COLUMNS,
    TRAFFIC_COLUMNS,
    change_from_row,
    route_from_row,
    traffic_from_row,
)
from pointsman_server.adapters.postgres.snapshots import LOAD, snapshots
from pointsman_server.adapters.postgres.transaction import PostgresTransaction
from pointsman_server.domain.routes import Change, Route, RouteKey, Snapshot, Traffic
from pointsman_server.ports.store import ChangeQuery, Clock, RouteQuery, Table, TrafficQuery

# A scan may take as long as so many statements; each of its batches is one.
SCAN_STATEMENTS = 20
MOST = 2**63 - 1

Batches = AsyncIterator[Sequence[Route]]

CLOCK = Step(Statement("clock", "SELECT epoch, revision FROM clock"))
COMPACTED = Step(Statement("compacted", "SELECT coalesce(max(revision), 0) FROM history_compactions"))

# Whether the server takes no writes, as a standby or because it is set so; and when it was started.
READ_ONLY = Step(
    Statement(
        "read_only",
        """
SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean, pg_postmaster_start_time()
""",
    )
)

TIME = Step(Statement("time", "SELECT extract(epoch FROM clock_timestamp())::float8"))


class PostgresStore:
    """Routes in PostgreSQL. ``queried`` is called with the name of each operation that is sent."""

    def __init__(self, database: Database, *, queried: Callable[[str], None] = lambda _: None) -> None:
        self._database = database
        self._queried = queried

    async def load(self, keys: Sequence[RouteKey]) -> list[Snapshot]:
        self._queried("load")
        if not keys:
            return []
        (rows,) = await self._database.exchange(LOAD.step(keys))
        return snapshots(keys, rows)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[PostgresTransaction]:
        self._queried("mutate")
        async with self._database.connection() as connection:
            transaction = PostgresTransaction(connection)
            yield transaction
            await transaction.end()

    async def list_routes(self, query: RouteQuery) -> list[Route]:
        self._queried("list_routes")
        async with self._database.connection() as connection:
            return await list_on(connection, query)

    async def list_traffic(self, query: TrafficQuery) -> list[Traffic]:
        self._queried("list_traffic")
        async with self._database.connection() as connection:
            return await list_traffic_on(connection, query)

    @asynccontextmanager
    async def scan(self, query: RouteQuery) -> AsyncIterator[Table]:
        self._queried("scan")
        async with self._database.connection(statements=SCAN_STATEMENTS) as connection:
            clock = Step(Statement("", CLOCK.statement.sql))
            _, ((epoch, revision),) = await connection.exchange(BEGIN_SNAPSHOT, clock)
            async with scan_on(connection, query) as (batches, traffic):
                yield Table(Clock(str(epoch), revision), batches, traffic)

    async def list_changes(self, query: ChangeQuery) -> list[Change]:
        self._queried("list_changes")
        where = _Where()
        where.equal(tenant=query.tenant, service=query.service, env=query.env, version=query.version, actor=query.actor)
        if query.after_revision:
            where.add("revision > %s", query.after_revision)
        if query.before_revision:
            where.add("revision < %s", query.before_revision)
        order = "DESC" if query.newest_first else "ASC"
        sql = f"SELECT {CHANGE_COLUMNS} FROM route_changes {where} ORDER BY revision {order} LIMIT %s"
        async with self._database.connection() as connection:
            return [change_from_row(row) for row in await _all(connection, sql, [*where.values, query.limit])]

    async def compacted(self) -> int:
        self._queried("compacted")
        (((revision,),),) = await self._database.exchange(COMPACTED)
        return int(revision)

    async def clock(self) -> Clock:
        self._queried("clock")
        (((epoch, revision),),) = await self._database.exchange(CLOCK)
        return Clock(str(epoch), revision)

    async def time(self) -> float:
        """Read the clock of the server, in seconds since 1970."""
        (((seconds,),),) = await self._database.exchange(TIME)
        return float(str(seconds))

    async def read_only(self) -> bool:
        """Return whether the database takes no writes; then the pool reconnects, in case another server does."""
        (((read_only, server),),) = await self._database.exchange(READ_ONLY)
        # A pooler may have led this to another server than the connection was opened to.
        await self._database.reached(server)
        if read_only:
            await self._database.reconnect()
        return bool(read_only)

    async def forget_requests(self, older_than_seconds: float) -> int:
        """Delete remembered outcomes by age; return how many."""
        self._queried("forget_requests")
        sql = "DELETE FROM requests WHERE created_at < now() - make_interval(secs => %s)"
        async with self._database.connection() as connection:
            return (await connection.execute(sql, [older_than_seconds])).rowcount


async def list_on(connection: Connection, query: RouteQuery) -> list[Route]:
    """Read what ``RouteStore.list_routes`` returns."""
    where = _Where()
    where.equal(tenant=query.tenant, service=query.service, env=query.env)
    if query.active is not None:
        where.add("active = %s", query.active)
    if query.after:
        where.add("(tenant, service, env, version) > (%s, %s, %s, %s)", *query.after)
    sql = f"SELECT {ROUTE_COLUMNS} FROM routes {where} ORDER BY tenant, service, env, version LIMIT %s"
    return [route_from_row(row) for row in await _all(connection, sql, [*where.values, query.limit])]


async def list_traffic_on(connection: Connection, query: TrafficQuery) -> list[Traffic]:
    """Read what ``RouteStore.list_traffic`` returns."""
    where = _Where()
    where.equal(tenant=query.tenant, service=query.service, env=query.env)
    if query.after:
        where.add("(tenant, service, env) > (%s, %s, %s)", *query.after[:3])
    sql = f"SELECT {TRAFFIC_COLUMNS} FROM traffic {where} ORDER BY tenant, service, env LIMIT %s"
    return [traffic_from_row(row) for row in await _all(connection, sql, [*where.values, query.limit])]


@asynccontextmanager
async def scan_on(connection: Connection, query: RouteQuery) -> AsyncIterator[tuple[Batches, Sequence[Traffic]]]:
    """Read the batches and the traffic of ``RouteStore.scan``, in the transaction that has begun."""
    traffic = await list_traffic_on(connection, TrafficQuery(query.tenant, query.service, query.env, limit=MOST))
    where = _Where()
    where.equal(tenant=query.tenant, service=query.service, env=query.env)
    sql = f"SELECT {ROUTE_COLUMNS} FROM routes {where} ORDER BY tenant, service, env, version"
    async with connection.cursor("scan") as cursor:
        await cursor.execute(sql, where.values)
        yield _batches(cursor, query.limit), traffic


class _Where:
    """Builds a WHERE clause. Its text comes from this module alone; values are sent as parameters."""

    def __init__(self) -> None:
        self._terms: list[str] = []
        self.values: list[Any] = []

    def add(self, term: str, *values: object) -> None:
        self._terms.append(term)
        self.values.extend(values)

    def equal(self, **parts: str) -> None:
        for column, value in parts.items():
            if value:
                self.add(f"{column} = %s", value)

    def __str__(self) -> str:
        return "WHERE " + " AND ".join(self._terms) if self._terms else ""


async def _batches(cursor: AsyncServerCursor[Any], size: int) -> Batches:
    while rows := await cursor.fetchmany(size):
        yield list(map(route_from_row, rows))


async def _all(connection: Connection, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
    return await (await connection.execute(sql, values)).fetchall()
