"""``ports.RouteHistory`` on PostgreSQL.

What a key was as of a revision is ``before`` of its first change after that, or what it is now if there is none. The
first change is found by the index ``route_changes_by_key``: one look for each key that has changed since, however long
the history is. The keys are those that are, and those that were deleted since, of which ``route_changes_deleted`` has
nothing else. Both are read in their order, so that a page stops at its last route.

A read has lost no change if the history is not compacted above the revision: in the same snapshot of the database, or
afterwards (``RouteStore.compacted``). And there is such a revision if the clock is at or above it before the read.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from typing import Any

from pointsman_server.adapters.postgres.connection import Statement, Step
from pointsman_server.adapters.postgres.database import Database
from pointsman_server.adapters.postgres.rows import ROUTE_COLUMNS, route_from_json, route_of, traffic_from_json
from pointsman_server.adapters.postgres.snapshots import transposed
from pointsman_server.adapters.postgres.store import CLOCK, COMPACTED
from pointsman_server.domain.errors import HistoryCompacted, RevisionInFuture
from pointsman_server.domain.routes import Family, Route, RouteKey, Snapshot
from pointsman_server.ports.store import RouteQuery

# A statement looks at no more keys: many may have been made since, and none of those is an answer.
MOST_KEYS = 5000

STATE = """
SELECT epoch::text, revision, (SELECT coalesce(max(revision), 0) FROM history_compactions) AS compacted FROM clock
"""

# What ``route_changes`` would have as ``before`` if the key changed now.
ROUTE = """
jsonb_build_object('url', r.url, 'active', r.active, 'labels', r.labels, 'revision', r.revision,
                   'create_time', r.create_time, 'update_time', r.update_time)
"""
TRAFFIC = """
jsonb_build_object('targets', t.targets, 'fallbacks', t.fallbacks, 'slices', t.slices, 'revision', t.revision,
                   'create_time', t.create_time, 'update_time', t.update_time)
"""
FIRST_CHANGE = """
SELECT h.before, h.revision FROM route_changes AS h
 WHERE (h.tenant, h.service, h.env, h.version) = (k.tenant, k.service, k.env, k.version) AND h.revision > $1::bigint
 ORDER BY h.revision LIMIT 1
"""

# $1: the revision; then the columns of the keys. That of a family stands for its traffic and all its versions.
LOAD_AS_OF = Statement(
    "load_as_of",
    f"""
WITH asked AS MATERIALIZED (
    SELECT * FROM unnest($2::text[], $3::text[], $4::text[], $5::text[])
             WITH ORDINALITY AS k (tenant, service, env, version, position)
), k AS (
    SELECT * FROM asked
     UNION ALL
    SELECT a.tenant, a.service, a.env, v.version, a.position FROM asked AS a CROSS JOIN LATERAL (
        SELECT r.version FROM routes AS r WHERE (r.tenant, r.service, r.env) = (a.tenant, a.service, a.env)
         UNION
        SELECT h.version FROM route_changes AS h
         WHERE h.kind = 'DELETED' AND (h.tenant, h.service, h.env) = (a.tenant, a.service, a.env)
           AND h.revision > $1::bigint
    ) AS v WHERE a.version = ''
)
SELECT state.*, k.position, k.version,
       CASE WHEN c.revision IS NOT NULL THEN c.before
            WHEN k.version = '' THEN (
                SELECT {TRAFFIC} FROM traffic AS t WHERE (t.tenant, t.service, t.env) = (k.tenant, k.service, k.env))
            ELSE (SELECT {ROUTE} FROM routes AS r
                   WHERE (r.tenant, r.service, r.env, r.version) = (k.tenant, k.service, k.env, k.version)) END
  FROM ({STATE}) AS state CROSS JOIN k LEFT JOIN LATERAL ({FIRST_CHANGE}) AS c ON true
 ORDER BY k.position, k.version
""",
)

# The revision before each moment, by halving: times never go back as revisions go on. A restore may leave a gap.
REVISION_AT = Statement(
    "revision_at",
    f"""
WITH RECURSIVE state AS ({STATE}), search (low, high) AS (
    SELECT compacted, revision FROM state
     UNION ALL
    SELECT CASE WHEN h.old THEN s.middle ELSE s.low END, CASE WHEN h.old THEN s.high ELSE s.middle - 1 END
      FROM (SELECT low, high, (low + high + 1) / 2 AS middle FROM search WHERE low < high) AS s
      LEFT JOIN LATERAL (SELECT occurred_at <= $1::timestamptz AS old FROM route_changes
                          WHERE revision >= s.middle ORDER BY revision LIMIT 1) AS h ON true
)
SELECT search.low, state.compacted,
       EXISTS (SELECT FROM history_compactions AS h
                WHERE h.revision = state.compacted AND h.compacted_at <= $1::timestamptz)
  FROM search CROSS JOIN state WHERE low >= high
