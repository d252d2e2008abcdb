"""List 100,000 routes as they were a million changes ago, all pages of it, beside the same List as it is now.

In between each route was changed ten times, one of ten was deleted, and 10,000 others came. By the RPC, and from the
store alone, whose work and that of PostgreSQL are both in the figure.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import grpc
import psycopg
from psycopg import sql

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import AsOf
from pointsman_server.adapters.postgres.database import Database
from pointsman_server.adapters.postgres.history.as_of import PostgresHistory
from pointsman_server.adapters.postgres.migrations import migrate
from pointsman_server.adapters.postgres.store import PostgresStore
from pointsman_server.domain.routes import Route, RouteKey
from pointsman_server.ports.store import RouteQuery
from tests.bench.children import Child
from tests.bench.contests import Contest, Refused, Row, Sample, no_more_than
from tests.bench.rig import Rig
from tests.support.engines import create_database, fresh_redis

ROUTES, QUICK_ROUTES = 100_000, 5_000
CHANGES_EACH = 10
# One in so many is deleted at its last change, and as many come after that.
DELETED = 10
METHOD = "/pointsman.v1.RouteService/List"
PAGE = 1000
PATIENCE_SECONDS = 30.0
LOADS = 200
MOST_SECONDS = 2.0

# Change number ``turn`` of route ``n``, in another order at each turn. Turn 0 makes it.
FILL_HISTORY = """
INSERT INTO route_changes (revision, event_id, kind, tenant, service, env, version, before, after, actor, reason,
                           request_id, occurred_at, epoch, traceparent)
SELECT revision, gen_random_uuid(),
       CASE WHEN turn = 0 THEN 'CREATED' WHEN gone THEN 'DELETED' ELSE 'UPDATED' END,
       'team-' || n %% 50, 'service-' || n, 'prod', 'v1',
       CASE WHEN turn > 0 THEN route(n, turn - 1, before_revision) END,
       CASE WHEN NOT gone THEN route(n, turn, revision) END,
       'spiffe://prod/ns/deploy/sa/ci', 'release 2026.11', '', now(), (SELECT epoch FROM clock), ''
  FROM (SELECT n, turn, turn = %(turns)s AND n %% %(deleted)s = 0 AS gone,
               1 + turn * %(count)s + place(n, turn, %(count)s) AS revision,
               1 + (turn - 1) * %(count)s + place(n, turn - 1, %(count)s) AS before_revision
          FROM generate_series(0, %(turns)s) AS turn, generate_series(0, %(count)s - 1) AS n) AS change
 ORDER BY revision
"""
FILL_LATER = """
INSERT INTO route_changes (revision, event_id, kind, tenant, service, env, version, after, actor, reason, request_id,
                           occurred_at, epoch, traceparent)
SELECT n, gen_random_uuid(), 'CREATED', 'team-' || n %% 50, 'service-' || n, 'prod', 'v1', route(n, 0, n),
       'spiffe://prod/ns/deploy/sa/ci', 'release 2026.11', '', now(), (SELECT epoch FROM clock), ''
  FROM generate_series((%(turns)s + 1) * %(count)s + 1, (%(turns)s + 1) * %(count)s + %(count)s / %(deleted)s) AS n
"""
FILL_ROUTES = """
INSERT INTO routes
SELECT tenant, service, env, version, after ->> 'url', true, after -> 'labels', revision, now(), now()
  FROM (SELECT DISTINCT ON (tenant, service, env, version) * FROM route_changes
         ORDER BY tenant, service, env, version, revision DESC) AS last
 WHERE after IS NOT NULL
