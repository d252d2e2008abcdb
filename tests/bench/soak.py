"""``python -m tests.bench.soak``: the memory of the server under open streams, many calls, and clients that restart.

Three parts, each with the resident memory of the server before and after:

- streams: 5,000 streams of Health.Watch, opened by a few processes. Target: at most 30 kB each. Also the time of the
  processor while they wait.
- calls: calls of Resolve for some seconds, which stop and go on. Target: no growth after the first tenth.
- restarts: clients that connect, make a hundred calls and end, one after another, some rudely. Target: as for calls.
"""

import argparse
import asyncio
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from pointsman_server import embedded
from pointsman_server.telemetry import logs
from tests.bench import requests
from tests.bench.children import ROOT, Child, child, cpu_seconds
from tests.bench.rig import COMMON, TRANSPORTS, load_routes
from tests.support.memory import MEGABYTE, resident

STREAMS, STREAM_CLIENTS, STREAMS_OF_CHANNEL = 5_000, 5, 500
STREAM_TARGET = 30 << 10
# After warming up: what an allocator keeps is no growth; what each call leaves is, after a million.
GROWTH_TARGET = 8 * MEGABYTE
IN_FLIGHT = 32
CALLS_OF_CLIENT = 100
SETTLE_SECONDS = 2.0
# Until streams that wait are looked after as rarely as they ever are; and how long they are watched from then on.
QUIET_SECONDS, WATCHED_SECONDS = 8.0, 10.0


async def hold_streams(address: str, count: int) -> None:
    """Open streams of Health.Watch, say so, and hold them until the end of the standard input."""
    async with grpc.aio.insecure_channel(address) as first:
        channels = [first]
        calls = []
        for number in range(count):
            if number and number % STREAMS_OF_CHANNEL == 0:
                channels.append(grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]))
            calls.append(health_pb2_grpc.HealthStub(channels[-1]).Watch(health_pb2.HealthCheckRequest()))
            if number % 100 == 99:
                await asyncio.gather(*(call.read() for call in calls[-100:]))
        print("open", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        for channel in channels[1:]:
            await channel.close()


async def call_for(address: str, seconds: float) -> None:
    """Call Resolve, 32 in flight, and print how many calls were made."""
    asked = requests.resolves()[:200]
    end = time.monotonic() + seconds
    made = 0
    async with grpc.aio.insecure_channel(address) as channel:
        stub = RouteServiceStub(channel)

        async def caller() -> None:
            nonlocal made
            for request in itertools.cycle(asked):
                if time.monotonic() > end:
                    return
                await stub.Resolve(request)
                made += 1

        await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
    print(json.dumps(made))


async def restart_for(address: str, seconds: float) -> None:
    """Connect, call and end, again and again; every second client ends in the midst of its calls."""
    request = requests.resolves()[0]
    end = time.monotonic() + seconds
    made = 0
    while time.monotonic() < end:
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(address, options) as channel:
            stub = RouteServiceStub(channel)
            calls = [stub.Resolve(request) for _ in range(CALLS_OF_CLIENT)]
            waited = calls if made % 2 else calls[:1]
            await asyncio.gather(*waited)
        made += 1
    print(json.dumps(made))


def client(work: str, address: str, amount: str) -> subprocess.Popen[str]:
    """Start a client of this module as a process of its own."""
    command = [sys.executable, "-m", "tests.bench.soak", "--client", work, address, amount]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@contextmanager
def streams(address: str, count: int) -> Iterator[None]:
    """Hold streams until the block ends."""
    clients = [client("streams", address, str(count // STREAM_CLIENTS)) for _ in range(STREAM_CLIENTS)]
    try:
        for each in clients:
            assert each.stdout
            assert each.stdout.readline() == "open\n"
        yield
    finally:
        for each in clients:
            each.communicate()


def work(name: str, address: str, seconds: float) -> int:
    """Let one client work; returns how much it did."""
    output, _ = client(name, address, str(seconds)).communicate(timeout=seconds + 60)
    return int(json.loads(output))


def measure_streams(server: Child, count: int) -> Iterator[tuple[str, bool]]:
    """Weigh open streams: once, and again when the first ones have ended."""
    for what in ("streams", "streams, again"):
        before = resident(server.process.pid)
        with streams(server.address, count):
            time.sleep(SETTLE_SECONDS)
            each = (resident(server.process.pid) - before) / count
            share = busy(server)
        time.sleep(SETTLE_SECONDS)
        after = (resident(server.process.pid) - before) / MEGABYTE
        text = (
            f"| {what} | {count:,} | {each / 1024:.1f} kB each, {share:.1%} of a core while they wait "
            f"| {after:+.1f} MB when they have ended |"
        )
        yield text, each <= STREAM_TARGET


def busy(server: Child) -> float:
    """Return how much of a core the server takes while nothing happens."""
    time.sleep(QUIET_SECONDS)
    before = cpu_seconds([server.process.pid])
    time.sleep(WATCHED_SECONDS)
    return (cpu_seconds([server.process.pid]) - before) / WATCHED_SECONDS


def measure_growth(server: Child, name: str, seconds: float) -> tuple[str, bool]:
    """Weigh the server after a tenth of the time, and at its end."""
    work(name, server.address, seconds / 10)
    before = resident(server.process.pid)
    done = work(name, server.address, seconds)
    growth = resident(server.process.pid) - before
    text = f"| {name} | {done:,} | {before / MEGABYTE:.0f} MB before | {growth / MEGABYTE:+.1f} MB |"
    return text, growth <= GROWTH_TARGET


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0, help="of calls, and again of restarts (%(default)s)")
    parser.add_argument("--streams", type=int, default=STREAMS, help="open at once (%(default)s)")
    parser.add_argument("--transport", choices=TRANSPORTS, default="envoy", help="(%(default)s)")
    parser.add_argument("--client", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Measure and print; 1 when a target is missed."""
    chosen = options()
    if chosen.client:
        name, address, amount = chosen.client
        clients = {"calls": call_for, "restarts": restart_for}
        asyncio.run(hold_streams(address, int(amount)) if name == "streams" else clients[name](address, float(amount)))
        return 0
    logs.configure("warning", "console")
    fine = True
    with ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pointsman-soak-")))
        engines = stack.enter_context(embedded.start(data, ("postgres", "redis")))
        load_routes(engines.urls)
        serve = ["pointsman_server", "serve", "--roles", "api", "--transport", chosen.transport]
        server = stack.enter_context(child(serve, data / "server.log", {**COMMON, **engines.urls}))
        print(f"| {chosen.transport} | how many | memory | |", "|---|--:|--:|--:|", sep="\n", flush=True)
        work("calls", server.address, 1)
        for text, met in measure_streams(server, chosen.streams):
            print(text, "" if met else "missed", flush=True)
            fine &= met
        for name in ("calls", "restarts"):
            text, met = measure_growth(server, name, chosen.seconds)
            print(text, "" if met else "missed", flush=True)
            fine &= met
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
