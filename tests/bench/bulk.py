"""``python -m tests.bench.bulk``: how fast routes are imported, and what follows. About three minutes.

Everything on one machine, PostgreSQL with fsync on. Three figures that say the same at different depths, in one run:
the statements alone (the floor), the RPC with its requests ready made, and the command with a file. Then how fast what
was imported goes on: to Kafka, the shared cache and the audit log.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import psycopg

from pointsman.chunks import ImportedRoute, made
from pointsman.results import Existing
from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from pointsman_server import embedded
from pointsman_server.adapters.migrations import migrate
from pointsman_server.adapters.postgres.bulk_store import COPY, LOCK, MERGE, STAGING, copy_text
from pointsman_server.routes import RouteKey, Wanted
from tests.bench.children import Child, child, cpu_seconds

ROLES = "api,relay,cache,audit"
UNDER_WAY = 3
PATIENCE_SECONDS = 1800.0
COMMON = {"POINTSMAN_LISTEN": "127.0.0.1:0", "POINTSMAN_HTTP_LISTEN": "127.0.0.1:0", "POINTSMAN_LOG_FORMAT": "json"}
CALL_OPTIONS = (("grpc.max_send_message_length", -1),)


@dataclass(frozen=True, slots=True)
class Figure:
    """Rows a second by the clock, and the processor time of one row in microseconds, by who used it."""

    name: str
    rate: float
    cpu: Mapping[str, float]

    def __str__(self) -> str:
        parts = " ".join(f"{who} {used:.1f}" for who, used in self.cpu.items())
        return f"{self.name:<44}{self.rate:>10,.0f} rows/s   {parts} µs/row of processor"


def routes(tag: str, count: int) -> Iterator[ImportedRoute]:
    """Make routes that differ in what real ones differ in; the labels are of a few kinds."""
    for number in range(count):
        key = f"team-{number // 2000}/{tag}-{number}/prod/v1"
        yield ImportedRoute(key, f"https://{tag}-{number}.internal:8443", {"owner": f"team-{number % 50}", "tier": "1"})


def wanted(tag: str, count: int) -> list[Wanted]:
    """The same as the server has them."""
    return [Wanted(RouteKey.parse(str(each.key)), each.url, each.labels) for each in routes(tag, count)]


class Meter:
    """Times work, and says who used the processor meanwhile."""

    def __init__(self, processes: Mapping[str, Sequence[int]]) -> None:
        self._processes = {name: list(pids) for name, pids in processes.items()}

    def figure(self, name: str, count: int, work: Callable[[], object]) -> Figure:
        """Do ``work``, which is of ``count`` rows."""
        before = self._used()
        begun = time.perf_counter()
        work()
        seconds = time.perf_counter() - begun
        used = {who: (after - before[who]) / count * 1e6 for who, after in self._used().items()}
        return Figure(name, count / seconds, used)

    def _used(self) -> dict[str, float]:
        used = {name: cpu_seconds(pids) for name, pids in self._processes.items()}
        times = os.times()
        return used | {"caller": times.user + times.system + times.children_user + times.children_system}


def floor(url: str, tag: str, count: int, chunk: int) -> None:
    """Stage and merge by SQL alone, one chunk after the other; the lines of COPY are made before."""
    values = {"update": True, "actor": "bench", "reason": "", "request_id": "", "traceparent": ""}
    with psycopg.connect(url) as connection:
        rows = wanted(tag, count)
        lines = [copy_text(rows[start : start + chunk]) for start in range(0, count, chunk)]
        begun = time.perf_counter()
        for text in lines:
            connection.execute(STAGING)
            with connection.cursor().copy(COPY) as copy:
                copy.write(text)
            connection.execute(LOCK)
            connection.execute(MERGE, values, prepare=False)
            connection.commit()
        floor.seconds = time.perf_counter() - begun  # type: ignore[attr-defined]


async def patiently(send: Any, request: bytes) -> None:
    """Send again what the store did not do in time, as clients do, and say so."""
    for _ in range(10):
        try:
            await send(request, timeout=60)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            print(f"again: {error.details()}", flush=True)
        else:
            return
    raise RuntimeError("the store is too slow for imports")


async def call(address: str, requests: Sequence[bytes]) -> None:
    """Send requests, some at once."""
    async with grpc.aio.insecure_channel(address, options=CALL_OPTIONS) as channel:
        send = channel.unary_unary(
            "/pointsman.v1.RouteService/Import", response_deserializer=pb.ImportResponse.FromString
        )
        queue = iter(requests)

        async def worker() -> None:
            for request in queue:
                await patiently(send, request)

        await asyncio.gather(*(worker() for _ in range(UNDER_WAY)))


async def resolve(address: str, key: str, stop: asyncio.Event) -> list[float]:
    """Resolve one route again and again; the seconds that each took."""
    tenant, service, env, version = key.split("/")
    taken = []
    async with grpc.aio.insecure_channel(address) as channel:
        stub = RouteServiceStub(channel)
        request = pb.ResolveRequest(key={"tenant": tenant, "service": service, "env": env, "version": version})
        while not stop.is_set():
            begun = time.perf_counter()
            await stub.Resolve(request)
            taken.append(time.perf_counter() - begun)
            await asyncio.sleep(0.005)
    return taken


def write_file(path: Path, tag: str, count: int) -> None:
    """Write the file for the command, as JSON lines."""
    with path.open("w") as file:
        for each in routes(tag, count):
            file.write(json.dumps({"key": each.key, "url": each.url, "labels": each.labels}) + "\n")


def command(address: str, path: Path) -> None:
    """Run the command. Raises CalledProcessError."""
    subprocess.run(
        [sys.executable, "-m", "pointsman.cli", "--server", address, "import", str(path)],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def sample(metrics: str, name: str) -> float:
    """Read one metric."""
    with urllib.request.urlopen(metrics, timeout=30) as response:
        lines = response.read().decode().splitlines()
    return float(next((line.rpartition(" ")[2] for line in lines if line.startswith(name)), "0"))


def downstream(server: Child, count: int) -> None:
    """Wait until everything has gone on, and say how many changes a second each way took since now."""
    begun = time.perf_counter()
    ways = {
        "relay to Kafka": lambda: sample(server.metrics, "pointsman_relay_lag_revisions") == 0,
        "shared cache": lambda: sample(server.metrics, 'pointsman_consumed_changes_total{consumer="cache"}') >= count,
        "audit log": lambda: sample(server.metrics, 'pointsman_consumed_changes_total{consumer="audit"}') >= count,
    }
    done: dict[str, float] = {}
    while len(done) < len(ways) and time.perf_counter() - begun < PATIENCE_SECONDS:
        time.sleep(1)
        for name, is_done in ways.items():
            if name not in done and is_done():
                done[name] = count / (time.perf_counter() - begun)
                print(f"{name:<44}{done[name]:>10,.0f} changes/s", flush=True)


def resident(pid: int) -> float:
    """The memory of a process in MB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def measure(work: Path, chosen: argparse.Namespace) -> None:
    """Start, measure, print."""
    with ExitStack() as stack:
        engines = stack.enter_context(embedded.start(work / "data", ("postgres", "redis")))
        url = engines.urls["DATABASE_URL"]
        migrate(url)
        serve = ["pointsman_server", "serve", "--roles", "api", "--transport", chosen.transport]
        server = stack.enter_context(child(serve, work / "server.log", COMMON | dict(engines.urls)))
        pids = {name: [pid] for name, pid in engines.pids.items() if name != "keeper"}
        meter = Meter({"server": [server.process.pid]} | pids)
        rates: dict[str, list[float]] = {}
        for number in range(chosen.rounds):
            for figure in _round(meter, server, url, work, number, chosen):
                print(figure, flush=True)
                rates.setdefault(figure.name, []).append(figure.rate)
        medians = {name: statistics.median(values) for name, values in rates.items()}
        best = medians[next(iter(medians))]
        print("\nmedians, and their share of the statements alone:")
        for name, rate in medians.items():
            print(f"{name:<44}{rate:>10,.0f} rows/s   {rate / best:.2f}")
        print(f"\nmemory of the server: {resident(server.process.pid):.0f} MB")


