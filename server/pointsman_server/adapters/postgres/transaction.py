"""``ports.RouteTransaction`` on PostgreSQL: what a group of mutations reads under the lock, and what it writes."""

import json
from collections.abc import Sequence
from datetime import UTC
from typing import Any

from pointsman_server.adapters.postgres.connection import BEGIN, COMMIT, ROLLBACK, Connection, Statement, Step
from pointsman_server.adapters.postgres.rows import (
    ROUTE_COLUMNS,
    TRAFFIC_COLUMNS,
    outcome_from_json,
    outcome_to_json,
    route_from_row,
    route_to_json,
    traffic_from_row,
    traffic_to_json,
)
from pointsman_server.adapters.postgres.snapshots import transposed
from pointsman_server.domain.routes import Change, Route
from pointsman_server.ports.store import Clock, LockedState, MutationScope, StoredOutcome
from pointsman_server.runtime.offload import in_thread_if_large

NOTIFY_CHANNEL = "route_changes"

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
READ_TRAFFIC = Statement(
    "read_traffic",
    f"""
SELECT {TRAFFIC_COLUMNS} FROM traffic
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

# ``last`` is the last change of a route in the group: it says what the route is now.
RECORD = Statement(
    "record",
    f"""
WITH change AS MATERIALIZED (
    SELECT * FROM json_to_recordset($1::json) AS c (
        revision bigint, event_id uuid, kind text, tenant text, service text, env text, version text,
        before jsonb, after jsonb, actor text, reason text, request_id text, traceparent text,
        change_set_end bigint, tracestate text, change_set_id bigint, change_set_size int, last boolean
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
                               actor, reason, request_id, occurred_at, epoch, traceparent, change_set_end, tracestate,
                               change_set_id, change_set_size)
    SELECT revision, event_id, kind, tenant, service, env, version, before, after,
           actor, reason, request_id, $3::timestamptz, $4::uuid, traceparent, change_set_end, tracestate,
           change_set_id, change_set_size
      FROM change
)
SELECT pg_notify('{NOTIFY_CHANNEL}', '')
""",
)
# Sent only if there is any: each row is the traffic of a family after the group, without ``after`` if it is deleted.
RECORD_TRAFFIC = Statement(
    "record_traffic",
    """
WITH change AS MATERIALIZED (
    SELECT * FROM json_to_recordset($1::json) AS c (tenant text, service text, env text, after jsonb)
), gone AS (
    DELETE FROM traffic AS t USING change AS c
     WHERE c.after IS NULL AND (t.tenant, t.service, t.env) = (c.tenant, c.service, c.env)
)
INSERT INTO traffic (tenant, service, env, targets, fallbacks, slices, revision, create_time, update_time)
SELECT tenant, service, env, after -> 'targets', after -> 'fallbacks', after -> 'slices',
       (after ->> 'revision')::bigint, (after ->> 'create_time')::timestamptz, (after ->> 'update_time')::timestamptz
  FROM change WHERE after IS NOT NULL
ON CONFLICT (tenant, service, env) DO UPDATE
   SET targets = excluded.targets, fallbacks = excluded.fallbacks, slices = excluded.slices,
       revision = excluded.revision, create_time = excluded.create_time, update_time = excluded.update_time
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


ENCODED = 50


class PostgresTransaction:
    """``ports.RouteTransaction`` on one connection, in two round trips: one to read, and one to write and commit."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._changes: Sequence[Change] = ()
        self._remembered: Sequence[StoredOutcome] = ()

    async def lock(self, scopes: Sequence[MutationScope]) -> LockedState:
        keys = {key for scope in scopes for key in (scope.key, *scope.others) if key.version}
        families = {scope.key[:3] for scope in scopes if scope.family}
        families |= {key[:3] for scope in scopes for key in scope.others if not key.version}
        ids = {(scope.key.tenant, scope.intent.request_id) for scope in scopes if scope.intent.request_id}
        reads = [Step(READ, transposed(keys))] if keys else []
        reads += [Step(READ_FAMILIES, transposed(families))] if families else []
        divided = families | {key[:3] for scope in scopes for key in scope.divided}
        divisions = [Step(READ_TRAFFIC, transposed(divided))] if divided else []
        finds = [Step(FIND_REQUESTS, transposed(ids))] if ids else []
        _, held, *read = await self._connection.exchange(BEGIN, LOCK, *reads, *divisions, *finds)
        ((epoch, revision, moment),) = held
        routes = await in_thread_if_large(lambda: _routes(read[: len(reads)]), sum(map(len, read[: len(reads)])))
        traffic = [traffic_from_row(row) for rows in read[len(reads) :][: len(divisions)] for row in rows]
        requests = {row[:2]: row[2:] for rows in read[len(reads) + len(divisions) :] for row in rows}
        remembered = [_remembered(scope, requests.get((scope.key.tenant, scope.intent.request_id))) for scope in scopes]
        clock = Clock(str(epoch), revision)
        return LockedState(clock, moment.astimezone(UTC), routes, remembered, traffic)

    async def record(self, changes: Sequence[Change], remembered: Sequence[StoredOutcome]) -> None:
        """It is sent with the commit."""
        self._changes, self._remembered = changes, remembered

    async def end(self) -> None:
        """Write what was recorded and commit; without a record, roll back, which flushes nothing to the disk."""
        changes = self._changes
        values = await in_thread_if_large(lambda: _record_values(changes), len(changes)) if changes else []
        steps = [Step(RECORD, values)] if values else []
        if traffic := {change.key: change for change in self._changes if change.kind.of_traffic}:
            rows = [_traffic_to_json(change) for change in traffic.values()]
            steps.append(Step(RECORD_TRAFFIC, [json.dumps(rows)]))
        if self._remembered:
            remembered = [_remembered_to_json(one) for one in self._remembered]
            steps.append(Step(REMEMBER, [json.dumps(remembered)]))
        await self._connection.exchange(*steps, COMMIT if steps else ROLLBACK)


def _routes(results: Sequence[Sequence[Sequence[Any]]]) -> list[Route]:
    return list({route.key: route for rows in results for route in map(route_from_row, rows)}.values())


def _record_values(changes: Sequence[Change]) -> list[str]:
    last = {change.key: change.revision for change in changes if not change.kind.of_traffic}
    end = changes[-1]
    rows = [_change_to_json(change, last=last.get(change.key) == change.revision) for change in changes]
    # Some at a time: a thread lets no other run meanwhile, here for half a millisecond.
    parts = [json.dumps(rows[start : start + ENCODED]) for start in range(0, len(rows), ENCODED)]
    encoded = f"[{','.join([part[1:-1] for part in parts])}]"
    return [encoded, str(end.revision), end.occur_time.isoformat(), end.epoch]


def _change_to_json(change: Change, *, last: bool) -> dict[str, Any]:
    key, of_traffic = change.key, change.kind.of_traffic
    return {
        "revision": change.revision,
        "event_id": change.event_id,
        "kind": change.kind,
        "tenant": key.tenant,
        "service": key.service,
        "env": key.env,
        "version": key.version,
        "before": traffic_to_json(change.traffic_before) if of_traffic else route_to_json(change.before),
        "after": traffic_to_json(change.traffic_after) if of_traffic else route_to_json(change.after),
        "actor": change.actor,
        "reason": change.reason,
        "request_id": change.request_id,
        "traceparent": change.traceparent,
        "tracestate": change.tracestate,
        "change_set_end": change.change_set_end,
        "change_set_id": change.change_set_id,
        "change_set_size": change.change_set_size,
        "last": last,
    }


def _traffic_to_json(change: Change) -> dict[str, Any]:
    tenant, service, env, _ = change.key
    return {"tenant": tenant, "service": service, "env": env, "after": traffic_to_json(change.traffic_after)}


def _remembered_to_json(remembered: StoredOutcome) -> dict[str, Any]:
    return {
        "tenant": remembered.tenant,
        "request_id": remembered.request_id,
        "fingerprint": remembered.fingerprint.hex(),
        "route": outcome_to_json(remembered.outcome),
        "revision": remembered.outcome.revision,
    }


def _remembered(scope: MutationScope, row: Sequence[Any] | None) -> StoredOutcome | None:
    if row is None:
        return None
    fingerprint, outcome, revision = row
    # Of another request only the fingerprint is needed; the outcome may be that of an import.
    same = bytes(fingerprint) == scope.intent.fingerprint
    found = outcome_from_json(scope.key, revision, outcome if same else None)
    return StoredOutcome(scope.key.tenant, scope.intent.request_id, bytes(fingerprint), found)
