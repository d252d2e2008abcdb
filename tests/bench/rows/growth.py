"""A table of a million routes beside one of a thousand: keys by Zipf's law, answered from the local cache both times.

And what a route in the local cache takes: how much the server grew by as many as it holds.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import RouteKey
from pointsman_server.adapters.postgres.migrations import migrate
from tests.bench import requests
from tests.bench.children import Child
from tests.bench.contests import Contest, Row, Sample, at_least, no_more_than
from tests.bench.rig import Rig
from tests.bench.rows.calls import Call, by_driver, warm
from tests.support.engines import create_database, fresh_redis
from tests.support.memory import resident

FEW, MANY, QUICK_MANY = 1_000, 1_000_000, 50_000
DRAWS = 60_000
# What is loaded into the local cache to weigh a route in it, by batches of so many.
WEIGHED, BATCH = 100_000, 500
LARGE_CACHE = {"POINTSMAN_CACHE_LOCAL_SIZE": "2000000"}
TENANTS = 100

FILL = """
INSERT INTO routes
SELECT 'tenant-' || n %% %(tenants)s, 'service-' || n, 'prod', 'v1', %(url)s, true,
       '{"owner": "team-a", "tier": "gold"}', 1, now(), now()
  FROM generate_series(0, %(count)s - 1) AS n
"""


@contextmanager
def part(rig: Rig) -> Iterator[Contest]:
    """Measure the Envoy door."""
    many = QUICK_MANY if rig.quick else MANY
    with ExitStack() as stack:
        small, large = (_server(stack, rig, count) for count in (FEW, many))
        contestants = {
            f"{count:,} routes": _zipf(rig, server, count) for server, count in ((small, FEW), (large, many))
        }
        contestants["weight"] = _weight(rig, large, many)
        first, second = f"{FEW:,} routes", f"{many:,} routes"
        yield Contest(
            "Growth, envoy",
            contestants,
            [
                Row("growth.zipf", f"{second}, keys by Zipf's law", second, at_least(0.95), first),
                Row(
                    "growth.bytes",
                    "one more route in the local cache",
                    "weight",
                    no_more_than(600),
                    figure="bytes",
                    unit="bytes",
                ),
            ],
            rounds=3,
        )


def _server(stack: ExitStack, rig: Rig, count: int) -> Child:
    url = create_database(rig.urls["DATABASE_URL"])
    migrate(url)
    fill(url, count)
    engines = {"DATABASE_URL": url, "REDIS_URL": fresh_redis(rig.urls["REDIS_URL"])}
    return stack.enter_context(rig.server("envoy", chosen=engines | LARGE_CACHE))


def fill(url: str, count: int) -> None:
    """Make ``count`` routes, as one change would have: what is measured reads routes and nothing else."""
    with psycopg.connect(url) as connection:
        connection.execute(FILL, {"tenants": TENANTS, "url": requests.URL, "count": count})
        connection.execute("UPDATE clock SET revision = 1")
    with psycopg.connect(url, autocommit=True) as connection:
        # Now, and not in the middle of a run on the same core.
        connection.execute(sql.SQL("ALTER TABLE routes SET (autovacuum_enabled = false)"))
        connection.execute(sql.SQL("VACUUM ANALYZE routes"))


def key(number: int) -> RouteKey:
    """Name one of the routes that ``fill`` makes."""
    return RouteKey(tenant=f"tenant-{number % TENANTS}", service=f"service-{number}", env="prod", version="v1")


def _zipf(rig: Rig, server: Child, count: int) -> Callable[[], Sample]:
    draws = requests.zipf(count, DRAWS)
    asked = requests.write(rig.work / f"zipf-{count}.bin", (pb.ResolveRequest(key=key(each)) for each in draws))
    call = Call("Resolve", asked, rig.guard.headers, "LOCAL")
    _load(rig, server, sorted(set(draws)), rig.work / "load.bin")
    return by_driver(rig, server, call)


def _load(rig: Rig, server: Child, numbers: list[int], path: Path) -> None:
    batches = (numbers[start : start + BATCH] for start in range(0, len(numbers), BATCH))
    asked = (pb.BatchResolveRequest(keys=[key(number) for number in batch]) for batch in batches)
    warm(server, Call("BatchResolve", requests.write(path, asked), rig.guard.headers))


def _weight(rig: Rig, server: Child, count: int) -> Callable[[], Sample]:
    """Weigh routes that were not asked for yet: each run takes its own from the end of the table."""
    weighed = min(WEIGHED, count // 4)
    drawn = set(requests.zipf(count, DRAWS))
    fresh = [number for number in range(count) if number not in drawn]

    def run() -> Sample:
        numbers, fresh[:] = fresh[-weighed:], fresh[:-weighed]
        before = resident(server.process.pid)
        _load(rig, server, numbers, rig.work / "weigh.bin")
        return {"bytes": (resident(server.process.pid) - before) / len(numbers)}

    return run
