"""Another client, while somebody abuses the server: ``python -m tests.bench.bystander 127.0.0.1:50051 4``.

It resolves routes for some seconds at a fixed rate, whatever becomes of the calls before (an open loop), and counts
each call from when it was due: a server that stands still is charged for every call that it delays. It runs before
everything else on its core where it may (SCHED_RR). It prints a line when it begins, after every route was resolved
once and is cached, and one line of JSON in the end.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass

import grpc

from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from tests.bench import cores, requests

RATE = 200
KEYS = 200
BEGINS = "begins"
PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What a run saw: percentiles in milliseconds, how many calls were made, what failed how often, and
    whether it went first.
    """

    p50: float
    p99: float
    calls: int
    failures: dict[str, int]
    first: bool


class Bystander:
    """Calls, and remembers how long each took."""

    def __init__(self, channel: grpc.aio.Channel, token: str, *, first: bool) -> None:
        self._stub = RouteServiceStub(channel)
        self._requests = requests.resolves()[:KEYS]
        self._metadata = [("authorization", f"Bearer {token}")]
        self._milliseconds: list[float] = []
        self._failures: Counter[str] = Counter()
        self._first = first

    async def run(self, seconds: float) -> Seen:
        """Call for some seconds, and wait for all the answers."""
        for number in range(KEYS):
            await self._call(number, time.perf_counter())
        self._milliseconds.clear()
        self._failures.clear()
        print(BEGINS, flush=True)
        await self._calls(seconds)
        ordered = sorted(self._milliseconds)
        p50, p99 = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]
        return Seen(p50, p99, len(ordered), dict(self._failures), self._first)

    async def _calls(self, seconds: float) -> None:
        begun = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(int(seconds * RATE)):
                due = begun + number / RATE
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                group.create_task(self._call(number, due))

    async def _call(self, number: int, due: float) -> None:
        request = self._requests[number % KEYS]
        try:
            await self._stub.Resolve(request, timeout=PATIENCE_SECONDS, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            self._failures[f"{error.code().name}: {error.details()}"] += 1
        self._milliseconds.append((time.perf_counter() - due) * 1000)


async def main(address: str, seconds: float, token: str) -> None:
    """Measure and print."""
    first = cores.go_first()
    async with grpc.aio.insecure_channel(address) as channel:
        print(json.dumps(asdict(await Bystander(channel, token, first=first).run(seconds))))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else ""))
