"""Resolve past the local cache: from Redis beside the floor, and from PostgreSQL beside the query alone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.bench import cores, requests
from tests.bench.children import Child
from tests.bench.contests import Contest, Row, Sample, at_least, at_most
from tests.bench.generators import CALLS_IN_FLIGHT
from tests.bench.rig import FORGETFUL_SECONDS, Rig
from tests.bench.rows import querying
from tests.bench.rows.calls import Call, by_driver, warm


@contextmanager
def part(rig: Rig) -> Iterator[Contest]:
    """Measure the Envoy door."""
    forgetful = {"POINTSMAN_CACHE_LOCAL_TTL_SECONDS": FORGETFUL_SECONDS}
    with (
        rig.noop("envoy") as floor,
        rig.server("envoy", chosen=forgetful) as from_redis,
        rig.server("envoy") as exact,
    ):
        plain = requests.write(rig.work / "resolves.bin", requests.resolves())
        full = requests.write(rig.work / "exact.bin", requests.resolves(exact=True))
        redis = Call("Resolve", plain, rig.guard.headers, "REDIS")
        postgres = Call("Resolve", full, rig.guard.headers, "POSTGRES")
        warm(from_redis, redis)
        warm(exact, postgres)
        yield Contest(
            "Resolve past the local cache, envoy",
            {
                "floor": by_driver(rig, floor, Call("Resolve", plain)),
                "Redis": by_driver(rig, from_redis, redis),
                "PostgreSQL": by_driver(rig, exact, postgres),
                "PostgreSQL, one in flight": by_driver(rig, exact, postgres, in_flight=1),
                "psycopg, one in flight": _query(rig),
                "floor and psycopg, one in flight": _both(rig, floor, Call("Resolve", plain)),
                "psycopg, 32 connections": _query(rig, CALLS_IN_FLIGHT),
            },
            [
                Row("redis.envoy.floor", "from Redis, 32 in flight", "Redis", at_least(0.5), "floor"),
                Row("postgres.envoy.floor", "from PostgreSQL, 32 in flight", "PostgreSQL", at_least(0.15), "floor"),
                Row(
                    "postgres.envoy.psycopg",
                    "from PostgreSQL, one in flight, beside its query by psycopg alone",
                    "PostgreSQL, one in flight",
                    at_most(1.3),
                    "psycopg, one in flight",
                    "p50",
                    "ms",
                ),
                # What a call and its query take one after the other, each by itself, is the least of the row before.
                Row(
                    "postgres.envoy.both",
                    "the same, beside a call of the floor and then the query",
                    "PostgreSQL, one in flight",
                    at_most(1.3),
                    "floor and psycopg, one in flight",
                    "p50",
                    "ms",
                ),
                Row(
                    "postgres.envoy.psycopg.32",
                    "from PostgreSQL, 32 in flight, beside its query by psycopg alone on 32 connections",
                    "PostgreSQL",
                    at_most(1.3),
                    "psycopg, 32 connections",
                    "p50",
                    "ms",
                ),
            ],
        )


def _query(rig: Rig, connections: int = 1) -> Callable[[], Sample]:
    def run() -> Sample:
        # Where our server would run: the query is what it would ask.
        with cores.pinned(rig.server_core):
            return querying.measure(rig.urls["DATABASE_URL"], rig.seconds, connections)

    return run


def _both(rig: Rig, floor: Child, call: Call) -> Callable[[], Sample]:
    one_call, one_query = by_driver(rig, floor, call, in_flight=1), _query(rig)

    def run() -> Sample:
        called, queried = one_call(), one_query()
        return {name: called[name] + queried[name] for name in ("p50", "p99")} | {"rate": 0.0}

    return run
