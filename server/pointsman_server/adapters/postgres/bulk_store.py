"""``ports.BulkStore`` on PostgreSQL: COPY into a staging table, and one statement that merges it."""

import json
import os
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from pointsman_server.adapters.postgres.connection import COMMIT, Connection, Rows, Statement, Step, array
from pointsman_server.adapters.postgres.database import Database
from pointsman_server.adapters.postgres.store import CLOCK
from pointsman_server.adapters.postgres.transaction import FIND_REQUESTS, NOTIFY_CHANNEL
from pointsman_server.domain.errors import (
    MOST_VIOLATIONS,
    FieldViolation,
    RequestIdReused,
    RevisionsMismatch,
    RoutesExist,
)
from pointsman_server.domain.routes import Wanted
from pointsman_server.ports.bulk_store import Existing, Imported, LockedImport, Merged
from pointsman_server.ports.store import Clock, Intent
from pointsman_server.runtime.offload import in_thread_if_large

# Private to a session. ``position`` counts from 0.
STAGING = """
CREATE TEMPORARY TABLE IF NOT EXISTS staged_routes (
    position int, event_id uuid, tenant text COLLATE "C", service text COLLATE "C", env text COLLATE "C",
    version text COLLATE "C", url text, active boolean, labels jsonb, expected_revision bigint
) ON COMMIT {}
"""
KEPT, DROPPED = STAGING.format("DELETE ROWS"), STAGING.format("DROP")

COPY = "COPY staged_routes FROM STDIN"

# Only one transaction at a time holds the row of the clock. The settings leave only plans that look up each key:
# without statistics of the staging table the planner would scan all routes for a few thousand keys.
LOCK = Statement(
    "lock_import",
    """
SELECT epoch, revision, set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
       set_config('enable_mergejoin', 'off', true)
  FROM (SELECT epoch, revision FROM clock FOR NO KEY UPDATE) AS held
""",
)

EXISTING = Statement(
    "existing",
    """
SELECT s.position, r.revision FROM staged_routes AS s JOIN routes AS r USING (tenant, service, env, version)
 ORDER BY s.position LIMIT $1::int
""",
)

MISMATCHES = Statement(
    "mismatches",
    """
SELECT s.position, s.expected_revision, r.revision
  FROM staged_routes AS s LEFT JOIN routes AS r USING (tenant, service, env, version)
 WHERE s.expected_revision > 0 AND r.revision IS DISTINCT FROM s.expected_revision
 ORDER BY s.position LIMIT $1::int
""",
)

# A separate statement, after the lock: under READ COMMITTED it sees everything that was committed before it.
# The history has the form that ``transaction.RECORD`` gives it. The clock row stays locked from here to the commit.
MERGE = Statement(
    "merge",
    f"""
WITH plan AS MATERIALIZED (
    SELECT s.position, s.event_id, s.tenant, s.service, s.env, s.version, s.url,
           coalesce(s.active, r.active, true) AS active, coalesce(s.labels, r.labels, '{{}}') AS labels,
           r.url AS old_url, r.active AS old_active, r.labels AS old_labels, r.revision AS old_revision,
           r.create_time AS old_create_time, r.update_time AS old_update_time
      FROM staged_routes AS s LEFT JOIN routes AS r USING (tenant, service, env, version)
), judged AS (
    SELECT *, old_revision IS NULL AS created,
           old_active IS TRUE AND NOT active AS leaving,
           (url, labels) IS DISTINCT FROM (old_url, old_labels) AS rewritten,
           old_revision IS NULL
               OR ($1::boolean AND (url, active, labels) IS DISTINCT FROM (old_url, old_active, old_labels)) AS changed
      FROM plan
), numbered AS MATERIALIZED (
    SELECT *, row_number() OVER (PARTITION BY changed ORDER BY leaving, position) AS number FROM judged
), total AS MATERIALIZED (
    SELECT count(*) AS changes, count(*) FILTER (WHERE created) AS created FROM numbered WHERE changed
), tick AS (
    UPDATE clock SET revision = clock.revision + total.changes FROM total
    RETURNING epoch, clock.revision - total.changes AS base, total.changes, total.created, clock_timestamp() AS moment
), change AS MATERIALIZED (
    SELECT n.*, t.epoch, t.base + n.number AS revision, t.base + t.changes AS change_set_end,
           t.base + 1 AS change_set_id, t.changes AS change_set_size,
           coalesce(n.old_create_time, t.moment) AS create_time, t.moment
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
                               actor, reason, request_id, occurred_at, epoch, traceparent, change_set_end, tracestate,
                               change_set_id, change_set_size)
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
           $2::text, $3::text, $4::text, moment, epoch, $5::text, change_set_end, $9::text,
           change_set_id, change_set_size
      FROM change
), outcome AS (
    SELECT *, base + changes AS revision, CASE WHEN changes > 0 THEN base + 1 ELSE 0 END AS first,
           CASE WHEN changes > 0 THEN base + changes ELSE 0 END AS last
      FROM tick
), remembered AS (
    INSERT INTO requests (tenant, request_id, fingerprint, route, revision)
    SELECT $6::text, $4::text, decode($7::text, 'hex'), jsonb_build_object(
               'created', created, 'updated', changes - created, 'unchanged', $8::bigint - changes,
               'first', first, 'last', last, 'revision', revision), revision
      FROM outcome WHERE $4::text <> ''
)
SELECT o.epoch, o.created, o.changes - o.created, $8::bigint - o.changes, o.first, o.last, o.revision, ARRAY(
           SELECT CASE WHEN changed THEN o.base + number ELSE old_revision END FROM numbered ORDER BY position),
       CASE WHEN o.changes > 0 THEN pg_notify('{NOTIFY_CHANNEL}', '')::text END
  FROM outcome AS o
""",
)

