"""``ports.RouteStore`` on PostgreSQL."""

import json
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import UTC
from typing import Any

from psycopg import AsyncServerCursor

from pointsman_server.adapters.postgres.connection import (
    BEGIN,
    BEGIN_SNAPSHOT,
    COMMIT,
    ROLLBACK,
    Connection,
    Statement,
    Step,
    array,
)
from pointsman_server.adapters.postgres.database import Database
from pointsman_server.adapters.postgres.rows import (
    CHANGE_COLUMNS,
    ROUTE_COLUMNS,
    change_from_row,
    route_from_json,
    route_from_row,
    route_of,
    route_to_json,
)
from pointsman_server.domain.routes import Change, Route, RouteKey, Snapshot
from pointsman_server.domain.traffic import Traffic
from pointsman_server.ports.store import (
    ChangeQuery,
    Clock,
    LockedState,
    MutationScope,
    Outcome,
    RouteQuery,
    StoredOutcome,
    Table,
    TrafficQuery,
)

NOTIFY_CHANNEL = "route_changes"
# A scan may take as long as so many statements; each of its batches is one.
SCAN_STATEMENTS = 20

LOAD = Statement(
    "load",
    """
SELECT clock.epoch::text, clock.revision, r.url, r.active, r.labels, r.revision, r.create_time, r.update_time
  FROM clock
 CROSS JOIN unnest($1::text[], $2::text[], $3::text[], $4::text[])
            WITH ORDINALITY AS k (tenant, service, env, version, position)
  LEFT JOIN routes AS r USING (tenant, service, env, version)
 ORDER BY k.position
""",
)

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

# Only one transaction at a time holds the row of the clock: commit order is revision order, and no other mutation comes
# between its reads and its writes. The time is read once the lock is held, so it follows the revisions.
LOCK = Step(
    Statement(
        "lock",
        """
WITH held AS MATERIALIZED (SELECT epoch, revision FROM clock FOR NO KEY UPDATE)
SELECT epoch, revision, clock_timestamp() FROM held
""",
    )
)

# Separate statements, after the lock: under READ COMMITTED they see everything that was committed before it.
READ = Statement(
    "read",
    f"""
SELECT {ROUTE_COLUMNS} FROM routes
  JOIN unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS k (tenant, service, env, version)
 USING (tenant, service, env, version)
""",
)
READ_FAMILIES = Statement(
    "read_families",
    f"""
SELECT {ROUTE_COLUMNS} FROM routes
  JOIN unnest($1::text[], $2::text[], $3::text[]) AS k (tenant, service, env) USING (tenant, service, env)
""",
)
FIND_REQUESTS = Statement(
    "find_requests",
    """
SELECT tenant, request_id, fingerprint, route, revision FROM requests
  JOIN unnest($1::text[], $2::text[]) AS k (tenant, request_id) USING (tenant, request_id)
""",
)

# ``last`` is the last change of its key in the group: it says what the route is now.
RECORD = Statement(
    "record",
    f"""
WITH change AS MATERIALIZED (
    SELECT * FROM json_to_recordset($1::json) AS c (
        revision bigint, event_id uuid, kind text, tenant text, service text, env text, version text,
        before jsonb, after jsonb, actor text, reason text, request_id text, traceparent text,
        change_set_end bigint, tracestate text, last boolean
    )
), tick AS (
    UPDATE clock SET revision = $2::bigint
), gone AS (
    DELETE FROM routes AS r USING change AS c
     WHERE c.last AND c.after IS NULL
       AND (r.tenant, r.service, r.env, r.version) = (c.tenant, c.service, c.env, c.version)
), kept AS (
    INSERT INTO routes (tenant, service, env, version, url, active, labels, revision, create_time, update_time)
    SELECT tenant, service, env, version, after ->> 'url', (after ->> 'active')::boolean, after -> 'labels',
           revision, (after ->> 'create_time')::timestamptz, (after ->> 'update_time')::timestamptz
      FROM change WHERE last AND after IS NOT NULL
    ON CONFLICT (tenant, service, env, version) DO UPDATE
       SET url = excluded.url, active = excluded.active, labels = excluded.labels, revision = excluded.revision,
           create_time = excluded.create_time, update_time = excluded.update_time
), history AS (
    INSERT INTO route_changes (revision, event_id, kind, tenant, service, env, version, before, after,
                               actor, reason, request_id, occurred_at, epoch, traceparent, change_set_end, tracestate)
    SELECT revision, event_id, kind, tenant, service, env, version, before, after,
           actor, reason, request_id, $3::timestamptz, $4::uuid, traceparent, change_set_end, tracestate
      FROM change
)
SELECT pg_notify('{NOTIFY_CHANNEL}', '')
""",
)
REMEMBER = Statement(
    "remember",
    """
INSERT INTO requests (tenant, request_id, fingerprint, route, revision)
SELECT tenant, request_id, decode(fingerprint, 'hex'), route, revision
  FROM json_to_recordset($1::json) AS r (tenant text, request_id text, fingerprint text, route jsonb, revision bigint)
""",
)


