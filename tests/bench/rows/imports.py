"""Import: by the RPC with requests ready made, and by the command with a file, beside COPY and the merge alone.

The floor is what PostgreSQL itself takes, chunk after chunk, with the lines of COPY ready made. Nothing is pinned: a
server, PostgreSQL, Redis and the caller share the cores of the machine.
"""

import asyncio
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc.aio
import psycopg

from pointsman.chunks import MOST_ROUTES, ImportedRoute, made
from pointsman.results import Existing
from pointsman.v1 import route_service_pb2 as pb
from pointsman_server.adapters.postgres.bulk_store import COPY, LOCK, MERGE, STAGING, copy_text
from pointsman_server.adapters.postgres.migrations import migrate
from pointsman_server.domain.routes import RouteKey, Wanted
from tests.bench.children import ROOT, Child, cpu_seconds
from tests.bench.contests import Contest, Refused, Row, Sample, at_least, no_less_than
from tests.bench.rig import Rig, pids
from tests.bench.rig import engines as start_engines
from tests.support.engines import create_database
from tests.support.processes import clean_environ

ROUTES = 200_000
QUICK_ROUTES = 20_000
CHUNK = MOST_ROUTES
UNDER_WAY = 3
PATIENCE_SECONDS = 120
TARGET = 50_000
CALL_OPTIONS = (("grpc.max_send_message_length", -1),)
METHOD = "/pointsman.v1.RouteService/Import"
# Update what exists; the actor, no reason, no request_id, no trace, and nothing to remember.
VALUES = (True, "bench", "", "", "", "", "", CHUNK)


@contextmanager
def part(rig: Rig) -> Iterator[Contest]:
    """Measure the Envoy door."""
    with ExitStack() as stack:
        running = stack.enter_context(start_engines(None))
        rig = replace(rig, urls=running.urls, engines=pids(running), server_core=None, load_core=None)
        server = stack.enter_context(rig.server("envoy"))
        subject = _Imports(rig, server, QUICK_ROUTES if rig.quick else ROUTES)
        contestants: dict[str, Callable[[], Sample]] = {
            "floor": subject.floor,
            "new": subject.new,
            "same": subject.same,
            "changed": subject.changed,
            "command": subject.command,
        }
        yield Contest(f"Imports of {subject.count:,} routes, envoy", contestants, _rows(), rounds=3)


def _rows() -> list[Row]:
    def row(name: str, what: str, ours: str, target: Any) -> Row:
        return Row(f"import.{name}", what, ours, target, "floor", unit="routes/s")

    return [
        row("rate", "new routes, by the RPC", "new", no_less_than(TARGET)),
        row("floor", "the same beside COPY and the merge alone", "new", at_least(0.75)),
        row("same", "routes that are so already", "same", None),
        row("changed", "routes that change", "changed", None),
        row("command", "new routes, by the command, from a file", "command", None),
    ]


class _Imports:
    """The contestants; each run of them has routes of its own."""

    def __init__(self, rig: Rig, server: Child, count: int) -> None:
        self._rig = rig
        self._server = server
        self.count = count
        self._tags = (f"t{number}" for number in itertools.count())
        self._last = ""
        # Where no server's feed reads what is written.
        self._alone = create_database(rig.urls["DATABASE_URL"])
        migrate(self._alone)

    def floor(self) -> Sample:
        """Stage and merge by SQL alone."""
        rows = [
            Wanted(RouteKey.parse(str(each.key)), each.url, each.labels)
            for each in routes(next(self._tags), self.count)
        ]
        lines = [copy_text(rows[start : start + CHUNK]) for start in range(0, len(rows), CHUNK)]
        with psycopg.connect(self._alone, options="-c jit=off") as connection:
            return self._measure(lambda: _statements(connection, lines))

    def new(self) -> Sample:
        """Import routes that are not there."""
        self._last = next(self._tags)
        return self._call(routes(self._last, self.count), "")

    def same(self) -> Sample:
        """Import the last routes again, by other requests."""
        return self._call(routes(self._last, self.count), "again")

    def changed(self) -> Sample:
        """Give the last routes another URL."""
        moved = (each._replace(url=f"{each.url}/{next(self._tags)}") for each in routes(self._last, self.count))
        return self._call(moved, "")

    def command(self) -> Sample:
        """Import a file, from the start of the command to its end."""
        path = self._rig.work / "routes.jsonl"
        with path.open("w") as file:
            for each in routes(next(self._tags), self.count):
                file.write(json.dumps({"key": each.key, "url": each.url, "labels": each.labels}) + "\n")
        return self._measure(lambda: _command(self._server.address, self._rig.guard.headers, path))

    def _call(self, wanted: Iterable[ImportedRoute], reason: str) -> Sample:
        chunks = [chunk.request.SerializeToString() for chunk in made(wanted, Existing.UPDATE, "", reason)]
        return self._measure(lambda: asyncio.run(_send(self._server.address, self._rig.guard.headers, chunks)))

    def _measure(self, work: Callable[[], object]) -> Sample:
        before, engines, ours = cpu_seconds([self._server.process.pid]), cpu_seconds(self._rig.engines), _cpu()
        begun = time.perf_counter()
        work()
        seconds = time.perf_counter() - begun
        each = 1e6 / self.count
        return {
            "rate": self.count / seconds,
            "cpu": (cpu_seconds([self._server.process.pid]) - before) * each,
            "engines": (cpu_seconds(self._rig.engines) - engines) * each,
            "caller": (_cpu() - ours) * each,
        }


def routes(tag: str, count: int) -> Iterator[ImportedRoute]:
    """Make routes that differ in what real ones differ in; the labels are of a few kinds."""
    for number in range(count):
        key = f"team-{number // 2000}/{tag}-{number}/prod/v1"
        yield ImportedRoute(key, f"https://{tag}-{number}.internal:8443", {"owner": f"team-{number % 50}", "tier": "1"})


def _statements(connection: psycopg.Connection[Any], lines: Sequence[bytes]) -> None:
    cursor = psycopg.RawCursor(connection)
    for text in lines:
        cursor.execute(STAGING)
        with cursor.copy(COPY) as copy:
            copy.write(text)
        cursor.execute(LOCK.sql)
        cursor.execute(MERGE.sql, VALUES)
        connection.commit()


async def _send(address: str, headers: Mapping[str, str], requests: Sequence[bytes]) -> None:
    """Send requests, some at once. Raises Refused when one is not OK."""
    async with grpc.aio.insecure_channel(address, options=CALL_OPTIONS) as channel:
        send = channel.unary_unary(METHOD, response_deserializer=pb.ImportResponse.FromString)
        queue = iter(requests)

        async def worker() -> None:
            for request in queue:
                await send(request, metadata=tuple(headers.items()), timeout=PATIENCE_SECONDS)

        try:
            await asyncio.gather(*(worker() for _ in range(UNDER_WAY)))
        except grpc.aio.AioRpcError as error:
            raise Refused(f"an import failed: {error.code().name}: {error.details()}") from error


def _command(address: str, headers: Mapping[str, str], path: Path) -> None:
    command = [sys.executable, "-m", "pointsman.cli", "--server", address, "import", str(path)]
    token = {"POINTSMAN_TOKEN": headers["authorization"].removeprefix("Bearer ")}
    done = subprocess.run(command, env=clean_environ() | token, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(f"the command failed: {done.stderr.strip()[-300:]}")


def _cpu() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
