"""What it costs to count who reads which route: with and without it, in turn, in one process and one run.

``python -m tests.bench.usage``. A call is a hit from ASGI event to ASGI event, without Envoy; that and the kernel take
more of a whole one. Counts are taken every FLUSH_SECONDS of a server that is loaded to the full, and given to Redis'
client as they are in a server: that is in the second figure.
"""

import time
from collections.abc import Awaitable, Callable
from statistics import median

from pointsman_server.domain.codec import key_to_bytes
from pointsman_server.domain.routes import RouteKey
from pointsman_server.ports.usage_log import Reads
from pointsman_server.reads.read_counts import OFF, ReadCounts
from pointsman_server.reads.usage import FLUSH_SECONDS, UsageRecorder
from pointsman_server.runtime import event_loop
from pointsman_server.telemetry import logs
from tests.bench import door_steps
from tests.bench.parts import Parts
from tests.support.usage_log import MemoryUsageLog

CALLS = 500
ROUNDS = 2000
# What one core of a server answers within FLUSH_SECONDS, and how many keys it is asked for.
READS = int(15_000 * FLUSH_SECONDS)
KEYS = 10_000

Work = Callable[[], Awaitable[object]]


class NoLog(MemoryUsageLog):
    """Takes what it is given, and does nothing with it."""

    async def add(self, reads: list[Reads]) -> int:  # type: ignore[override]
        return len(reads) - len(reads)


async def main() -> None:
    """Measure, and print."""
    logs.configure("info", "json")
    parts = Parts()
    counts = ReadCounts()
    guards = await parts.guards()
    receive = door_steps.receiving(parts)
    works = {
        name: door_steps.hit(parts.door(parts.interceptor(guards, reads)), receive)
        for name, reads in (("without", OFF), ("with", counts), ("without, again", OFF))
    }
    took: dict[str, list[float]] = {name: [] for name in works}
    for number in range(ROUNDS):
        # Each is as often the first as the others.
        names = list(works)[number % 3 :] + list(works)[: number % 3]
        for name in names:
            took[name].append(await _microseconds(works[name]))
        if number * CALLS % READS < CALLS:
            counts.take()
    base = median(took["without"])
    for name, times in took.items():
        more = median(times) - base
        print(f"a hit {name}: {median(times):.3f} µs, {more * 1000:+.0f} ns, {more / base:+.2%}")
    flush = await _flush()
    print(f"a flush of {READS:,} reads of {KEYS:,} keys: {flush / 1000:.1f} ms, {flush / READS * 1000:.0f} ns a read")


async def _microseconds(work: Work) -> float:
    begun = time.thread_time()
    for _ in range(CALLS):
        await work()
    return (time.thread_time() - begun) / CALLS * 1e6


async def _flush() -> float:
    """Return the microseconds of a flush, without Redis."""
    keys = [key_to_bytes(RouteKey(f"team-{number % 100}", f"service-{number}", "prod", "v1")) for number in range(KEYS)]
    counts = ReadCounts()
    recorder = UsageRecorder(counts, NoLog(time.time), window=1)
    best = float("inf")
    for _ in range(5):
        for number in range(READS):
            counts.read(keys[number * 7919 % KEYS], "jwt:checkout")
        begun = time.thread_time()
        await recorder.flush()
        best = min(best, time.thread_time() - begun)
    return best * 1e6


if __name__ == "__main__":
    event_loop.run(main())
