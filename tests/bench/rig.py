"""What is measured, up and running: engines with the demo's routes, and servers of every kind on one core."""

import asyncio
import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pointsman_server import embedded
from pointsman_server.adapters.postgres.migrations import migrate
from pointsman_server.app.application import App
from pointsman_server.cli import demo_routes
from pointsman_server.domain.traffic import Division, Target
from pointsman_server.ports.store import Intent
from pointsman_server.telemetry import logs
from pointsman_server.writes.mutations import SetTraffic
from tests.bench import cores, etcd, grpc_go, noop, requests
from tests.bench.children import Child, child, cpu_seconds
from tests.bench.contests import Sample
from tests.bench.generators import Load
from tests.bench.tls import Pair
from tests.support import issuer
from tests.support.servers import settings

T = TypeVar("T")

TRANSPORTS = ("grpcio", "envoy")

# As in production, but that nothing in Redis may expire meanwhile. How long the local cache holds on to a route says
# which layer answers: for the whole run, or for less than a call takes, so that every call goes to Redis.
COMMON = {
    "POINTSMAN_LISTEN": "127.0.0.1:0",
    "POINTSMAN_HTTP_LISTEN": "127.0.0.1:0",
    "POINTSMAN_LOG_FORMAT": "json",
    "POINTSMAN_REDIS_TIMEOUT_SECONDS": "5",
    "POINTSMAN_CACHE_TTL_SECONDS": "86400",
}
HOLDING_SECONDS = "3600"
FORGETFUL_SECONDS = "0.000001"
# Rates are counted and never reached.
RATES = {
    f"POINTSMAN_RATE_{whose}_{what}": "1000000" for whose in ("IDENTITY", "TENANT") for what in ("READS", "WRITES")
}
TOKEN_SECONDS = 86_400
POLICY = """\
[[grant]]
subjects = ["jwt:checkout"]
roles = ["reader", "writer"]
tenants = ["*"]

[[grant]]
subjects = ["key:ci-*", "jwt:somebody-else"]
roles = ["reader"]
tenants = ["team-a", "team-b"]
"""


@dataclass(frozen=True, slots=True)
class Guard:
    """Authentication and permissions: the settings that turn them on, and a token that passes."""

    settings: Mapping[str, str]
    headers: Mapping[str, str]

    @classmethod
    def write(cls, directory: Path) -> "Guard":
        """Write the keys of an issuer and a policy, and sign a token."""
        key = issuer.SigningKey()
        jwks, policy = directory / "jwks.json", directory / "policy.toml"
        jwks.write_bytes(issuer.jwks(key))
        policy.write_text(POLICY)
        chosen = {
            "POINTSMAN_JWT_ISSUER": issuer.ISSUER,
            "POINTSMAN_JWT_AUDIENCE": issuer.AUDIENCE,
            "POINTSMAN_JWT_JWKS_FILE": str(jwks),
            "POINTSMAN_POLICY_FILE": str(policy),
        }
        good = issuer.good_claims()
        token = key.token(exp=good["iat"] + TOKEN_SECONDS)
        return cls(chosen, {"authorization": f"Bearer {token}"})


