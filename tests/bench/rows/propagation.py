"""From a commit to an answer of another server's local cache, at a steady rate of changes.

Two servers, A and B, share PostgreSQL, Redis and an Apache Kafka of one broker. A changes routes that B holds, and
B is asked for them again and again until it answers the change, from its local cache. The clock starts at the route's
``update_time``, which PostgreSQL takes before it commits, so the commit itself is in the figure. The cores are shared
by all of it, which nothing is pinned against: it is a figure of a small machine.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from statistics import quantiles
from typing import Any

import grpc

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import RouteKey
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from tests.bench import requests
from tests.bench.children import Child, ChildFailed
from tests.bench.contests import Contest, Refused, Row, Sample, no_more_than
from tests.bench.rig import Rig
from tests.support import kafka

CHANGES_PER_SECOND = 200
# The last changes are answered a little after the time is up.
LEAST_RATE = 0.9
ROUTES = 1000
PATIENCE_SECONDS = 20.0
# A poll may not be the bound of what it measures, nor take the core from whom it watches.
PAUSE_SECONDS = 0.0005
LOCAL = pb.Provenance.SOURCE_LOCAL
ANNOUNCE = {"POINTSMAN_CACHE_LOCAL_SIZE": "100000"}


@contextmanager
def part(rig: Rig) -> Iterator[Contest]:
    """Measure the Envoy door."""
    with ExitStack() as stack:
        # Not librdkafka's own broker: that answers who waits for messages when his time is up, not when there are any.
        if problem := kafka.available():
            raise ChildFailed(problem)
        broker = stack.enter_context(kafka.running_broker())
        chosen = {"KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers} | ANNOUNCE
        writer = stack.enter_context(rig.server("envoy", roles="api,relay", pinned=False, chosen=chosen))
        reader = stack.enter_context(rig.server("envoy", pinned=False, chosen=chosen))
        what = f"at {CHANGES_PER_SECOND} changes/s"
        yield Contest(
            "From a commit to another server's local cache",
            {"Kafka": _watch(rig, writer, reader)},
            [
                Row("reach.p50", f"{what}, p50", "Kafka", no_more_than(15), figure="p50", unit="ms"),
                Row("reach.p99", f"{what}, p99", "Kafka", no_more_than(50), figure="p99", unit="ms"),
            ],
            rounds=3,
        )


def _watch(rig: Rig, writer: Child, reader: Child) -> Callable[[], Sample]:
    seconds = max(2.0, rig.seconds * 2)
    return lambda: asyncio.run(_Watch(writer, reader, rig.guard.headers).run(seconds))


class _Watch:
    """One run: changes through one server, and polls of the other."""

    def __init__(self, writer: Child, reader: Child, headers: Mapping[str, str]) -> None:
        self._writer, self._reader = writer, reader
        self._metadata = tuple(headers.items())
        self._awaited: dict[str, tuple[RouteKey, int, float]] = {}
        self._delays: list[float] = []
        self._elsewhere = 0
        self._changed = 0

    async def run(self, seconds: float) -> Sample:
        """Change and poll. Raises Refused when a change never arrives, or the rate was not kept."""
        async with (
            grpc.aio.insecure_channel(self._writer.address) as to_writer,
            grpc.aio.insecure_channel(self._reader.address) as to_reader,
        ):
            writes, reads = RouteServiceStub(to_writer), RouteServiceStub(to_reader)
            keys = requests.keys("reach", ROUTES)
            await self._prepare(writes, reads, keys)
            polling = asyncio.create_task(self._poll(reads))
            begun = time.perf_counter()
            await self._change(writes, keys, seconds)
            took = time.perf_counter() - begun
            await self._settle(polling)
        return self._sample(took)

    async def _prepare(self, writes: Any, reads: Any, keys: list[RouteKey]) -> None:
        for key in keys:
            change = pb.UpdateRequest(key=key, url=requests.URL, allow_missing=True)
            await writes.Update(change, metadata=self._metadata)
        give_up = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < give_up:
            answer = await reads.BatchResolve(pb.BatchResolveRequest(keys=keys), metadata=self._metadata)
            if all(result.route.url and result.provenance.source == LOCAL for result in answer.results):
                return
            await asyncio.sleep(0.1)
        raise Refused("the reader does not hold the routes in its local cache")

    async def _change(self, writes: Any, keys: list[RouteKey], seconds: float) -> None:
        """Change at the rate asked for, whatever the answers take."""
        begun, changes = time.perf_counter(), set()
        for number in range(round(CHANGES_PER_SECOND * seconds)):
            await asyncio.sleep(max(0.0, begun + number / CHANGES_PER_SECOND - time.perf_counter()))
            key = keys[number % len(keys)]
            changes.add(asyncio.create_task(self._update(writes, key, f"{requests.URL}/{time.time_ns()}")))
        await asyncio.gather(*changes)

    async def _update(self, writes: Any, key: RouteKey, url: str) -> None:
        answer = await writes.Update(pb.UpdateRequest(key=key, url=url), metadata=self._metadata)
        made = answer.route.update_time.ToNanoseconds() / 1e9
        self._awaited[key.service] = (key, answer.route.revision, made)
        self._changed += 1

    async def _poll(self, reads: Any) -> None:
        while True:
            awaited = list(self._awaited.values())
            if awaited:
                asked = pb.BatchResolveRequest(keys=[key for key, _, _ in awaited])
                answer = await reads.BatchResolve(asked, metadata=self._metadata)
                self._take(answer.results, time.time())
            await asyncio.sleep(PAUSE_SECONDS)

    def _take(self, results: Any, now: float) -> None:
        for result in results:
            _, revision, made = self._awaited[result.key.service]
            if result.route.revision < revision:
                continue
            del self._awaited[result.key.service]
            if result.provenance.source == LOCAL:
                self._delays.append((now - made) * 1000)
            else:
                self._elsewhere += 1

    async def _settle(self, polling: asyncio.Task[None]) -> None:
        give_up = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < give_up and not polling.done():
            if not self._awaited:
                break
            await asyncio.sleep(0.01)
        polling.cancel()
        await asyncio.gather(polling, return_exceptions=True)
        if self._awaited:
            raise Refused(f"{len(self._awaited)} changes never arrived")

    def _sample(self, took: float) -> Sample:
        if self._elsewhere > len(self._delays) / 100:
            raise Refused(f"{self._elsewhere} of {self._changed} changes were answered by another layer")
        percentiles, rate = quantiles(self._delays, n=100), self._changed / took
        p50, p99 = percentiles[49], percentiles[98]
        if rate < CHANGES_PER_SECOND * LEAST_RATE:
            raise Refused(f"only {rate:.0f} changes/s were made, which took {p50:.0f} ms, p99 {p99:.0f} ms, to arrive")
        return {"p50": p50, "p99": p99, "rate": rate}
