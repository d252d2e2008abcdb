"""The query of a Resolve by psycopg alone: ``python -m tests.bench.rows.querying URL SECONDS CONNECTIONS``."""

import asyncio
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from statistics import quantiles

import psycopg
from psycopg.rows import TupleRow

from pointsman.v1 import route_service_pb2 as pb
from pointsman_server.adapters.postgres.snapshots import LOAD
from tests.bench import requests
from tests.bench.children import ROOT
from tests.bench.contests import Refused, Sample

Connection = psycopg.AsyncConnection[TupleRow]


def measure(url: str, seconds: float, connections: int = 1) -> Sample:
    """Query in a process of its own, which has nothing else to do. Raises Refused."""
    command = [sys.executable, "-m", __name__, url, str(seconds), str(connections)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False, cwd=ROOT)
    if done.returncode != 0:
        raise Refused(f"psycopg failed: {done.stderr.strip()[-300:]}")
    sample: Sample = json.loads(done.stdout)
    return sample


async def query(url: str, seconds: float, connections: int = 1) -> Sample:
    """Ask on each connection for one route after the other, prepared, as the store does."""
    async with AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(
                await psycopg.AsyncConnection.connect(url, autocommit=True, prepare_threshold=0)
            )
            for _ in range(connections)
        ]
        routes = itertools.cycle(requests.resolves())
        begun = time.perf_counter()
        spent = await asyncio.gather(*(_ask(connection, routes, begun + seconds) for connection in opened))
        took = time.perf_counter() - begun
    each = [milliseconds for one in spent for milliseconds in one]
    percentiles = quantiles(each, n=100)
    return {"rate": len(each) / took, "p50": percentiles[49], "p99": percentiles[98]}


async def _ask(connection: Connection, routes: Iterator[pb.ResolveRequest], end: float) -> list[float]:
    spent = []
    cursor = psycopg.AsyncRawCursor(connection)
    for request in routes:
        key = request.key
        before = time.perf_counter()
        await cursor.execute(LOAD.routes.sql, [[key.tenant], [key.service], [key.env], [key.version]])
        await cursor.fetchall()
        after = time.perf_counter()
        spent.append((after - before) * 1000)
        if after > end:
            break
    return spent


if __name__ == "__main__":
    print(json.dumps(asyncio.run(query(sys.argv[1], float(sys.argv[2]), int(sys.argv[3])))))
