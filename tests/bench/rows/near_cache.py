"""The near-cache of the Python client: reads, and how long it takes to load."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from typing import Any

import grpc

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from pointsman.v1.watch_pb2 import WatchRequest
from pointsman_server.adapters.postgres.migrations import migrate
from tests.bench import cores
from tests.bench.children import ROOT, Child
from tests.bench.contests import Contest, Refused, Row, Sample, no_less_than, no_more_than
from tests.bench.rig import Rig
from tests.bench.rows.growth import fill, key
from tests.support.engines import create_database, fresh_redis
from tests.support.processes import clean_environ

ROUTES = 100_000
QUICK_ROUTES = 5_000
SECONDS = 120
WATCHERS = 1000
CHANNELS = 20
CHANGES_PER_SECOND = 200
# The last changes are answered a little after the time is up.
LEAST_RATE = 0.9
SETTLING_SECONDS = 1.0
METHODS = "/pointsman.v1.RouteService"
CHANNEL = (("grpc.use_local_subchannel_pool", 1),)


@contextmanager
def part(rig: Rig) -> Iterator[Contest]:
    """Measure on the Envoy door: the client on one core, the server and the engines on the other one."""
    count = QUICK_ROUTES if rig.quick else ROUTES
    url = create_database(rig.urls["DATABASE_URL"])
    migrate(url)
    fill(url, count)
    chosen = {"DATABASE_URL": url, "REDIS_URL": fresh_redis(rig.urls["REDIS_URL"])}
    with rig.server("envoy", chosen=chosen) as server:
        # In this order: the disk has what the last load from the server wrote, and selects make further routes.
        names = ("prototype", "resolve", "server", "disk", "select")
        contestants: dict[str, Callable[[], Sample]] = {
            name: partial(_measured, rig, server, name, count) for name in names
        }
        contestants["reach"] = partial(_reach, rig, server, count)
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
            "near_cache.select",
            "select, calls divided 90 to 10: with one SHA-256",
            "select",
            no_less_than(500_000),
            unit="selects/s",
        ),
        Row(
            "near_cache.select.single",
            "select, all calls to one version",
            "select",
            no_less_than(500_000),
            figure="single",
            unit="selects/s",
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
        *(
            Row(
                f"near_cache.reach.{figure}",
                f"from a commit to the table, {WATCHERS:,} watchers, {CHANGES_PER_SECOND} changes/s, {figure}",
                "reach",
                target,
                figure=figure,
                unit="ms",
            )
            for figure, target in (("p50", None), ("p99", no_more_than(60)))
        ),
        Row("near_cache.bytes", "one route", "server", no_more_than(600), figure="bytes", unit="bytes"),
    ]


def _command(rig: Rig, server: Child, mode: str, count: int) -> list[str]:
    token = rig.guard.headers["authorization"].removeprefix("Bearer ")
    arguments = [mode, server.address, token, str(count), str(rig.work / "near-cache.snapshot")]
    return [sys.executable, "-m", "tests.bench.near_cache", *arguments]


def _measured(rig: Rig, server: Child, mode: str, count: int) -> Sample:
    """Run a near-cache in a process of its own. Raises Refused when it fails."""
    with cores.pinned(rig.load_core):
        done = subprocess.run(
            _command(rig, server, mode, count),
            cwd=ROOT,
            env=clean_environ(),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    if done.returncode:
        raise Refused(f"the near-cache failed: {done.stderr.strip()[-300:]}")
    figures: Sample = json.loads(done.stdout)
    return figures


def _reach(rig: Rig, server: Child, count: int) -> Sample:
    """Change routes beside many watchers, and let a near-cache say when it had each change."""
    with cores.pinned(rig.load_core):
        process = subprocess.Popen(
            _command(rig, server, "reach", count),
            cwd=ROOT,
            env=clean_environ(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    try:
        assert process.stdout
        if process.stdout.readline().strip() != "ready":
            raise Refused("the near-cache failed")
        with cores.pinned(rig.load_core):
            changed, seconds = asyncio.run(_change(server.address, rig.guard.headers, rig.seconds))
        told, _ = process.communicate(timeout=SECONDS)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    figures = json.loads(told)
    if figures["changes"] < changed:
        raise Refused(f"of {changed} changes the near-cache had {figures['changes']}")
    if changed / seconds < LEAST_RATE * CHANGES_PER_SECOND:
        raise Refused(f"only {changed / seconds:.0f} changes/s were made")
    return {"rate": changed / seconds, "p50": figures["p50"], "p99": figures["p99"]}


async def _change(address: str, headers: Mapping[str, str], length: float) -> tuple[int, float]:
    """Change routes at a steady rate while many watch them. Returns how many changes were made, in how many seconds."""
    metadata = tuple(headers.items())
    async with AsyncExitStack() as stack:
        opened = [grpc.aio.insecure_channel(address, options=CHANNEL) for _ in range(CHANNELS)]
        channels = [await stack.enter_async_context(channel) for channel in opened]
        streams = [
            channels[number % CHANNELS].unary_stream(f"{METHODS}/Watch")(
                WatchRequest(service=f"service-{number}").SerializeToString(), metadata=metadata
            )
            for number in range(WATCHERS)
        ]
        await asyncio.gather(*(stream.read() for stream in streams))
        watching = [asyncio.create_task(_read(stream)) for stream in streams]
        stub: Any = RouteServiceStub(channels[0])
        updates, begun = [], time.perf_counter()
        for number in range(round(length * CHANGES_PER_SECOND)):
            await asyncio.sleep(begun + number / CHANGES_PER_SECOND - time.perf_counter())
            request = pb.UpdateRequest(key=key(number % WATCHERS), url=f"https://{begun:.6f}-{number}.internal")
            updates.append(asyncio.ensure_future(stub.Update(request, metadata=metadata)))
        await asyncio.gather(*updates)
        seconds = time.perf_counter() - begun
        await asyncio.sleep(SETTLING_SECONDS)
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        return len(updates), seconds


async def _read(stream: Any) -> None:
    async for _ in stream:
        pass
