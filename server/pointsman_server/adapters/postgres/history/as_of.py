"""``ports.RouteHistory`` on PostgreSQL.

What a key was as of a revision is ``before`` of its first change after that, or what it is now if there is none. The
first change is found by the index ``route_changes_by_key``: one look per key, however long the history is. The keys are
those that are, and those that were deleted since, of which ``route_changes_deleted`` has nothing else.

Each statement reads clock, compaction and history in one snapshot of the database, and a compaction is committed before
it deletes. So a snapshot in which the history is not compacted above a revision has every change after it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from typing import Any

from pointsman_server.adapters.postgres.connection import Statement, Step
from pointsman_server.adapters.postgres.database import Database
from pointsman_server.adapters.postgres.rows import route_from_json, route_of, traffic_from_json
from pointsman_server.adapters.postgres.snapshots import transposed
from pointsman_server.domain.errors import HistoryCompacted, RevisionInFuture
from pointsman_server.domain.routes import Route, RouteKey, Snapshot
from pointsman_server.domain.traffic import Family
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
        routes: list[Route] = []
        after, size, seen = query.after, min(query.limit, MOST_KEYS), 0
        while len(routes) < query.limit:
            keys, found = await self._look(query, after, size, revision)
            routes += found
            if len(keys) < size:
                break
            after, seen = keys[-1], seen + len(keys)
            # As many as it takes if the next keys are like those before, and a few more: a statement costs 50 keys.
            wanted = (query.limit - len(routes)) * seen // len(routes) if routes else MOST_KEYS
            size = min(MOST_KEYS, wanted + wanted // 8 + 8)
        return routes[: query.limit]

    async def _look(
        self, query: RouteQuery, after: RouteKey | None, size: int, revision: int
    ) -> tuple[list[RouteKey], list[Route]]:
        """Return the next ``size`` keys that may have been there, and the routes of those that were and match."""
        values = [str(revision), str(size), query.tenant, query.service, query.env, *(after or ())]
        (rows,) = await self._database.exchange(Step(_list_as_of(query, after), values))
        _check(revision, *rows[0][:3])
        labels = _Labels()
        looked = [(RouteKey(*row[3:7]), *row[7:]) for row in rows if row[3] is not None]
        routes = [
            route_of(key, url, active, labels[text], *rest)
            for key, url, active, text, *rest in looked
            if url is not None and query.active in {None, active}
        ]
        return [key for key, *_ in looked], routes


def _list_as_of(query: RouteQuery, after: RouteKey | None) -> Statement:
    """$1: the revision, $2: how many keys, $3 to $5: what to filter by, $6 to $9: the key before the first."""
    parts = {"tenant": query.tenant, "service": query.service, "env": query.env}
    terms = [
        f"{name} = ${at}::text" if value else f"${at}::text = ''" for at, (name, value) in enumerate(parts.items(), 3)
    ]
    terms += ["(tenant, service, env, version) > ($6::text, $7::text, $8::text, $9::text)"] if after else []
    where = " AND ".join(terms)
    return Statement(
        "",
        f"""
WITH k AS MATERIALIZED (
    (SELECT tenant, service, env, version FROM routes WHERE {where}
      ORDER BY tenant, service, env, version LIMIT $2::int)
     UNION
    (SELECT DISTINCT tenant, service, env, version FROM route_changes
      WHERE kind = 'DELETED' AND revision > $1::bigint AND {where}
      ORDER BY tenant, service, env, version LIMIT $2::int)
     ORDER BY tenant, service, env, version LIMIT $2::int
)
SELECT state.*, k.*, coalesce(c.before ->> 'url', r.url), coalesce((c.before ->> 'active')::boolean, r.active),
       coalesce(c.before -> 'labels', r.labels)::text, coalesce((c.before ->> 'revision')::bigint, r.revision),
       coalesce((c.before ->> 'create_time')::timestamptz, r.create_time),
       coalesce((c.before ->> 'update_time')::timestamptz, r.update_time)
  FROM ({STATE}) AS state LEFT JOIN (
      k LEFT JOIN LATERAL ({FIRST_CHANGE}) AS c ON true
        LEFT JOIN routes AS r ON c.revision IS NULL
              AND (r.tenant, r.service, r.env, r.version) = (k.tenant, k.service, k.env, k.version)) ON true
 ORDER BY k.tenant, k.service, k.env, k.version
""",
    )


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
