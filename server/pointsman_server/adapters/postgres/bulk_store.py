"""``ports.BulkStore`` on PostgreSQL: COPY into a staging table, and one statement that merges it."""

import json
import os
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

from pointsman_server.adapters.postgres.connection import Connection, Step, array
from pointsman_server.adapters.postgres.database import Database
from pointsman_server.adapters.postgres.store import FIND_REQUESTS, NOTIFY_CHANNEL, REMEMBER
from pointsman_server.apart import apart
from pointsman_server.errors import MOST_VIOLATIONS, FieldViolation, RequestIdReused, RevisionsMismatch, RoutesExist
from pointsman_server.ports import Existing, Imported, Intent, Merged
from pointsman_server.routes import Wanted

# Of this connection alone, and empty whenever a transaction ends. ``position`` counts from 0.
STAGING = """
CREATE TEMPORARY TABLE IF NOT EXISTS staged_routes (
    position int, event_id uuid, tenant text COLLATE "C", service text COLLATE "C", env text COLLATE "C",
    version text COLLATE "C", url text, active boolean, labels jsonb, expected_revision bigint
) ON COMMIT DELETE ROWS
"""

COPY = "COPY staged_routes FROM STDIN"

# Whoever holds the row of the clock writes alone; and no plan but that of looking up each key, however little the
# planner knows of a table that has just been filled: it would read all routes for a few thousand of them.
LOCK = """
SELECT set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
       set_config('enable_mergejoin', 'off', true)
  FROM (SELECT FROM clock FOR NO KEY UPDATE) AS held
"""

EXISTING = """
SELECT s.position, r.revision FROM staged_routes AS s JOIN routes AS r USING (tenant, service, env, version)
 ORDER BY s.position LIMIT %s
"""

MISMATCHES = """
SELECT s.position, s.expected_revision, r.revision
  FROM staged_routes AS s LEFT JOIN routes AS r USING (tenant, service, env, version)
 WHERE s.expected_revision > 0 AND r.revision IS DISTINCT FROM s.expected_revision
 ORDER BY s.position LIMIT %s
"""

# A statement of its own, after the lock: under READ COMMITTED it sees everything that was committed before it.
# The history has the form that ``store.RECORD`` gives it. The clock row stays locked from here to the commit.
MERGE = """
WITH plan AS MATERIALIZED (
    SELECT s.position, s.event_id, s.tenant, s.service, s.env, s.version, s.url,
           coalesce(s.active, r.active, true) AS active, coalesce(s.labels, r.labels, '{}') AS labels,
           r.url AS old_url, r.active AS old_active, r.labels AS old_labels, r.revision AS old_revision,
           r.create_time AS old_create_time, r.update_time AS old_update_time
      FROM staged_routes AS s LEFT JOIN routes AS r USING (tenant, service, env, version)
), judged AS (
    SELECT *, old_revision IS NULL AS created,
           old_active IS TRUE AND NOT active AS leaving,
           (url, labels) IS DISTINCT FROM (old_url, old_labels) AS rewritten,
           old_revision IS NULL
               OR (%(update)s AND (url, active, labels) IS DISTINCT FROM (old_url, old_active, old_labels)) AS changed
      FROM plan
), numbered AS MATERIALIZED (
    SELECT *, row_number() OVER (PARTITION BY changed ORDER BY leaving, position) AS number FROM judged
), total AS MATERIALIZED (
    SELECT count(*) AS changes, count(*) FILTER (WHERE created) AS created FROM numbered WHERE changed
), tick AS (
    UPDATE clock SET revision = clock.revision + total.changes FROM total
    RETURNING epoch, clock.revision - total.changes AS base, total.changes, total.created, clock_timestamp() AS moment
), change AS MATERIALIZED (
    SELECT n.*, t.epoch, t.base + n.number AS revision, coalesce(n.old_create_time, t.moment) AS create_time, t.moment
      FROM numbered AS n CROSS JOIN tick AS t WHERE n.changed
), made AS (
    INSERT INTO routes (tenant, service, env, version, url, active, labels, revision, create_time, update_time)
    SELECT tenant, service, env, version, url, active, labels, revision, create_time, moment FROM change WHERE created
), altered AS (
    UPDATE routes AS r
       SET url = c.url, active = c.active, labels = c.labels, revision = c.revision, update_time = c.moment
      FROM change AS c
     WHERE NOT c.created AND (r.tenant, r.service, r.env, r.version) = (c.tenant, c.service, c.env, c.version)
), history AS (
    INSERT INTO route_changes (revision, event_id, kind, tenant, service, env, version, before, after,
                               actor, reason, request_id, occurred_at, epoch, traceparent)
    SELECT revision, event_id,
           CASE WHEN created THEN 'CREATED' WHEN rewritten THEN 'UPDATED'
                WHEN active THEN 'ACTIVATED' ELSE 'DEACTIVATED' END,
           tenant, service, env, version,
           CASE WHEN NOT created THEN jsonb_build_object(
               'url', old_url, 'active', old_active, 'labels', old_labels, 'revision', old_revision,
               'create_time', old_create_time, 'update_time', old_update_time) END,
           jsonb_build_object(
               'url', url, 'active', active, 'labels', labels, 'revision', revision,
               'create_time', create_time, 'update_time', moment),
           %(actor)s, %(reason)s, %(request_id)s, moment, epoch, %(traceparent)s
      FROM change
)
SELECT t.epoch, t.base, t.changes, t.created, ARRAY(
           SELECT CASE WHEN changed THEN t.base + number ELSE old_revision END FROM numbered ORDER BY position)
  FROM tick AS t
"""

