"""What ``pointsman.channel`` costs a call, beside a plain channel to the same backend.

Each run calls through all channels in turn, one call after another, so that they see the same machine, and compares the
medians. The backend has a process of its own; the near-cache follows a server, which nobody changes meanwhile.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, contextmanager
from functools import partial
from statistics import median
from typing import Any

import grpc
import grpc.aio

import pointsman
import pointsman.aio
from pointsman import AsyncClient, Client, NearCache
from tests.bench.contests import Contest, Row, Sample, no_more_than
from tests.bench.rig import Rig
from tests.support.xds_clients.backend import METHOD
from tests.support.xds_clients.backends import backends

TENANT = "channels"
FAMILY = f"{TENANT}/echo/prod"
KEY = f"{FAMILY}/v1"
SECONDS = 20.0
WARM_UP = 100
MOST = 1.1
REQUEST = b"0"


@contextmanager
def part(rig: Rig) -> Iterator[Contest]:
    """Measure calls by threads and by asyncio, of a route and of a family whose traffic is divided."""
    with ExitStack() as stack:
        server = stack.enter_context(rig.server("envoy", guarded=False, pinned=False))
        address = f"127.0.0.1:{stack.enter_context(backends()).open('one')}"
        client = stack.enter_context(Client(server.address))
        for version in ("v1", "v2"):
            client.update(f"{FAMILY}/{version}", url=f"http://{address}", allow_missing=True)
        client.set_traffic(FAMILY, {"v1": 9_000, "v2": 1_000})
        cache = stack.enter_context(client.cached(tenants=[TENANT]))
        cache.wait_ready(SECONDS)
        contestants: dict[str, Callable[[], Sample]] = {
            "threads": partial(_threads, cache, address, rig.seconds),
            "asyncio": lambda: asyncio.run(_asyncio(server.address, address, rig.seconds)),
        }
        yield Contest("A call through a channel over the near-cache", contestants, _rows())


def _rows() -> list[Row]:
    what = "times as long as through a plain channel"
    target = no_more_than(MOST)
    return [
        Row("channel.route", f"threads: of a route, {what}", "threads", target, figure="route", unit="×"),
        Row("channel.family", f"threads: of a family, 90 to 10, {what}", "threads", target, figure="family", unit="×"),
        Row("channel.async", f"asyncio: of a route, {what}", "asyncio", target, figure="route", unit="×"),
    ]


def _threads(cache: NearCache, address: str, seconds: float) -> Sample:
    with (
        grpc.insecure_channel(address) as plain,
        pointsman.channel(KEY, cache=cache) as route,
        pointsman.channel(FAMILY, cache=cache) as family,
    ):
        channels = {"plain": plain, "route": route, "family": family}
        calls: dict[str, Any] = {name: each.unary_unary(METHOD) for name, each in channels.items()}
        times: dict[str, list[float]] = {name: [] for name in calls}
        end = time.perf_counter() + seconds * len(calls)
        while time.perf_counter() < end:
            for name, call in calls.items():
                begun = time.perf_counter()
                call(REQUEST, timeout=SECONDS)
                times[name].append(time.perf_counter() - begun)
        return _compared(times)


async def _asyncio(server: str, address: str, seconds: float) -> Sample:
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(AsyncClient(server))
        cache = await stack.enter_async_context(client.cached(tenants=[TENANT]))
        await cache.wait_ready(SECONDS)
        plain = await stack.enter_async_context(grpc.aio.insecure_channel(address))
        route = await stack.enter_async_context(pointsman.aio.channel(KEY, cache=cache))
        calls: dict[str, Callable[..., Awaitable[Any]]] = {
            name: each.unary_unary(METHOD) for name, each in {"plain": plain, "route": route}.items()
        }
        times: dict[str, list[float]] = {name: [] for name in calls}
        end = time.perf_counter() + seconds * len(calls)
        while time.perf_counter() < end:
            for name, call in calls.items():
                begun = time.perf_counter()
                await call(REQUEST, timeout=SECONDS)
                times[name].append(time.perf_counter() - begun)
        return _compared(times)


def _compared(times: Mapping[str, list[float]]) -> Sample:
    """Return the medians over that of the plain channel, and calls per second of that."""
    medians = {name: median(each[WARM_UP:]) for name, each in times.items()}
    ratios = {name: each / medians["plain"] for name, each in medians.items() if name != "plain"}
    return {"rate": 1 / medians["plain"], **ratios}
