"""``ports.RouteStore`` on PostgreSQL."""

import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from psycopg.errors import UniqueViolation
from psycopg.types.json import Jsonb

from pointsman_server.adapters.postgres.database import Connection, Database
from pointsman_server.adapters.postgres.rows import (
    CHANGE_COLUMNS,
    ROUTE_COLUMNS,
    change_from_row,
    route_from_json,
    route_from_row,
    route_to_json,
)
from pointsman_server.errors import RequestIdReused
from pointsman_server.ports import ChangeQuery, Clock, Intent, Locked, Outcome, RouteQuery
from pointsman_server.routes import Change, ChangeKind, Draft, Route, RouteKey, Snapshot

NOTIFY_CHANNEL = "route_changes"

LOAD = """
SELECT clock.epoch, clock.revision, r.url IS NOT NULL, k.tenant, k.service, k.env, k.version,
       r.url, r.active, r.labels, r.revision, r.create_time, r.update_time
  FROM clock
 CROSS JOIN unnest(%s::text[], %s::text[], %s::text[], %s::text[])
            WITH ORDINALITY AS k (tenant, service, env, version, position)
  LEFT JOIN routes AS r USING (tenant, service, env, version)
 ORDER BY k.position
"""

# One lock per family serialises its mutations, also those of versions that do not exist yet.
LOCK_FAMILY = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"

# A statement of its own, after the lock: under READ COMMITTED it sees everything that was committed before it.
READ_FAMILY = f"""
SELECT clock.epoch, clock.revision, r.url IS NOT NULL, {", ".join("r." + name for name in ROUTE_COLUMNS.split(", "))}
  FROM clock LEFT JOIN routes AS r ON (r.tenant, r.service, r.env) = (%s, %s, %s)
"""

# Takes the revisions, writes the routes and their history: the clock row stays locked from here to the commit.
RECORD = f"""
WITH draft AS (
    SELECT * FROM ROWS FROM (jsonb_to_recordset(%(drafts)s) AS (
        event_id uuid, kind text, tenant text, service text, env text, version text,
        before jsonb, create_time timestamptz, url text, active boolean, labels jsonb
    )) WITH ORDINALITY AS d (
        event_id, kind, tenant, service, env, version, before, create_time, url, active, labels, position
    )
), tick AS (
    UPDATE clock SET revision = revision + %(count)s
    RETURNING epoch, revision - %(count)s AS base, clock_timestamp() AS moment
), change AS (
    SELECT d.event_id, d.kind, d.tenant, d.service, d.env, d.version, d.before, d.url, d.active, d.labels,
           t.epoch, t.base + d.position AS revision, coalesce(d.create_time, t.moment) AS create_time, t.moment
      FROM draft AS d CROSS JOIN tick AS t
), gone AS (
    DELETE FROM routes AS r USING change AS c
     WHERE c.kind = 'DELETED'
       AND (r.tenant, r.service, r.env, r.version) = (c.tenant, c.service, c.env, c.version)
), kept AS (
    INSERT INTO routes (tenant, service, env, version, url, active, labels, revision, create_time, update_time)
    SELECT tenant, service, env, version, url, active, labels, revision, create_time, moment
      FROM change WHERE kind <> 'DELETED'
    ON CONFLICT (tenant, service, env, version) DO UPDATE
       SET url = excluded.url, active = excluded.active, labels = excluded.labels,
           revision = excluded.revision, update_time = excluded.update_time
)
INSERT INTO route_changes (revision, event_id, kind, tenant, service, env, version, before, after,
                           actor, reason, request_id, occurred_at, epoch, traceparent)
SELECT revision, event_id, kind, tenant, service, env, version, before,
       CASE WHEN kind <> 'DELETED' THEN jsonb_build_object(
           'url', url, 'active', active, 'labels', labels, 'revision', revision,
           'create_time', create_time, 'update_time', moment) END,
       %(actor)s, %(reason)s, %(request_id)s, moment, epoch, %(traceparent)s
  FROM change
RETURNING {CHANGE_COLUMNS}
"""

FIND_REQUEST = "SELECT fingerprint, route, revision FROM requests WHERE (tenant, request_id) = (%s, %s)"

REMEMBER = "INSERT INTO requests (tenant, request_id, fingerprint, route, revision) VALUES (%s, %s, %s, %s, %s)"