def _round(
    meter: Meter, server: Child, url: str, work: Path, number: int, chosen: argparse.Namespace
) -> Iterator[Figure]:
    count, chunk = chosen.rows, chosen.chunk
    figure = meter.figure("COPY and merge alone", count, lambda: floor(url, f"floor{number}", count, chunk))
    yield Figure(figure.name, count / floor.seconds, figure.cpu)  # type: ignore[attr-defined]
    ready = [part.request.SerializeToString() for part in made(routes(f"rpc{number}", count), Existing.UPDATE, "", "")]
    yield meter.figure("RPC, new routes", count, lambda: asyncio.run(call(server.address, ready)))
    again = [
        part.request.SerializeToString() for part in made(routes(f"rpc{number}", count), Existing.UPDATE, "", "again")
    ]
    yield meter.figure("RPC, routes that are so already", count, lambda: asyncio.run(call(server.address, again)))
    moved = (each._replace(url=f"{each.url}/new") for each in routes(f"rpc{number}", count))
    changed = [part.request.SerializeToString() for part in made(moved, Existing.UPDATE, "", "")]
    yield meter.figure("RPC, routes that change", count, lambda: asyncio.run(call(server.address, changed)))
    yield meter.figure("RPC, what is done already", count, lambda: asyncio.run(call(server.address, changed)))
    write_file(work / "routes.jsonl", f"file{number}", count)
    yield meter.figure("command, new routes", count, lambda: command(server.address, work / "routes.jsonl"))


