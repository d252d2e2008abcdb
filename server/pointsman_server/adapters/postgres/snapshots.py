"""Reads keys, of routes and of families, in one statement: so all are of one snapshot of the database."""

from collections.abc import Collection, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from pointsman_server.adapters.postgres.connection import Rows, Statement, Step, array
from pointsman_server.adapters.postgres.rows import route_of, traffic_of
from pointsman_server.domain.routes import MOST_UNDIVIDED, Family, RouteKey, Snapshot

VERSION = itemgetter(3)
# The columns of a row that has a route alone: epoch, revision, and those of the route without its key.
ROUTE_WIDTH = 8
HEAD = "SELECT epoch::text, revision FROM clock"


class Load:
    """The statements of a load: ``routes`` for keys of routes alone, ``mixed`` for all.

    Their rows begin with the columns of ``head``, a query of one row, which begins with epoch and revision.
    """

    def __init__(self, name: str, head: str) -> None:
        self.routes = Statement(name, _routes(head))
        self.mixed = Statement(f"{name}_families", _mixed(head))

    def step(self, keys: Sequence[RouteKey]) -> Step:
        """Return the step that reads ``keys``, at least one."""
        return Step(self.routes if all(map(VERSION, keys)) else self.mixed, transposed(keys))


def snapshots(keys: Sequence[RouteKey], rows: Rows) -> list[Snapshot]:
    """Read the rows of ``Load.step``, each with epoch and revision alone before its own columns."""
    if len(rows[0]) == ROUTE_WIDTH:
        return [_snapshot(key, *row) for key, row in zip(keys, rows, strict=True)]
    by_position = groupby(rows, itemgetter(2))
    return [_mixed_snapshot(key, [*found]) for key, (_, found) in zip(keys, by_position, strict=True)]


def transposed(rows: Collection[Sequence[str]]) -> list[str]:
    """Return the columns of ``rows`` as arrays."""
    return [array(column) for column in zip(*rows, strict=True)]


def _routes(head: str) -> str:
    return f"""
SELECT head.*, r.url, r.active, r.labels, r.revision, r.create_time, r.update_time
  FROM ({head}) AS head
 CROSS JOIN unnest($1::text[], $2::text[], $3::text[], $4::text[])
            WITH ORDINALITY AS k (tenant, service, env, version, position)
  LEFT JOIN routes AS r USING (tenant, service, env, version)
 ORDER BY k.position
"""


def _mixed(head: str) -> str:
    """A row for each key of a route, and one for each route of a family, or one without a route if it has none."""
    return f"""
WITH k AS MATERIALIZED (
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])
             WITH ORDINALITY AS k (tenant, service, env, version, position)
)
SELECT head.*, k.position, t.targets, t.fallbacks, t.slices, t.revision, t.create_time, t.update_time,
       r.version, r.url, r.active, r.labels, r.revision, r.create_time, r.update_time
  FROM ({head}) AS head CROSS JOIN k
  LEFT JOIN traffic AS t ON k.version = '' AND (t.tenant, t.service, t.env) = (k.tenant, k.service, k.env)
  LEFT JOIN LATERAL (
      SELECT * FROM routes AS r
       WHERE k.version <> '' AND (r.tenant, r.service, r.env, r.version) = (k.tenant, k.service, k.env, k.version)
      UNION ALL
      (SELECT * FROM routes AS r
        WHERE k.version = '' AND (r.tenant, r.service, r.env) = (k.tenant, k.service, k.env) AND r.active
          AND (t.revision IS NULL OR t.fallbacks ? r.version
               OR t.targets @> jsonb_build_array(jsonb_build_object('version', r.version)))
        ORDER BY r.version LIMIT CASE WHEN t.revision IS NULL THEN {MOST_UNDIVIDED} END)
  ) AS r ON true
 ORDER BY k.position, r.version
"""


def _snapshot(key: RouteKey, epoch: str, as_of: int, url: str | None, *rest: Any) -> Snapshot:
    return Snapshot(key, route_of(key, url, *rest) if url is not None else None, as_of, epoch)


def _mixed_snapshot(key: RouteKey, rows: Sequence[Sequence[Any]]) -> Snapshot:
    """Read the rows of one key: its position, the traffic without its key, then a route without that of its family."""
    epoch, as_of, _, *traffic = rows[0][:9]
    routes = tuple(route_of(key._replace(version=row[9]), *row[10:]) for row in rows if row[9] is not None)
    if key.version:
        return Snapshot(key, routes[0] if routes else None, as_of, epoch)
    division = traffic_of(key, *traffic) if traffic[0] is not None else None
    return Snapshot(key, Family(key, division, routes) if division or routes else None, as_of, epoch)


LOAD = Load("load", HEAD)
