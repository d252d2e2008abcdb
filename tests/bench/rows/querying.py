"""The query of a Resolve by psycopg alone: ``python -m tests.bench.rows.querying URL SECONDS`` prints a sample."""

import asyncio
import itertools
import json
import subprocess
import sys
import time
from statistics import quantiles

import psycopg

from pointsman_server.adapters.postgres.store import LOAD
from tests.bench import requests
from tests.bench.children import ROOT
from tests.bench.contests import Refused, Sample


def measure(url: str, seconds: float) -> Sample:
    """Query in a process of its own, which has nothing else to do. Raises Refused."""
    command = [sys.executable, "-m", __name__, url, str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False, cwd=ROOT)
    if done.returncode != 0:
        raise Refused(f"psycopg failed: {done.stderr.strip()[-300:]}")
    sample: Sample = json.loads(done.stdout)
    return sample


async def query(url: str, seconds: float) -> Sample:
    """Ask for one route after the other on one connection, prepared, as the store does."""
    spent = []
    async with await psycopg.AsyncConnection.connect(url, autocommit=True, prepare_threshold=0) as connection:
        cursor = psycopg.AsyncRawCursor(connection)
        begun = time.perf_counter()
        for request in itertools.cycle(requests.resolves()):
            key = request.key
            before = time.perf_counter()
            await cursor.execute(LOAD.sql, [[key.tenant], [key.service], [key.env], [key.version]])
            await cursor.fetchall()
            after = time.perf_counter()
            spent.append((after - before) * 1000)
            if after > begun + seconds:
                break
    percentiles = quantiles(spent, n=100)
    return {"rate": len(spent) / (after - begun), "p50": percentiles[49], "p99": percentiles[98]}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(query(sys.argv[1], float(sys.argv[2])))))