""",
)


class PostgresHistory:
    """Reads what was. ``queried`` is called with the name of each operation that is sent."""

    def __init__(self, database: Database, *, queried: Callable[[str], None] = lambda _: None) -> None:
        self._database = database
        self._queried = queried

    async def revision_at(self, moment: datetime) -> int:
        self._queried("revision_at")
        (((revision, compacted, later),),) = await self._database.exchange(Step(REVISION_AT, [moment.isoformat()]))
        # When the compacted revision was made is not kept, but it was before it was compacted.
        if revision == compacted > 0 and not later:
            raise HistoryCompacted(moment.astimezone(UTC), compacted)
        return int(revision)

    async def load_as_of(self, keys: Sequence[RouteKey], revision: int) -> list[Snapshot]:
        self._queried("load_as_of")
        if not keys:
            return []
        (rows,) = await self._database.exchange(Step(LOAD_AS_OF, [str(revision), *transposed(keys)]))
        epoch = _check(revision, *rows[0][:3])
        by_position = groupby((row[3:] for row in rows), itemgetter(0))
        values = [_value(key, [row[1:] for row in found]) for key, (_, found) in zip(keys, by_position, strict=True)]
        return [Snapshot(key, value, revision, epoch) for key, value in zip(keys, values, strict=True)]

    async def list_routes_as_of(self, query: RouteQuery, revision: int) -> list[Route]:
        self._queried("list_routes_as_of")
        # Mostly this is all: PostgreSQL stops at the last route of the page, and does not look at the keys after it.
        _, found = await self._read(_statement(query, query.after, first=query.limit), query, query.after, revision)
        routes = [route for route in found.values() if route]
        after = routes[-1].key if routes else query.after
        while len(routes) < query.limit:
            count, found = await self._read(_statement(query, after), query, after, revision)
            routes += [route for route in found.values() if route]
            if count < MOST_KEYS:
                break
            after = next(reversed(found))
        return routes[: query.limit]

    async def _read(
        self, statement: Statement, query: RouteQuery, after: RouteKey | None, revision: int
    ) -> tuple[int, dict[RouteKey, Route | None]]:
        """Return the keys of the rows, each with its route if it was and matches, and how many rows there are.

        A key that was deleted since and is there again has two rows, which say the same.
        """
        values = [str(revision), str(MOST_KEYS), query.tenant, query.service, query.env, *(after or ())]
        # The clock before the read, the compaction after it: in between it had that clock, and lost no change.
        (state,), rows, ((compacted,),) = await self._database.exchange(CLOCK, Step(statement, values), COMPACTED)
        _check(revision, str(state[0]), state[1], compacted)
        labels = _Labels()
        found: dict[RouteKey, Route | None] = {}
        for tenant, service, env, version, url, active, text, *rest in rows:
            key = RouteKey(tenant, service, env, version)
            matches = url is not None and query.active in {None, active}
            found[key] = route_of(key, url, active, labels[text], *rest) if matches else None
        return len(rows), found


def _statement(query: RouteQuery, after: RouteKey | None, *, first: int = 0) -> Statement:
    """Return the query of what the next keys were, in their order; with ``first`` of so many that were, and match.

    $1: the revision, $2: how many keys to look at, $3 to $5: what to filter by, $6 to $9: the key before the first.
    """
    parts = {"tenant": query.tenant, "service": query.service, "env": query.env}
    terms = [
        f"{name} = ${at}::text" if value else f"${at}::text = ''" for at, (name, value) in enumerate(parts.items(), 3)
    ]
    terms += ["(tenant, service, env, version) > ($6::text, $7::text, $8::text, $9::text)"] if after else []
    where = " AND ".join(terms)
    matches = "" if query.active is None else f"AND {_then('active', 'boolean')} = {query.active}"
    return Statement(
        "",
        f"""
WITH k AS (
    (SELECT {ROUTE_COLUMNS} FROM routes WHERE {where} ORDER BY tenant, service, env, version LIMIT $2::int)
     UNION ALL
    (SELECT DISTINCT tenant, service, env, version, NULL, NULL::boolean, NULL::jsonb, NULL::bigint, NULL::timestamptz,
            NULL::timestamptz
       FROM route_changes WHERE kind = 'DELETED' AND revision > $1::bigint AND {where}
      ORDER BY tenant, service, env, version LIMIT $2::int)
     ORDER BY tenant, service, env, version LIMIT $2::int
)
SELECT k.tenant, k.service, k.env, k.version, {_then("url", "text")}, {_then("active", "boolean")},
       {_then("labels", "text")}, {_then("revision", "bigint")}, {_then("create_time", "timestamptz")},
       {_then("update_time", "timestamptz")}
  FROM k LEFT JOIN LATERAL (
      SELECT * FROM ({FIRST_CHANGE}) AS first WHERE k.revision IS NULL OR k.revision > $1::bigint) AS c ON true
 {f"WHERE {_then('url', 'text')} IS NOT NULL {matches}" if first else ""}
 ORDER BY k.tenant, k.service, k.env, k.version {f"LIMIT {first:d}" if first else ""}
""",
    )


def _then(column: str, kind: str) -> str:
    """Return the SQL of what a column was: as before the first change since, or as it is."""
    return f"CASE WHEN c.revision IS NULL THEN k.{column}::{kind} ELSE (c.before ->> '{column}')::{kind} END"


class _Labels(dict[str, Mapping[str, str]]):
    """Labels by their JSON, decoded once: many routes of a page have the same, and decoding is half of the work."""

    def __missing__(self, text: str) -> Mapping[str, str]:
        labels: Mapping[str, str] = json.loads(text)
        self[text] = labels
        return labels


def _value(key: RouteKey, rows: Sequence[Sequence[Any]]) -> Route | Family | None:
    """Read the rows of one key: versions, that of the traffic of a family is empty, and what they were."""
    if key.version:
        return route_from_json(key, rows[0][1])
    traffic = traffic_from_json(key, rows[0][1])
    routes = [route_from_json(key._replace(version=version), value) for version, value in rows[1:]]
    family = Family.of(key, traffic, [route for route in routes if route])
    return family if family.traffic or family.routes else None


def _check(revision: int, epoch: str, last: int, compacted: int) -> str:
    """Return the epoch. Raises HistoryCompacted and RevisionInFuture."""
    if revision < compacted:
        raise HistoryCompacted(revision, compacted)
    if revision > last:
        raise RevisionInFuture(revision, last)
    return epoch