class PostgresStore:
    """Routes in PostgreSQL. ``queried`` is called with the name of each operation that is sent."""

    def __init__(self, database: Database, *, queried: Callable[[str], None] = lambda _: None) -> None:
        self._database = database
        self._queried = queried

    async def load(self, keys: Sequence[RouteKey]) -> list[Snapshot]:
        self._queried("load")
        if not keys:
            return []
        (rows,) = await self._database.exchange(Step(LOAD, transposed(keys)))
        return [snapshot_from_row(key, *row) for key, row in zip(keys, rows, strict=True)]

    @asynccontextmanager
    async def begin(self) -> AsyncIterator["PostgresTransaction"]:
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
        raise NotImplementedError

    @asynccontextmanager
    async def scan(self, query: RouteQuery) -> AsyncIterator[Table]:
        self._queried("scan")
        async with self._database.connection(statements=SCAN_STATEMENTS) as connection:
            clock = Step(Statement("", CLOCK.statement.sql))
            _, ((epoch, revision),) = await connection.exchange(BEGIN_SNAPSHOT, clock)
            async with scan_on(connection, query) as batches:
                yield Table(Clock(str(epoch), revision), batches)

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


class PostgresTransaction:
    """``ports.RouteTransaction`` on one connection, in two round trips: one to read, and one to write and commit."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._changes: Sequence[Change] = ()
        self._remembered: Sequence[StoredOutcome] = ()

    async def lock(self, scopes: Sequence[MutationScope]) -> LockedState:
        families = {(scope.key.tenant, scope.key.service, scope.key.env) for scope in scopes if scope.family}
        ids = {(scope.key.tenant, scope.intent.request_id) for scope in scopes if scope.intent.request_id}
        reads = [Step(READ, transposed({scope.key for scope in scopes}))]
        reads += [Step(READ_FAMILIES, transposed(families))] if families else []
        finds = [Step(FIND_REQUESTS, transposed(ids))] if ids else []
        _, held, *read = await self._connection.exchange(BEGIN, LOCK, *reads, *finds)
        ((epoch, revision, moment),) = held
        routes = {route.key: route for rows in read[: len(reads)] for route in map(route_from_row, rows)}
        requests = {row[:2]: row[2:] for rows in read[len(reads) :] for row in rows}
        remembered = [_remembered(scope, requests.get((scope.key.tenant, scope.intent.request_id))) for scope in scopes]
        return LockedState(Clock(str(epoch), revision), moment.astimezone(UTC), list(routes.values()), remembered)

    async def record(self, changes: Sequence[Change], remembered: Sequence[StoredOutcome]) -> None:
        """It is sent with the commit."""
        self._changes, self._remembered = changes, remembered

    async def end(self) -> None:
        """Write what was recorded and commit; without a record, roll back, which flushes nothing to the disk."""
        steps = [Step(RECORD, _record_values(self._changes))] if self._changes else []
        if self._remembered:
            remembered = [_remembered_to_json(one) for one in self._remembered]
            steps.append(Step(REMEMBER, [json.dumps(remembered)]))
        await self._connection.exchange(*steps, COMMIT if steps else ROLLBACK)


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


@asynccontextmanager
async def scan_on(connection: Connection, query: RouteQuery) -> AsyncIterator[AsyncIterator[Sequence[Route]]]:
    """Read the batches of ``RouteStore.scan``, in the transaction that has begun."""
    where = _Where()
    where.equal(tenant=query.tenant, service=query.service, env=query.env)
    sql = f"SELECT {ROUTE_COLUMNS} FROM routes {where} ORDER BY tenant, service, env, version"
    async with connection.cursor("scan") as cursor:
        await cursor.execute(sql, where.values)
        yield _batches(cursor, query.limit)


def snapshot_from_row(key: RouteKey, epoch: str, as_of: int, url: str | None, *rest: Any) -> Snapshot:
    """Read a row of LOAD."""
    return Snapshot(key, route_of(key, url, *rest) if url is not None else None, as_of, epoch)


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


def transposed(rows: Collection[Sequence[str]]) -> list[str]:
    return [array(column) for column in zip(*rows, strict=True)]


def _record_values(changes: Sequence[Change]) -> list[str]:
    last = {change.key: change.revision for change in changes}
    end = changes[-1]
    rows = [_change_to_json(change, last=last[change.key] == change.revision) for change in changes]
    return [json.dumps(rows), str(end.revision), end.occur_time.isoformat(), end.epoch]


def _change_to_json(change: Change, *, last: bool) -> dict[str, Any]:
    key = change.key
    return {
        "revision": change.revision,
        "event_id": change.event_id,
        "kind": change.kind,
        "tenant": key.tenant,
        "service": key.service,
        "env": key.env,
        "version": key.version,
        "before": route_to_json(change.before),
        "after": route_to_json(change.after),
        "actor": change.actor,
        "reason": change.reason,
        "request_id": change.request_id,
        "traceparent": change.traceparent,
        "tracestate": change.tracestate,
        "change_set_end": change.change_set_end,
        "last": last,
    }


def _remembered_to_json(remembered: StoredOutcome) -> dict[str, Any]:
    return {
        "tenant": remembered.tenant,
        "request_id": remembered.request_id,
        "fingerprint": remembered.fingerprint.hex(),
        "route": route_to_json(remembered.outcome.route),
        "revision": remembered.outcome.revision,
    }


def _remembered(scope: MutationScope, row: Sequence[Any] | None) -> StoredOutcome | None:
    if row is None:
        return None
    fingerprint, route, revision = row
    # Of another request only the fingerprint is needed; that of an import has no route.
    same = bytes(fingerprint) == scope.intent.fingerprint
    outcome = Outcome(route_from_json(scope.key, route) if same else None, revision)
    return StoredOutcome(scope.key.tenant, scope.intent.request_id, bytes(fingerprint), outcome)


async def _batches(cursor: AsyncServerCursor[Any], size: int) -> AsyncIterator[Sequence[Route]]:
    while rows := await cursor.fetchmany(size):
        yield list(map(route_from_row, rows))


async def _all(connection: Connection, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
    return await (await connection.execute(sql, values)).fetchall()
