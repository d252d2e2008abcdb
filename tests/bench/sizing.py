"""What to size for: memory for each 100,000 routes, and the growth of PostgreSQL with each change.

``python -m tests.bench.sizing`` starts engines and a server, writes 100,000 routes one by one in groups, reads each of
them once, and prints a table. About two minutes.
"""

import asyncio
import itertools
import sys
from collections.abc import Iterable, Sequence

import psutil
import psycopg
import redis
from psycopg import sql

from pointsman import Client
from pointsman_server.adapters.postgres.audit_log import PostgresAuditLog
from pointsman_server.adapters.postgres.database import Database
from pointsman_server.adapters.postgres.lineage import PostgresLineage
from pointsman_server.adapters.postgres.migrations import migrate
from pointsman_server.adapters.postgres.store import PostgresStore
from pointsman_server.domain.routes import ChangeKind, Draft, RouteKey
from pointsman_server.ports.store import Intent
from tests.support.changes import commit
from tests.support.engines import create_database, session_engines
from tests.support.processes import serve

ROUTES = 100_000
GROUP = 500
# The Redis of the tests keeps some thousand routes, and evicts the rest.
IN_REDIS = 5_000
TABLES = ("routes", "route_changes", "audit_log", "audit_chain")
MEGABYTE = 1 << 20


def main() -> int:
    """Measure, and print the table."""
    keys = [RouteKey(f"team-{number % 50}", "payments-api", "prod", f"v{number}") for number in range(ROUTES)]
    with session_engines() as engines:
        url = create_database(engines.urls["DATABASE_URL"])
        migrate(url)
        before = sizes(url)
        asyncio.run(write(url, keys))
        after = sizes(url)
        for table in TABLES:
            show(f"PostgreSQL, {table}", (after[table] - before[table]) / ROUTES, "bytes a change")
        show("PostgreSQL, all of it", (sum(after.values()) - sum(before.values())) / ROUTES, "bytes a change")
        for transport in ("grpcio", "envoy"):
            measure_server(transport, {"DATABASE_URL": url, "REDIS_URL": engines.urls["REDIS_URL"]}, keys)
    return 0


def measure_server(transport: str, environ: dict[str, str], keys: Sequence[RouteKey]) -> None:
    """Read every route once, and show what the process and Redis took for it."""
    environ = {**environ, "POINTSMAN_TRANSPORT": transport, "POINTSMAN_ROLES": "api"}
    with redis.Redis.from_url(environ["REDIS_URL"]) as client:
        client.flushall()
        empty = int(client.info("memory")["used_memory"])
        with serve(**environ) as (process, address, _), Client(address, timeout=30) as caller:
            server = psutil.Process(process.process.pid)
            start = server.memory_info().rss
            for number, group in enumerate(grouped(keys), 1):
                caller.batch_resolve([str(key) for key in group])
                if number * GROUP == IN_REDIS:
                    used = int(client.info("memory")["used_memory"]) - empty
                    show("Redis", used / IN_REDIS, "bytes a route")
            held = server.memory_info().rss - start
            show(f"a server on {transport}, its local cache", held / MEGABYTE, "MB for 100,000 routes")


async def write(url: str, keys: Sequence[RouteKey]) -> None:
    """Create each route in the way of a Create, with its row in the audit log."""
    database = Database(url, pool_min=1, pool_max=2, timeout=60)
    await database.open()
    store, log = PostgresStore(database), PostgresAuditLog(database, PostgresLineage(database))
    intent = Intent("spiffe://prod/ns/deploy/sa/ci", "release 2026.11")
    for group in grouped(keys):
        drafts = [
            Draft(ChangeKind.CREATED, key, None, f"https://{key.service}-{key.version}.internal.example:8443/v1", True)
            for key in group
        ]
        await log.append(await commit(store, drafts, intent))
    await database.close()


def grouped(keys: Sequence[RouteKey]) -> Iterable[list[RouteKey]]:
    """Cut into groups."""
    iterator = iter(keys)
    return iter(lambda: list(itertools.islice(iterator, GROUP)), [])


def sizes(url: str) -> dict[str, int]:
    """Read the size of each table with its indexes, in bytes."""
    found = {}
    with psycopg.connect(url, autocommit=True) as connection:
        for table in TABLES:
            query = sql.SQL("SELECT pg_total_relation_size({}::regclass)").format(sql.Literal(table))
            row = connection.execute(query).fetchone()
            found[table] = int(row[0]) if row else 0
    return found


def show(what: str, value: float, unit: str) -> None:
    """Print a line."""
    print(f"{what:45} {value:8.1f} {unit}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
