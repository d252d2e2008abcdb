"""The subject: PostgreSQL, Redis, Kafka, proxies and three servers, each a process that we hold by its handle.

Every server reaches PostgreSQL and Redis through proxies of its own, and xDS clients reach servers through others. The
audit log has a database of its own.
"""

import asyncio
import json
import os
import re
import signal
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg
import redis

from pointsman_server.embedded import engines
from tests.faults import redis_nodes
from tests.faults.brokers import Brokers
from tests.faults.history import Era, Row, text_of_traffic
from tests.faults.proxies import Proxies
from tests.faults.redis_nodes import RedisNodes
from tests.support import kafka
from tests.support.processes import ServerProcess, free_port, run

SERVERS = 3
TRANSPORTS = ("envoy", "grpcio")
TOPIC = "route-events"
DATABASE = "pointsman"
AUDIT_DATABASE = "audit"
TTL_LOCAL = 1.0
TTL_SHARED = 20.0
MESSAGE_TIMEOUT = 4.0
READY_SECONDS = 60.0

KEY = "tenant || '/' || service || '/' || env || '/' || version"
CHANGES = f"""
    SELECT revision, {KEY}, kind, request_id, coalesce(after->>'url', ''), coalesce((after->>'active')::boolean, false),
           epoch::text, extract(epoch FROM occurred_at)::float8, change_set_end, change_set_id, change_set_size,
           before, after
    FROM route_changes ORDER BY revision
"""  # noqa: S608 - put together from constants of ours


Connection = psycopg.Connection[tuple[object, ...]]


@dataclass(frozen=True, slots=True)
class Clock:
    """Where the database is, and the relay."""

    epoch: str
    revision: int
    relayed: int


def read_clock(connection: Connection) -> Clock:
    """Read the clock, and how far the relay is."""
    query = "SELECT epoch::text, clock.revision, relay.revision FROM clock, relay"
    ((epoch, revision, relayed),) = connection.execute(query).fetchall()
    return Clock(epoch, revision, relayed)  # type: ignore[arg-type]


def read_rows(connection: Connection) -> list[Row]:
    """Read the whole history."""
    rows = [Row(*row) for row in connection.execute(CHANGES)]  # type: ignore[arg-type]
    for row in rows:
        if row.of_traffic and row.after:
            row.url = text_of_traffic(row.after)
    return rows


class _FixedPort(engines.Engine):
    """An engine that keeps its port from one start to the next."""

    def reserve_port(self) -> None:
        """Choose a port the first time only."""
        if not self.port:
            super().reserve_port()

    async def started(self) -> None:
        """Start, and wait until it answers."""
        self.start()
        async with asyncio.timeout(READY_SECONDS):
            while not self.ready():  # noqa: ASYNC110 - the engine is another process
                await asyncio.sleep(0.02)

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to the process and to all its children."""
        assert self.process
        main = psutil.Process(self.process.pid)
        for process in (main, *main.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    async def end(self, number: signal.Signals) -> None:
        """Send a signal to the main process and wait for the end."""
        assert self.process
        self.process.send_signal(number)
        await asyncio.to_thread(self.process.wait, 30)


class Postgres(_FixedPort, engines.Postgres):
    """PostgreSQL on a fixed port, durable."""


class Redis(_FixedPort, engines.Redis):
    """Redis on a fixed port, empty after every start."""

    @property
    def ports(self) -> list[int]:
        """The port."""
        return [self.port]

    def pause(self) -> None:
        """Stop it."""
        self.signal_all(signal.SIGSTOP)

    async def resume(self) -> None:
        """Let it go on."""
        self.signal_all(signal.SIGCONT)

    def clients(self) -> list["redis.Redis"]:
        """Open a connection of our own."""
        return [redis.Redis(port=self.port, socket_timeout=5)]


class Server:
    """One ``pointsman-server serve`` with all roles. ``life`` changes with every start."""

    def __init__(self, number: int, environ: Mapping[str, str]) -> None:
        self.number = number
        self.port, self._http_port, self.xds_port = free_port(), free_port(), free_port()
        self._environ = {
            **environ,
            "POINTSMAN_LISTEN": f"127.0.0.1:{self.port}",
            "POINTSMAN_HTTP_LISTEN": f"127.0.0.1:{self._http_port}",
            "POINTSMAN_XDS_LISTEN": f"127.0.0.1:{self.xds_port}",
        }
        self._lives = 0
        self.process: ServerProcess | None = None
        self.errors: list[str] = []

    @property
    def address(self) -> str:
        """Where gRPC is."""
        return f"127.0.0.1:{self.port}"

    @property
    def life(self) -> str:
        """The name of this life of this server; empty while there is none."""
        return f"{self.number}.{self._lives}" if self.process else ""

    async def start(self) -> None:
        """Start on the same ports as ever, and wait until it serves."""
        self.begin()
        await self.serves()

    def begin(self) -> None:
        """Start on the same ports as ever, whether or not it can serve."""
        self.process = ServerProcess(("serve",), self._environ)
        self._lives += 1

    async def serves(self) -> None:
        """Wait until it serves."""
        assert self.process
        await asyncio.to_thread(self.process.wait_for_log, "serving")

    async def stop(self, number: signal.Signals) -> None:
        """End it by a signal."""
        process, self.process = self.process, None
        if process:
            await asyncio.to_thread(process.stop, number)
            self._keep_errors(process)
            process.close()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self.process
        self.process.process.send_signal(number)

    def metric(self, pattern: str) -> float:
        """Add up the samples of a metric; 0 when there is none or no answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._http_port}/metrics", timeout=2) as response:
                text = response.read().decode()
        except OSError:
            return 0.0
        return sum(float(value) for value in re.findall(rf"^{pattern} (\S+)$", text, re.MULTILINE))

    def close(self) -> None:
        """End it, even if it is stopped or deaf."""
        if self.process:
            with suppress(ProcessLookupError):
                self.signal(signal.SIGCONT)
            self._keep_errors(self.process)
            self.process.stop(signal.SIGKILL)
            self.process.close()
            self.process = None

    def _keep_errors(self, process: ServerProcess) -> None:
        self.errors += [line for line in process.errors.splitlines() if '"error"' in line or "Traceback" in line]


