"""Everything that is measured, up and running: the engines, the table of routes, and three servers a transport."""

import asyncio
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pointsman_server import demo, embedded
from pointsman_server.adapters.migrations import migrate
from pointsman_server.app import App
from pointsman_server.telemetry import logs
from tests.bench import cores, requests
from tests.bench.children import Child, child
from tests.support.servers import settings

TRANSPORTS = ("grpcio", "native")

# Both servers run as in production, but for how long the local cache holds on to a route: in one for the whole run,
# in the other for less than a call takes, so that every call goes to Redis. There, nothing may expire meanwhile.
COMMON = {
    "POINTSMAN_LISTEN": "127.0.0.1:0",
    "POINTSMAN_HTTP_LISTEN": "127.0.0.1:0",
    "POINTSMAN_LOG_FORMAT": "json",
    "POINTSMAN_REDIS_TIMEOUT_SECONDS": "5",
    "POINTSMAN_CACHE_TTL_SECONDS": "86400",
}
HOLDING_SECONDS = "3600"
FORGETFUL_SECONDS = "0.000001"


@dataclass(frozen=True, slots=True)
class Servers:
    """The servers of one transport."""

    noop: Child
    holding: Child
    forgetful: Child


@dataclass(frozen=True, slots=True)
class Rig:
    """What runs: servers by transport, and the processes of the engines."""

    servers: Mapping[str, Servers]
    engines: tuple[int, ...]


@contextmanager
def rig(work: Path, core: int | None) -> Iterator[Rig]:
    """Run it all on one core until the block ends. Raises EngineError and ChildFailed."""
    logs.configure("warning", "console")
    with ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pointsman-bench-")))
        with cores.pinned(core):
            engines = stack.enter_context(embedded.start(data, ("postgres", "redis")))
        load_routes(engines.urls)
        with cores.pinned(core):
            servers = {transport: _start(stack, transport, engines.urls, work) for transport in TRANSPORTS}
        pids = tuple(pid for name, pid in engines.pids.items() if name != "keeper")
        yield Rig(servers, pids)


def load_routes(urls: Mapping[str, str]) -> None:
    """Make the tables, and fill them with the demo's routes."""
    migrate(urls["DATABASE_URL"])

    async def load() -> None:
        async with App(settings(database_url=urls["DATABASE_URL"], redis_url=urls["REDIS_URL"])) as app:
            await demo.load(app.changer, requests.ROUTES)

    asyncio.run(load())


def _start(stack: ExitStack, transport: str, urls: Mapping[str, str], work: Path) -> Servers:
    serve = ["pointsman_server", "serve", "--roles", "api", "--transport", transport]

    def start(ttl: str, name: str) -> Child:
        environment = COMMON | dict(urls) | {"POINTSMAN_CACHE_LOCAL_TTL_SECONDS": ttl}
        return stack.enter_context(child(serve, work / f"{transport}-{name}.log", environment))

    noop = stack.enter_context(child(["tests.bench.noop", transport], work / f"{transport}-noop.log"))
    return Servers(noop, start(HOLDING_SECONDS, "holding"), start(FORGETFUL_SECONDS, "forgetful"))