"""
FUNCTIONS = (
    """
    CREATE FUNCTION pg_temp.place(n bigint, turn bigint, count bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS
    'SELECT (n * 7919 + turn * 104729) % count'
    """,
    """
    CREATE FUNCTION pg_temp.route(n bigint, turn bigint, revision bigint) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('url', 'https://service-' || n || '.internal.example:8443/' || turn, 'active', true,
        'labels', jsonb_build_object('owner', 'team-a', 'tier', 'gold'), 'revision', revision,
        'create_time', now(), 'update_time', now()) $$
    """,
)


@contextmanager
def part(rig: Rig) -> Iterator[Contest]:
    """Measure the Envoy door, and the store alone."""
    url = create_database(rig.urls["DATABASE_URL"])
    migrate(url)
    count = QUICK_ROUTES if rig.quick else ROUTES
    fill(url, count)
    with rig.server("envoy", chosen={"DATABASE_URL": url, "REDIS_URL": fresh_redis(rig.urls["REDIS_URL"])}) as server:
        yield Contest(
            f"As of {count * CHANGES_EACH:,} changes ago",
            {
                "then": lambda: _calls(rig, server, count, AsOf(revision=count)),
                "now": lambda: _calls(rig, server, count, None),
                "store, then": lambda: run(url, lambda database: _pages(count, _then(database, count))),
                "store, now": lambda: run(url, lambda database: _pages(count, PostgresStore(database).list_routes)),
                "one": lambda: run(url, lambda database: _loads(database, count)),
            },
            _rows(f"{count:,} routes as of {count * CHANGES_EACH:,} changes ago, all pages"),
            rounds=3,
        )


def _rows(what: str) -> list[Row]:
    def row(name: str, what: str, ours: str, theirs: str) -> Row:
        return Row(f"as_of.{name}", what, ours, no_more_than(MOST_SECONDS), theirs, "seconds", "s")

    return [
        row("list", f"List of {what}", "then", "now"),
        row("store", f"{what}, from the store alone", "store, then", "store, now"),
        Row("as_of.load", "one key as of then, from the store alone", "one", None, figure="p50", unit="ms"),
    ]


def _calls(rig: Rig, server: Child, count: int, as_of: AsOf | None) -> Sample:
    """Call List for each page. Raises Refused unless there are as many routes as there were."""
    request, found, headers = pb.ListRequest(page_size=PAGE, as_of=as_of), 0, tuple(rig.guard.headers.items())
    with grpc.insecure_channel(server.address) as channel:
        call = channel.unary_unary(METHOD, pb.ListRequest.SerializeToString, pb.ListResponse.FromString)
        begun = time.perf_counter()
        while True:
            response = call(request, metadata=headers, timeout=PATIENCE_SECONDS)
            found += len(response.routes)
            request.page_token = response.next_page_token
            if not request.page_token:
                break
        return _counted(time.perf_counter() - begun, found, count)


def _counted(seconds: float, found: int, count: int) -> Sample:
    if found != count:
        raise Refused(f"{found:,} routes were listed, and there were {count:,}")
    return {"seconds": seconds}


def fill(url: str, count: int) -> None:
    """Make a history in which revision ``count`` is ten changes of each route ago."""
    values = {"count": count, "turns": CHANGES_EACH, "deleted": DELETED}
    with psycopg.connect(url) as connection:
        for function in FUNCTIONS:
            connection.execute(sql.SQL(function))
        for statement in (FILL_HISTORY, FILL_LATER, FILL_ROUTES):
            text = statement.replace("route(", "pg_temp.route(").replace("place(", "pg_temp.place(")
            connection.execute(text.encode(), values if "%(" in text else None)
        connection.execute("UPDATE clock SET revision = (SELECT max(revision) FROM route_changes)")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")


def run(url: str, work: Callable[[Database], Awaitable[Sample]]) -> Sample:
    """Do ``work`` on a pool of one connection."""

    async def measured() -> Sample:
        database = Database(url, pool_min=1, pool_max=1, timeout=30.0)
        await database.open()
        try:
            return await work(database)
        finally:
            await database.close()

    return asyncio.run(measured())


def _then(database: Database, revision: int) -> Callable[[RouteQuery], Awaitable[list[Route]]]:
    history = PostgresHistory(database)
    return lambda query: history.list_routes_as_of(query, revision)


async def _pages(count: int, read: Callable[[RouteQuery], Awaitable[list[Route]]]) -> Sample:
    """Read all pages. Raises Refused unless there are as many routes as there were."""
    query, found = RouteQuery(limit=PAGE), 0
    begun = time.perf_counter()
    while page := await read(query):
        found += len(page)
        query = replace(query, after=page[-1].key)
    return _counted(time.perf_counter() - begun, found, count)


async def _loads(database: Database, count: int) -> Sample:
    history, spent = PostgresHistory(database), []
    for number in range(LOADS):
        n = number * 7919 % count
        begun = time.perf_counter()
        (found,) = await history.load_as_of([RouteKey(f"team-{n % 50}", f"service-{n}", "prod", "v1")], count)
        spent.append(time.perf_counter() - begun)
        if found.route is None:
            raise Refused(f"service-{n} was there, and was not found")
    return {"p50": sorted(spent)[LOADS // 2] * 1000}