@dataclass(frozen=True, slots=True)
class Rig:
    """The engines, where everything runs, and for how long. ``h2load`` is None where it is missing."""

    work: Path
    urls: Mapping[str, str]
    engines: tuple[int, ...]
    guard: Guard
    seconds: float
    quick: bool = False
    h2load: Path | None = None
    has_etcd: bool = False
    has_grpc_go: bool = False
    server_core: int | None = None
    load_core: int | None = None
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @contextmanager
    def server(
        self,
        transport: str,
        *,
        guarded: bool = True,
        roles: str = "api",
        pinned: bool = True,
        chosen: Mapping[str, str] | None = None,
    ) -> Iterator[Child]:
        """Run ``pointsman-server serve``, everything on; without ``guarded`` anybody may call. Raises ChildFailed."""
        environment = COMMON | dict(self.urls) | RATES | {"POINTSMAN_CACHE_LOCAL_TTL_SECONDS": HOLDING_SECONDS}
        environment |= dict(self.guard.settings) if guarded else {}
        serve = ["pointsman_server", "serve", "--roles", roles, "--transport", transport]
        core = self.server_core if pinned else None
        with _started(core, child(serve, self.log(transport), environment | dict(chosen or {}))) as running:
            yield running

    @contextmanager
    def noop(self, transport: str, chosen: Mapping[str, str] | None = None) -> Iterator[Child]:
        """Run the floor of a transport. Raises ChildFailed."""
        floor = child(["tests.bench.noop", transport], self.log("noop"), chosen)
        with _started(self.server_core, floor) as running:
            yield running

    @contextmanager
    def grpc_go(self, pair: Pair | None = None) -> Iterator[Child]:
        """Run the no-op of grpc-go, over TLS with ``pair``. Raises ChildFailed."""
        answer = self.work / "answer.bin"
        answer.write_bytes(noop.answer().SerializeToString())
        files = [f"--cert={pair.cert}", f"--key={pair.key}"] if pair else []
        command = [str(grpc_go.program()), f"--answer={answer}", *files]
        starting = child(command, self.log("grpc-go"), {"GOMAXPROCS": "1"}, module=False)
        with _started(self.server_core, starting) as running:
            yield running

    @contextmanager
    def etcd(self) -> Iterator[etcd.Etcd]:
        """Run etcd, with as many cores as our server has. Raises ChildFailed."""
        with _started(self.server_core, etcd.running(self.work / f"etcd-{next(self._numbers)}")) as member:
            yield member

    def log(self, name: str) -> Path:
        """Return the path of a new file."""
        return self.work / f"{next(self._numbers)}-{name}.log"

    def measure(self, pid: int, load: Callable[[], Load], *, each: int = 1) -> Sample:
        """Load a server, from the core of the generators, and see what it takes. A call is about ``each`` things."""
        before, engines = cpu_seconds([pid]), cpu_seconds(self.engines)
        with cores.pinned(self.load_core):
            seen = load()
        spent, engines = cpu_seconds([pid]) - before, cpu_seconds(self.engines) - engines
        return {
            "rate": seen.rate * each,
            "p50": seen.p50,
            "p99": seen.p99,
            "cpu": spent / seen.calls / each * 1e6,
            "engines": engines / seen.calls / each * 1e6,
            "busy": (spent + engines) / seen.seconds,
            "generator": seen.cpu / seen.seconds,
        }


@contextmanager
def _started(core: int | None, starting: AbstractContextManager[T]) -> Iterator[T]:
    """Start something on a core, where it stays; what is started after it need not be there."""
    with ExitStack() as stack:
        with cores.pinned(core):
            running = stack.enter_context(starting)
        yield running


@contextmanager
def engines(server_core: int | None) -> Iterator[embedded.Engines]:
    """Run PostgreSQL, durable, and Redis on one core, with the demo's routes. Raises EngineError."""
    logs.configure("warning", "console")
    with ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pointsman-bench-")))
        with cores.pinned(server_core):
            running = stack.enter_context(embedded.start(data, ("postgres", "redis")))
        load_routes(running.urls)
        yield running


def load_routes(urls: Mapping[str, str]) -> None:
    """Make the tables, and fill them with the demo's routes, and traffic for one of the families."""
    migrate(urls["DATABASE_URL"])

    async def load() -> None:
        async with App(settings(database_url=urls["DATABASE_URL"], redis_url=urls["REDIS_URL"])) as app:
            await demo_routes.load(app.committer, requests.ROUTES)
            division = Division((Target("v2", 9000), Target("v3-canary", 1000)))
            await app.committer.set_traffic(SetTraffic(requests.DIVIDED, division), Intent("benchmark"))

    asyncio.run(load())


def pids(running: embedded.Engines) -> tuple[int, ...]:
    """List the processes whose time is that of the engines."""
    return tuple(pid for name, pid in running.pids.items() if name != "keeper")
