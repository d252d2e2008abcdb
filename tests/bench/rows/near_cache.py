"""The near-cache of the Python client: reads, and how long it takes to load."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from pointsman_server.adapters.postgres.migrations import migrate
from tests.bench import cores
from tests.bench.children import ROOT, Child
from tests.bench.contests import Contest, Refused, Row, Sample, no_less_than, no_more_than
from tests.bench.rig import Rig
from tests.bench.rows.growth import fill
from tests.support.engines import create_database, fresh_redis
from tests.support.processes import clean_environ

ROUTES = 100_000
QUICK_ROUTES = 5_000
SECONDS = 120


@contextmanager
def part(rig: Rig) -> Iterator[Contest]:
    """Measure on the Envoy door: the client on one core, the server and the engines on the other one."""
    count = QUICK_ROUTES if rig.quick else ROUTES
    url = create_database(rig.urls["DATABASE_URL"])
    migrate(url)
    fill(url, count)
    chosen = {"DATABASE_URL": url, "REDIS_URL": fresh_redis(rig.urls["REDIS_URL"])}
    with rig.server("envoy", chosen=chosen) as server:
        # In this order: the disk has what the last load from the server wrote.
        names = ("prototype", "resolve", "server", "disk")
        contestants: dict[str, Callable[[], Sample]] = {
            name: partial(_measured, rig, server, name, count) for name in names
        }
        yield Contest(f"Near-cache of {count:,} routes", contestants, _rows(count), rounds=3)


def _rows(count: int) -> list[Row]:
    return [
        Row(
            "near_cache.resolve",
            "resolve, with age and counts, beside one look into a dict and one at the clock",
            "resolve",
            no_less_than(2_000_000),
            "prototype",
            unit="reads/s",
        ),
        Row(
            "near_cache.server",
            f"{count:,} routes from a server",
            "server",
            no_more_than(2.0),
            figure="seconds",
            unit="s",
        ),
        Row("near_cache.disk", f"{count:,} routes from a disk", "disk", no_more_than(0.5), figure="seconds", unit="s"),
        Row("near_cache.bytes", "one route", "server", no_more_than(600), figure="bytes", unit="bytes"),
    ]


def _measured(rig: Rig, server: Child, mode: str, count: int) -> Sample:
    """Run a near-cache in a process of its own. Raises Refused when it fails."""
    token = rig.guard.headers["authorization"].removeprefix("Bearer ")
    arguments = [mode, server.address, token, str(count), str(rig.work / "near-cache.snapshot")]
    command = [sys.executable, "-m", "tests.bench.near_cache", *arguments]
    with cores.pinned(rig.load_core):
        done = subprocess.run(
            command, cwd=ROOT, env=clean_environ(), capture_output=True, text=True, timeout=SECONDS, check=False
        )
    if done.returncode:
        raise Refused(f"the near-cache failed: {done.stderr.strip()[-300:]}")
    figures: Sample = json.loads(done.stdout)
    return figures