# Each of these may take the whole statement timeout: staging, waiting for another import, merging.
STATEMENTS = 3


class PostgresBulkStore:
    """Imports into PostgreSQL. ``queried`` is called with the name of each operation that is sent."""

    def __init__(self, database: Database, *, queried: Callable[[str], None] = lambda _: None) -> None:
        self._database = database
        self._queried = queried

    @asynccontextmanager
    async def begin_import(self) -> AsyncIterator["PostgresImport"]:
        self._queried("import")
        async with self._database.connection(statements=STATEMENTS) as connection:
            yield PostgresImport(connection)


class PostgresImport:
    """``ports.ImportTransaction`` on one connection. Two round trips hold the clock: ``lock`` and ``merge``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._staged = 0
        self._expects = False
        self._values: list[str] = []

    async def remembered(self, tenant: str, intent: Intent) -> Merged | None:
        if not intent.request_id:
            return None
        ((clock,), found) = await self._connection.exchange(CLOCK, _find(tenant, intent))
        return _known(found, intent, str(clock[0]))

    async def stage(self, wanted: Sequence[Wanted]) -> None:
        self._staged = len(wanted)
        self._expects = any(each.expected_revision for each in wanted)
        lines = await in_thread_if_large(lambda: copy_text(wanted), len(wanted))
        # In a session that others use next, another version of the server would find a table that it does not know.
        await self._connection.execute(KEPT if self._connection.prepares else DROPPED)
        async with self._connection.cursor().copy(COPY) as copy:
            await copy.write(lines)

    async def lock(self, tenant: str, intent: Intent, existing: Existing) -> LockedImport:
        limit = [str(MOST_VIOLATIONS + 1)]
        checks = [Step(EXISTING, limit)] if existing is Existing.REFUSE else []
        checks += [Step(MISMATCHES, limit)] if self._expects else []
        (held,), found, *refused = await self._connection.exchange(Step(LOCK), _find(tenant, intent), *checks)
        clock = Clock(str(held[0]), held[1])
        known = _known(found, intent, clock.epoch)
        if known is None:
            _refuse(checks, refused)
        self._values = [
            str(existing is Existing.UPDATE),
            *(intent.actor, intent.reason, intent.request_id, intent.traceparent),
            *(tenant, intent.fingerprint.hex(), str(self._staged), intent.tracestate),
        ]
        return LockedImport(clock, known)

    async def merge(self) -> Merged:
        (row,), _ = await self._connection.exchange(Step(MERGE, self._values), COMMIT)
        epoch, *figures, revisions, _ = row
        return Merged(Imported(*figures), str(epoch), revisions)


def _find(tenant: str, intent: Intent) -> Step:
    return Step(FIND_REQUESTS, [array([tenant]), array([intent.request_id])])


def _known(found: Rows, intent: Intent, epoch: str) -> Merged | None:
    """Read what was remembered. Raises RequestIdReused."""
    if not found:
        return None
    _, _, fingerprint, outcome, _ = found[0]
    if bytes(fingerprint) != intent.fingerprint:
        raise RequestIdReused(intent.request_id)
    return Merged(Imported(**outcome), epoch)


def _refuse(checks: Sequence[Step], refused: Sequence[Rows]) -> None:
    for check, rows in zip(checks, refused, strict=True):
        if rows and check.statement is EXISTING:
            raise RoutesExist([_taken(*row) for row in rows])
        if rows:
            raise RevisionsMismatch([_mismatch(*row) for row in rows])


def _taken(position: int, revision: int) -> FieldViolation:
    rule = f"exists at revision {revision}: leave it out, or let it be updated or skipped"
    return FieldViolation(f"routes[{position}].key", rule)


def _mismatch(position: int, expected: int, revision: int | None) -> FieldViolation:
    """Say that the route of a position is at another revision than was expected; None: there is no route."""
    truth = "there is no such route" if revision is None else f"the route is at revision {revision}"
    return FieldViolation(f"routes[{position}].expected_revision", f"is {expected}, and {truth}")


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
