"""Load for the compose stack, so that the dashboards move: reads, changes, watchers, xDS, and calls that fail.

POINTSMAN_SERVER says where the server is, POINTSMAN_XDS_SERVER where it serves xDS. It runs until SIGTERM or Ctrl-C,
or for ``--seconds``, and waits for a server that is away. Every ten seconds it prints what it did.
"""

import argparse
import asyncio
import contextlib
import itertools
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass

import grpc

from pointsman import AsyncClient, PointsmanError, xds

KEYS = tuple(
    f"{tenant}/{service}/{env}/{version}"
    for tenant in ("team-a", "team-b", "team-c")
    for service in ("checkout", "payments", "inventory", "search", "accounts")
    for env in ("staging", "prod")
    for version in ("v1", "v2")
)
TENANTS = sorted({key.partition("/")[0] for key in KEYS})
# Callers with a table of their own, which they keep current by Watch.
WATCHERS = 6
READERS = 4
REPORT_SECONDS = 10.0


@dataclass(frozen=True)
class ImportedRoute:
    """One route of an import."""

    key: str
    url: str
    labels: Mapping[str, str] | None = None
    active: bool | None = True
    expected_revision: int = 0


class Load:
    """What callers of a real installation do, and how often each call ended well or not."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self.done: Counter[str] = Counter()

    async def prepare(self) -> None:
        """Import the routes, as soon as there is a server."""
        imported = False
        while not imported:
            imported = await self._import()
            await asyncio.sleep(0 if imported else 1)

    async def import_again(self) -> None:
        """Import the routes every half minute, as from a file that is kept elsewhere."""
        while True:
            await asyncio.sleep(30)
            await self._import()

    async def read(self) -> None:
        """Resolve one route: some often, most seldom."""
        for number in itertools.count():
            await self._counted("resolve", self._client.resolve(KEYS[number * number % len(KEYS)]))
            await asyncio.sleep(0.02)

    async def read_many(self) -> None:
        """Resolve all routes of a tenant at once, as at a start."""
        for tenant in itertools.cycle(TENANTS):
            keys = [key for key in KEYS if key.startswith(f"{tenant}/")]
            await self._counted("batch resolve", self._client.batch_resolve(keys))
            await asyncio.sleep(1)

    async def change(self) -> None:
        """Move one service after another to another address; take a version out and back in."""
        for number, key in zip(itertools.count(2), itertools.cycle(KEYS)):
            change = self._client.update(key, url=url_of(key, number), reason="load")
            await self._counted("update", change)
            if number % 5 == 0:
                await self._counted("deactivate", self._client.deactivate(key, reason="load"))
                await asyncio.sleep(0.5)
                await self._counted("activate", self._client.activate(key, reason="load"))
            await asyncio.sleep(0.5)

    async def fail(self) -> None:
        """Make the mistakes that callers make: an unknown route, a malformed key, a route that exists."""
        mistakes: tuple[Callable[[], Awaitable[object]], ...] = (
            lambda: self._client.resolve("team-a/unknown/prod/v1"),
            lambda: self._client.update(KEYS[0], url="no url"),
            lambda: self._client.create(KEYS[0], url_of(KEYS[0], 1)),
        )
        for mistake in itertools.cycle(mistakes):
            await self._counted("mistake", mistake())
            await asyncio.sleep(2)

    async def report(self) -> None:
        """Print the counts."""
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            print(", ".join(f"{count} {name}" for name, count in sorted(self.done.items())), flush=True)

    async def _import(self) -> bool:
        routes = [ImportedRoute(key, url_of(key, 1)) for key in KEYS]
        return await self._counted("import", self._client.import_routes(routes, reason="load"))

    async def _counted(self, name: str, call: Awaitable[object]) -> bool:
        try:
            await call
        except PointsmanError as error:
            self.done[f"{name}: {type(error).__name__}"] += 1
            return False
        self.done[name] += 1
        return True


def url_of(key: str, number: int) -> str:
    """Return an address of a service, another one for each number."""
    tenant, service, env, version = key.split("/")
    return f"https://{service}-{version}-{number}.{env}.{tenant}.internal:8443"


async def watch(number: int) -> None:
    """Keep the table of a tenant current, as a service with a near-cache does."""
    tenant = TENANTS[number % len(TENANTS)]
    async with (
        AsyncClient.from_environment() as client,
        client.cached(tenants=[tenant], name="load") as table,
    ):
        for key in itertools.cycle(key for key in KEYS if key.startswith(f"{tenant}/")):
            with contextlib.suppress(PointsmanError):
                await table.resolve(key)
            await asyncio.sleep(1)


async def follow() -> None:
    """Keep gRPC channels to some services by xDS, as a program without a library of Pointsman does."""
    xds.configure()
    async with contextlib.AsyncExitStack() as stack:
        for key in KEYS[::12]:
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(xds.target(key)))
            channel.get_state(try_to_connect=True)
        await asyncio.Event().wait()


def parts(load: Load) -> Iterator[Coroutine[None, None, None]]:
    """Return what runs side by side once the routes are there."""
    yield from (load.read() for _ in range(READERS))
    yield from (watch(number) for number in range(WATCHERS))
    yield from (load.read_many(), load.change(), load.import_again(), load.fail(), load.report(), follow())


async def run(load: Load) -> None:
    """Make the routes, then run all parts until this is cancelled, or one of them breaks."""
    await load.prepare()
    async with asyncio.TaskGroup() as group:
        for part in parts(load):
            group.create_task(part)


async def main(seconds: float | None) -> None:
    """Run all of it until a signal, or for ``seconds``."""
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    async with AsyncClient.from_environment() as client:
        running = asyncio.create_task(run(Load(client)))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([running, stopped], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in (running, stopped):
            task.cancel()
        # What broke ends the program with its traceback; that it was stopped does not.
        with contextlib.suppress(asyncio.CancelledError):
            await running


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, help="end after this time, instead of at a signal")
    asyncio.run(main(parser.parse_args().seconds))