class PostgresStore:
    """Routes in PostgreSQL. ``queried`` is called with the name of each operation that is sent."""

    def __init__(self, database: Database, *, queried: Callable[[str], None] = lambda _: None) -> None:
        self._database = database
        self._queried = queried

    async def load(self, keys: Sequence[RouteKey]) -> list[Snapshot]:
        """See RouteStore.load."""
        self._queried("load")
        columns = [[getattr(key, part) for key in keys] for part in ("tenant", "service", "env", "version")]
        async with self._database.connection() as connection:
            rows = await _all(connection, LOAD, columns)
        return [
            Snapshot(key, route_from_row(row[3:]) if row[2] else None, row[1], str(row[0]))
            for key, row in zip(keys, rows, strict=True)
        ]

    @asynccontextmanager
    async def begin(self) -> AsyncIterator["PostgresTransaction"]:
        """See RouteStore.begin."""
        self._queried("mutate")
        async with self._database.connection() as connection:
            yield PostgresTransaction(connection)

    async def list_routes(self, query: RouteQuery) -> list[Route]:
        """See RouteStore.list_routes."""
        self._queried("list_routes")
        where = _Where()
        where.equal(tenant=query.tenant, service=query.service, env=query.env)
        if query.active is not None:
            where.add("active = %s", query.active)
        if query.after:
            after = query.after
            where.add(
                "(tenant, service, env, version) > (%s, %s, %s, %s)",
                after.tenant,
                after.service,
                after.env,
                after.version,
            )
        sql = f"SELECT {ROUTE_COLUMNS} FROM routes {where} ORDER BY tenant, service, env, version LIMIT %s"
        async with self._database.connection() as connection:
            return [route_from_row(row) for row in await _all(connection, sql, [*where.values, query.limit])]

    async def list_changes(self, query: ChangeQuery) -> list[Change]:
        """See RouteStore.list_changes."""
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

    async def clock(self) -> Clock:
        """See RouteStore.clock."""
        self._queried("clock")
        async with self._database.connection() as connection:
            ((epoch, revision),) = await _all(connection, "SELECT epoch, revision FROM clock", [])
        return Clock(str(epoch), revision)

    async def read_only(self) -> bool:
        """Say whether the database takes no writes: a standby, or set so."""
        sql = "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean"
        async with self._database.connection() as connection:
            ((answer,),) = await _all(connection, sql, [])
        return bool(answer)

    async def forget_requests(self, older_than_seconds: float) -> int:
        """Drop remembered outcomes by age; returns how many."""
        self._queried("forget_requests")
        sql = "DELETE FROM requests WHERE created_at < now() - make_interval(secs => %s)"
        async with self._database.connection() as connection:
            return (await connection.execute(sql, [older_than_seconds])).rowcount


class PostgresTransaction:
    """``ports.RouteTransaction`` on one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def lock(self, key: RouteKey, intent: Intent) -> Locked:
        """See RouteTransaction.lock."""
        await self._connection.execute(LOCK_FAMILY, [key.family])
        rows = await _all(self._connection, READ_FAMILY, [key.tenant, key.service, key.env])
        routes = {route.key: route for route in (route_from_row(row[3:]) for row in rows if row[2])}
        route = routes.pop(key, None)
        siblings = sorted(routes.values(), key=lambda sibling: sibling.key)
        epoch, revision = rows[0][:2]
        return Locked(route, siblings, revision, str(epoch), await self._replay(key, intent))

    async def record(self, drafts: Sequence[Draft], intent: Intent) -> list[Change]:
        """See RouteTransaction.record."""
        values = {
            "drafts": Jsonb([_draft_to_json(draft) for draft in drafts]),
            "count": len(drafts),
            "actor": intent.actor,
            "reason": intent.reason,
            "request_id": intent.request_id,
            "traceparent": intent.traceparent,
        }
        cursor = await self._connection.execute(RECORD, values)
        changes = [change_from_row(row) for row in await cursor.fetchall()]
        await self._connection.execute(f"NOTIFY {NOTIFY_CHANNEL}")
        return sorted(changes, key=lambda change: change.revision)

    async def remember(self, tenant: str, intent: Intent, outcome: Outcome) -> None:
        """See RouteTransaction.remember."""
        route = Jsonb(route_to_json(outcome.route)) if outcome.route else None
        try:
            await self._connection.execute(
                REMEMBER, [tenant, intent.request_id, intent.fingerprint, route, outcome.revision]
            )
        except UniqueViolation as error:
            # A mutation of another family took the id in the meantime: another request, surely.
            raise RequestIdReused(intent.request_id) from error

    async def _replay(self, key: RouteKey, intent: Intent) -> Outcome | None:
        if not intent.request_id:
            return None
        found = await _all(self._connection, FIND_REQUEST, [key.tenant, intent.request_id])
        if not found:
            return None
        fingerprint, route, revision = found[0]
        if bytes(fingerprint) != intent.fingerprint:
            raise RequestIdReused(intent.request_id)
        return Outcome(route_from_json(key, route), revision)


class _Where:
    """A WHERE clause in the making: its text holds only what this module wrote, its values go as parameters."""

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


def _draft_to_json(draft: Draft) -> dict[str, Any]:
    key, before = draft.key, draft.before
    return {
        "event_id": str(uuid.uuid4()),
        "kind": draft.kind,
        "tenant": key.tenant,
        "service": key.service,
        "env": key.env,
        "version": key.version,
        "before": route_to_json(before),
        "create_time": before.create_time.isoformat() if before and draft.kind is not ChangeKind.CREATED else None,
        "url": draft.url,
        "active": draft.active,
        "labels": dict(draft.labels),
    }


async def _all(connection: Connection, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
    return await (await connection.execute(sql, values)).fetchall()