def follow(work: Path, chosen: argparse.Namespace) -> None:
    """Import with every role in one process, and say how fast the changes go on, and how long others waited."""
    with ExitStack() as stack:
        engines = stack.enter_context(embedded.start(work / "followed", ("postgres", "redis", "kafka")))
        migrate(engines.urls["DATABASE_URL"])
        serve = ["pointsman_server", "serve", "--roles", ROLES, "--transport", chosen.transport]
        server = stack.enter_context(child(serve, work / "followed.log", COMMON | dict(engines.urls)))
        count = chosen.rows
        ready = [part.request.SerializeToString() for part in made(routes("all", count), Existing.UPDATE, "", "")]
        before = resident(server.process.pid)

        async def both() -> tuple[float, list[float]]:
            stop = asyncio.Event()
            await call(server.address, ready[:1])
            key = str(next(routes("all", 1)).key)
            reading = asyncio.create_task(resolve(server.address, key, stop))
            begun = time.perf_counter()
            await call(server.address, ready[1:])
            seconds = time.perf_counter() - begun
            stop.set()
            return seconds, await reading

        seconds, taken = asyncio.run(both())
        print(f"\nall roles in one process: {count / seconds:,.0f} rows/s", flush=True)
        taken.sort()
        print(
            f"a Resolve meanwhile: median {taken[len(taken) // 2] * 1e3:.1f} ms,"
            f" 99 % {taken[len(taken) * 99 // 100] * 1e3:.1f} ms"
        )
        downstream(server, count)
        print(f"memory of the server: {before:.0f} MB before, {resident(server.process.pid):.0f} MB after")


def main() -> int:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bulk", description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000, help="rows of one figure (%(default)s)")
    parser.add_argument("--chunk", type=int, default=5000, help="rows of a chunk of the statements (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, of which the medians are taken (%(default)s)")
    parser.add_argument("--transport", choices=("native", "grpcio"), default="native")
    parser.add_argument("--follow", action="store_true", help="measure instead how fast the changes go on")
    chosen = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    with tempfile.TemporaryDirectory(prefix="pointsman-bench-") as directory:
        (follow if chosen.follow else measure)(Path(directory), chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
