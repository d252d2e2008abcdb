"""Commit of 1,000 mutations beside an Import of 1,000 routes, and what a Resolve takes meanwhile.

One request after the other, ready made; the answer of a Commit, with its changes, is read from the wire and not
decoded. Another process resolves at a fixed rate (``tests.bench.bystander``): alone, and while commits and imports go
on. Nothing is pinned: a server, PostgreSQL, Redis and the callers share the cores of the machine.
"""

import asyncio
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import grpc.aio

from pointsman.chunks import made
from pointsman.results import Existing
from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import RouteKey
from tests.bench.children import ROOT, Child, cpu_seconds
from tests.bench.contests import Contest, Refused, Row, Sample, at_most
from tests.bench.rig import Rig, pids
from tests.bench.rig import engines as start_engines
from tests.bench.rows.imports import PATIENCE_SECONDS, routes

SIZE = 1_000
METHODS = {"commit": "/pointsman.v1.RouteService/Commit", "import": "/pointsman.v1.RouteService/Import"}
OPTIONS = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))
# A percentile needs some hundred calls of the bystander, and it makes 200 in a second.
BYSTANDER_SECONDS = 6.0


@contextmanager
def part(rig: Rig) -> Iterator[Contest]:
    """Measure the Envoy door."""
    with ExitStack() as stack:
        running = stack.enter_context(start_engines(None))
        rig = replace(rig, urls=running.urls, engines=pids(running), server_core=None, load_core=None)
        server = stack.enter_context(rig.server("envoy"))
        subject = _Writes(rig, server)
        contestants: dict[str, Callable[[], Sample]] = {
            "import": lambda: subject.write("import"),
            "commit": lambda: subject.write("commit"),
            "update": lambda: subject.write("commit", again=True),
            "resolve": subject.resolve,
            "resolve, imports": lambda: subject.resolve_beside("import"),
            "resolve, commits": lambda: subject.resolve_beside("commit"),
        }
        yield Contest(f"Commits of {SIZE:,} mutations, envoy", contestants, _rows(), rounds=3)


def _rows() -> list[Row]:
    limit = at_most(2.0)
    return [
        Row("commit.create", "new routes, beside an Import", "commit", limit, "import", "p50", "ms"),
        Row("commit.update", "routes that change, beside an Import of new ones", "update", None, "import", "p50", "ms"),
        Row("commit.bystander", "a Resolve meanwhile", "resolve, commits", limit, "resolve", "p99", "ms"),
        Row("commit.import-bystander", "beside imports", "resolve, imports", None, "resolve", "p99", "ms"),
    ]


class _Writes:
    """The contestants; each request has routes of its own, or those of the request before."""

    def __init__(self, rig: Rig, server: Child) -> None:
        self._rig = rig
        self._server = server
        self._tags = (f"c{number}" for number in itertools.count())
        self._make = {"import": import_of, "commit": commit_of}

    def write(self, method: str, *, again: bool = False) -> Sample:
        """Send requests one after the other; with ``again`` a second time each, with another URL."""
        count = max(3, round(10 * self._rig.seconds))
        tags = [next(self._tags) for _ in range(count)]
        requests = [self._make[method](tag) for tag in tags]
        if again:
            asyncio.run(send(self._server.address, self._rig.guard.headers, method, requests))
            requests = [update_of(tag) for tag in tags]
        before = cpu_seconds([self._server.process.pid])
        seconds = asyncio.run(send(self._server.address, self._rig.guard.headers, method, requests))
        cpu = cpu_seconds([self._server.process.pid]) - before
        ordered = sorted(seconds)
        return {
            "rate": count * SIZE / sum(seconds),
            "p50": ordered[len(ordered) // 2] * 1e3,
            "p99": ordered[-1] * 1e3,
            "cpu": cpu * 1e6 / (count * SIZE),
        }

    def resolve(self) -> Sample:
        """Resolve alone."""
        with self._bystander() as running:
            return _seen(running)

    def resolve_beside(self, method: str) -> Sample:
        """Resolve while requests go on, one after the other."""
        make = (self._make[method](next(self._tags)) for _ in itertools.count())
        with self._bystander() as running:
            requests = itertools.takewhile(lambda _: running.poll() is None, make)
            sent = asyncio.run(send(self._server.address, self._rig.guard.headers, method, requests))
            return {**_seen(running), "rate": len(sent) * SIZE / BYSTANDER_SECONDS}

    @contextmanager
    def _bystander(self) -> Iterator["subprocess.Popen[str]"]:
        token = self._rig.guard.headers["authorization"].removeprefix("Bearer ")
        command = [sys.executable, "-m", "tests.bench.bystander", self._server.address, str(BYSTANDER_SECONDS), token]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
            try:
                yield running
            finally:
                running.kill()


def import_of(tag: str) -> bytes:
    (chunk,) = made(routes(tag, SIZE), Existing.UPDATE, "", "")
    return chunk.request.SerializeToString()


def commit_of(tag: str) -> bytes:
    """Create the same routes as ``import_of``."""
    creates = [
        pb.CreateRequest(key=_key(each.key), url=each.url, labels=each.labels or {}) for each in routes(tag, SIZE)
    ]
    return pb.CommitRequest(mutations=[pb.Mutation(create=each) for each in creates]).SerializeToString()


def update_of(tag: str) -> bytes:
    updates = [pb.UpdateRequest(key=_key(each.key), url=f"{each.url}/new") for each in routes(tag, SIZE)]
    return pb.CommitRequest(mutations=[pb.Mutation(update=each) for each in updates]).SerializeToString()


def _key(key: object) -> RouteKey:
    tenant, service, env, version = str(key).split("/")
    return RouteKey(tenant=tenant, service=service, env=env, version=version)


def _seen(running: "subprocess.Popen[str]") -> Sample:
    output, _ = running.communicate(timeout=PATIENCE_SECONDS)
    if running.returncode:
        raise Refused("the bystander failed")
    seen = json.loads(output)
    if seen["failures"]:
        raise Refused(f"calls of the bystander failed: {seen['failures']}")
    return {"p50": seen["p50"], "p99": seen["p99"], "rate": seen["calls"] / BYSTANDER_SECONDS}


async def send(
    address: str, headers: Mapping[str, str], method: str, requests: "Iterator[bytes] | list[bytes]"
) -> list[float]:
    """Send requests one after the other; return the seconds that each took. Raises Refused when one is not OK."""
    took: list[float] = []
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        call = channel.unary_unary(METHODS[method])
        try:
            for request in requests:
                begun = time.perf_counter()
                await call(request, metadata=tuple(headers.items()), timeout=PATIENCE_SECONDS)
                took.append(time.perf_counter() - begun)
        except grpc.aio.AioRpcError as error:
            raise Refused(f"{method} failed: {error.code().name}: {error.details()}") from error
    return took