# The whole clock: a remembered outcome is of the epoch that is current, or its answer was of a store that was lost.
EPOCH = "SELECT epoch FROM clock"

# Staging, waiting for another import, and merging may take long, each for itself.
STATEMENTS = 3


class PostgresBulkStore:
    """Imports into PostgreSQL. ``queried`` is called with the name of each operation that is sent."""

    def __init__(self, database: Database, *, queried: Callable[[str], None] = lambda _: None) -> None:
        self._database = database
        self._queried = queried

    @asynccontextmanager
    async def begin_import(self) -> AsyncIterator["PostgresImport"]:
        """See BulkStore.begin_import."""
        self._queried("import")
        async with self._database.connection(statements=STATEMENTS) as connection:
            yield PostgresImport(connection)


class PostgresImport:
    """``ports.ImportTransaction`` on one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._staged = 0
        self._expects = False

    async def remembered(self, tenant: str, intent: Intent) -> Merged | None:
        """See ImportTransaction.remembered."""
        if not intent.request_id:
            return None
        found = await self._find(tenant, intent)
        if found is None:
            return None
        _, _, fingerprint, outcome, _ = found
        if bytes(fingerprint) != intent.fingerprint:
            raise RequestIdReused(intent.request_id)
        epoch = await self._row(EPOCH)
        return Merged(Imported(**outcome), str(epoch[0]) if epoch else "")

    async def stage(self, wanted: Sequence[Wanted]) -> None:
        """See ImportTransaction.stage."""
        self._staged = len(wanted)
        self._expects = any(each.expected_revision for each in wanted)
        lines = await apart(lambda: copy_text(wanted), len(wanted))
        await self._connection.execute(STAGING)
        async with self._connection.cursor().copy(COPY) as copy:
            await copy.write(lines)

    async def merge(self, tenant: str, intent: Intent, existing: Existing) -> Merged:
        """See ImportTransaction.merge."""
        await self._connection.execute(LOCK)
        known = await self.remembered(tenant, intent)
        if known:
            return known
        if existing is Existing.REFUSE:
            await self._refuse_existing()
        if self._expects:
            await self._refuse_mismatches()
        merged = await self._merge(intent, update=existing is Existing.UPDATE)
        if intent.request_id:
            remembered = _remembered(tenant, intent, merged.imported)
            await self._connection.exchange(Step(REMEMBER, [json.dumps([remembered])]))
        if merged.imported.last:
            await self._connection.execute(f"NOTIFY {NOTIFY_CHANNEL}")
        return merged

    async def _refuse_existing(self) -> None:
        rows = await (await self._connection.execute(EXISTING, [MOST_VIOLATIONS + 1])).fetchall()
        if rows:
            rule = "exists at revision {}: leave it out, or let it be updated or skipped"
            raise RoutesExist([FieldViolation(f"routes[{row[0]}].key", rule.format(row[1])) for row in rows])

    async def _refuse_mismatches(self) -> None:
        rows = await (await self._connection.execute(MISMATCHES, [MOST_VIOLATIONS + 1])).fetchall()
        if rows:
            raise RevisionsMismatch([_mismatch(*row) for row in rows])

    async def _merge(self, intent: Intent, *, update: bool) -> Merged:
        values = {
            "update": update,
            "actor": intent.actor,
            "reason": intent.reason,
            "request_id": intent.request_id,
            "traceparent": intent.traceparent,
        }
        # Planned anew each time, for the tables as they are.
        cursor = await self._connection.execute(MERGE, values, prepare=False)
        ((epoch, base, changes, created, revisions),) = await cursor.fetchall()
        first, last = (base + 1, base + changes) if changes else (0, 0)
        imported = Imported(created, changes - created, self._staged - changes, first, last, base + changes)
        return Merged(imported, str(epoch), revisions)

    async def _find(self, tenant: str, intent: Intent) -> tuple[Any, ...] | None:
        (rows,) = await self._connection.exchange(Step(FIND_REQUESTS, [array([tenant]), array([intent.request_id])]))
        return rows[0] if rows else None

    async def _row(self, sql: str, values: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        return await (await self._connection.execute(sql, values)).fetchone()


def _mismatch(position: int, expected: int, revision: int | None) -> FieldViolation:
    """Say that the route of a position is at another revision than was expected; None: there is no route."""
    truth = "there is no such route" if revision is None else f"the route is at revision {revision}"
    return FieldViolation(f"routes[{position}].expected_revision", f"is {expected}, and {truth}")


def _remembered(tenant: str, intent: Intent, imported: Imported) -> dict[str, Any]:
    return {
        "tenant": tenant,
        "request_id": intent.request_id,
        "fingerprint": intent.fingerprint.hex(),
        "route": asdict(imported),
        "revision": imported.revision,
    }


def copy_text(wanted: Iterable[Wanted]) -> bytes:
    """Write the lines of ``COPY``. Keys and urls hold nothing that would need to be escaped in them; labels may."""
    rows = list(wanted)
    digits = os.urandom(16 * len(rows)).hex()
    labels = _Labels()
    actives = {None: r"\N", True: "t", False: "f"}
    return "".join(
        [
            f"{number}\t{_uuid(digits, 32 * number)}\t{key.tenant}\t{key.service}\t{key.env}\t{key.version}\t{url}\t"
            f"{actives[active]}\t{labels.text(named)}\t{expected}\n"
            for number, (key, url, named, active, expected) in enumerate(rows)
        ]
    ).encode()


def _uuid(digits: str, start: int) -> str:
    """Make a random UUID (RFC 9562, version 4): PostgreSQL and ``uuid`` take ten times as long for each."""
    return f"{digits[start : start + 12]}4{digits[start + 13 : start + 16]}a{digits[start + 17 : start + 32]}"


class _Labels:
    """Writes labels, those that come again and again only once."""

    def __init__(self) -> None:
        self._encode = json.JSONEncoder(ensure_ascii=False).encode
        self._known: dict[tuple[tuple[str, str], ...], str] = {(): "{}"}

    def text(self, labels: Any) -> str:
        if labels is None:
            return r"\N"
        name = tuple(labels.items())
        text = self._known.get(name)
        if text is None:
            text = self._known[name] = self._encode(labels).replace("\\", "\\\\")
        return text