class Rig:
    """Everything that runs. ``close`` ends whatever was started, however far ``start`` came.

    ``transport``: that of every server; without it they alternate. ``brokers``: those of Kafka.
    """

    def __init__(
        self, server_path: str = "", transport: str = "", brokers: int = 1, *, redis_cluster: bool = False
    ) -> None:
        paths = [*filter(None, [server_path]), *([str(redis_nodes.SITE)] if redis_cluster else [])]
        self._path = {"PYTHONPATH": os.pathsep.join(paths)} if paths else {}
        self._redis_scheme = "redis+cluster" if redis_cluster else "redis"
        self._transports = (transport,) if transport else TRANSPORTS
        self._directory = tempfile.TemporaryDirectory(prefix="pointsman-faults-", ignore_cleanup_errors=True)
        place = Path(self._directory.name)
        (place / "logs").mkdir()
        (place / "kafka").mkdir()
        self._lock = os.open(place / "lock", os.O_CREAT | os.O_RDWR)
        site = engines.Site(data=place, lock=self._lock)
        self.postgres, self.kafka = Postgres(site), Brokers(place / "kafka", brokers)
        self.redis = RedisNodes(place / "redis-nodes") if redis_cluster else Redis(site)
        self.proxies = Proxies()
        self.servers: list[Server] = []
        self.eras: list[Era] = []
        self._xds_ports: list[int] = []
        # What we wrote into the topic that is no change, by partition and offset.
        self.poison: dict[tuple[int, int], bytes] = {}

    async def start(self) -> None:
        """Start engines, migrate, start servers."""
        kafka.fetch()
        self.kafka.start()
        await asyncio.gather(self.postgres.started(), self.redis.started())
        await asyncio.to_thread(self.kafka.wait_ready)
        with self.connect("postgres") as connection:
            connection.execute(f"CREATE DATABASE {AUDIT_DATABASE}")
        migrated = await asyncio.to_thread(self.command, "migrate")
        assert migrated.returncode == 0, migrated.stderr
        with self.connect() as connection:
            self.eras.append(Era(read_clock(connection).epoch))
        for number in range(SERVERS):
            ways = {
                port: self.proxies.open(f"redis-{number}-{node}", port) for node, port in enumerate(self.redis.ports)
            }
            postgres_port = self.proxies.open(f"postgres-{number}", self.postgres.port)
            transport = self._transports[number % len(self._transports)]
            # Nodes of a cluster are named by their own ports, also by each other.
            ports = list(ways) if self._redis_scheme == "redis+cluster" else list(ways.values())
            environ = self._environ(ports, postgres_port) | {
                "POINTSMAN_TRANSPORT": transport,
                redis_nodes.WAYS: json.dumps(ways),
            }
            self.servers.append(Server(number, environ))
        ports = [server.xds_port for server in self.servers]
        self._xds_ports = [self.proxies.open(f"xds-{number}", port) for number, port in enumerate(ports)]
        self._xds_ports.append(self.proxies.open("xds", *ports))
        await asyncio.gather(*(server.start() for server in self.servers))

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of ``pointsman-server``, past the proxies."""
        return run("pointsman-server", *arguments, **self._environ(self.redis.ports, self.postgres.port))

    def xds_address(self, number: int | None) -> str:
        """Return where xDS clients reach one server; None: where they reach any of those that live."""
        return f"127.0.0.1:{self._xds_ports[-1 if number is None else number]}"

    def _environ(self, redis_ports: Sequence[int], postgres_port: int) -> dict[str, str]:
        nodes = ",".join(f"127.0.0.1:{port}" for port in redis_ports)
        return self._path | {
            "DATABASE_URL": _database_url(postgres_port, DATABASE),
            "POINTSMAN_AUDIT_DATABASE_URL": _database_url(postgres_port, AUDIT_DATABASE),
            "POINTSMAN_ROLES": "api,relay,cache,audit,xds",
            # Small, so that watchers resume from memory, from the history, and from beyond what is kept.
            "POINTSMAN_WATCH_RECENT_CHANGES": "10",
            "POINTSMAN_WATCH_HISTORY_CHANGES": "40",
            # Few, so that they can all be stuck.
            "POINTSMAN_DATABASE_POOL_MAX": "6",
            "REDIS_URL": f"{self._redis_scheme}://{nodes}/0",
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers,
            "POINTSMAN_KAFKA_TOPIC": TOPIC,
            # More than there are consumers, so that one more gets some.
            "POINTSMAN_KAFKA_PARTITIONS": "6",
            "POINTSMAN_KAFKA_MESSAGE_TIMEOUT_SECONDS": f"{MESSAGE_TIMEOUT:g}",
            "POINTSMAN_CACHE_LOCAL_TTL_SECONDS": f"{TTL_LOCAL:g}",
            "POINTSMAN_CACHE_TTL_SECONDS": f"{TTL_SHARED:g}",
            "POINTSMAN_CACHE_NEGATIVE_TTL_SECONDS": f"{TTL_SHARED / 2:g}",
            # Three servers, four engines and the load share two cores: a late answer is not a lost Redis.
            "POINTSMAN_REDIS_TIMEOUT_SECONDS": "0.25",
        }

    @property
    def database_url(self) -> str:
        """PostgreSQL, past the proxies."""
        return _database_url(self.postgres.port, DATABASE)

    @property
    def era(self) -> Era:
        """The present one."""
        return self.eras[-1]

    @property
    def epoch(self) -> str:
        """That of the database now."""
        return self.era.epoch

    def connect(self, database: str = DATABASE) -> Connection:
        """Open a connection of our own to PostgreSQL."""
        return psycopg.connect(_database_url(self.postgres.port, database), autocommit=True, connect_timeout=5)

    @contextmanager
    def delayed(self, engine: str, servers: Sequence[Server], there: float, back: float) -> Iterator[None]:
        """Hold back what ``servers`` say to an engine, and what that says back, so many seconds each."""
        ways = [way for server in servers for way in self._ways(engine, server)]
        for way in ways:
            self.proxies.do(way, "delay", there=there, back=back)
        try:
            yield
        finally:
            for way in ways:
                self.proxies.do(way, "delay", there=0, back=0)

    @contextmanager
    def cut(self, engine: str, server: Server) -> Iterator[None]:
        """Part a server from an engine."""
        with self.closed(self._ways(engine, server)):
            yield

    @contextmanager
    def xds_cut(self) -> Iterator[None]:
        """Part all xDS clients from all servers."""
        with self.closed(["xds", *(f"xds-{server.number}" for server in self.servers)]):
            yield

    @contextmanager
    def closed(self, ways: Sequence[str]) -> Iterator[None]:
        """Refuse connections through some proxies, and end those that are open."""
        for way in ways:
            self.proxies.do(way, "cut")
        try:
            yield
        finally:
            for way in ways:
                self.proxies.do(way, "mend")

    def _ways(self, engine: str, server: Server) -> list[str]:
        """Name the proxies between a server and an engine."""
        if engine == "redis":
            return [f"redis-{server.number}-{node}" for node in range(len(self.redis.ports))]
        return [f"{engine}-{server.number}"]

    @contextmanager
    def redis_clients(self) -> Iterator[list["redis.Redis"]]:
        """Open connections of our own to every node of Redis, past the proxies."""
        clients = self.redis.clients()
        try:
            yield clients
        finally:
            for client in clients:
                client.close()

    def redis_names(self, client: "redis.Redis") -> list[bytes]:
        """Return the names of all keys of the present epoch at a node."""
        return list(client.scan_iter(f"pointsman:*{self.epoch[:8]}:*", count=1000))

    def leader(self) -> Server:
        """Return the server whose relay leads, or the first that lives."""
        alive = [server for server in self.servers if server.process]
        return max(alive, key=lambda server: server.metric("pointsman_relay_leader"))

    def close(self) -> None:
        """End every process and remove the data."""
        for server in self.servers:
            server.close()
        for engine in (self.postgres, self.redis):
            if isinstance(engine, RedisNodes):
                engine.stop()
            elif engine.process and engine.process.poll() is None:
                engine.signal_all(signal.SIGCONT)
                engine.stop()
        self.kafka.stop(5)
        self.proxies.close()
        os.close(self._lock)
        self._directory.cleanup()


def _database_url(port: int, database: str) -> str:
    return f"postgresql://pointsman@127.0.0.1:{port}/{database}"
