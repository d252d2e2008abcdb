"""The subject: PostgreSQL, Redis, Kafka, proxies and three servers, each a process that we hold by its handle."""

import asyncio
import os
import re
import signal
import tempfile
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg
import redis

from pointsman_server.embedded import engines
from tests.faults.proxies import Proxies
from tests.support import kafka
from tests.support.processes import ServerProcess, free_port, run

SERVERS = 3
TOPIC = "route-events"
TTL_LOCAL = 1.0
TTL_SHARED = 20.0
MESSAGE_TIMEOUT = 4.0
READY_SECONDS = 60.0


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


class Server:
    """One ``pointsman-server serve`` with all roles. ``life`` changes with every start."""

    def __init__(self, number: int, environ: Mapping[str, str]) -> None:
        self.number = number
        self.port, self._http_port = free_port(), free_port()
        self._environ = {
            **environ,
            "POINTSMAN_LISTEN": f"127.0.0.1:{self.port}",
            "POINTSMAN_HTTP_LISTEN": f"127.0.0.1:{self._http_port}",
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
        self.process = ServerProcess(("serve",), self._environ)
        self._lives += 1
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
    """Everything that runs. ``close`` ends whatever was started, however far ``start`` came."""

    def __init__(self, server_path: str = "") -> None:
        self._server_path = server_path
        self._directory = tempfile.TemporaryDirectory(prefix="pointsman-faults-", ignore_cleanup_errors=True)
        place = Path(self._directory.name)
        (place / "logs").mkdir()
        (place / "kafka").mkdir()
        self._lock = os.open(place / "lock", os.O_CREAT | os.O_RDWR)
        site = engines.Site(data=place, lock=self._lock)
        self.postgres, self.redis, self.kafka = Postgres(site), Redis(site), kafka.KafkaBroker(place / "kafka")
        self.proxies = Proxies()
        self.servers: list[Server] = []

    async def start(self) -> None:
        """Start engines, migrate, start servers."""
        kafka.fetch()
        self.kafka.start(wait=False)
        await asyncio.gather(self.postgres.started(), self.redis.started())
        await asyncio.to_thread(self.kafka.wait_ready)
        migrated = await asyncio.to_thread(lambda: run("pointsman-server", "migrate", **self._environ(0)))
        assert migrated.returncode == 0, migrated.stderr
        for number in range(SERVERS):
            port = self.proxies.open(f"redis-{number}", self.redis.port)
            self.servers.append(Server(number, self._environ(port)))
        await asyncio.gather(*(server.start() for server in self.servers))

    def _environ(self, redis_port: int) -> dict[str, str]:
        path = {"PYTHONPATH": self._server_path} if self._server_path else {}
        return path | {
            "DATABASE_URL": self.database_url,
            "REDIS_URL": f"redis://127.0.0.1:{redis_port or self.redis.port}/0",
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers,
            "POINTSMAN_KAFKA_TOPIC": TOPIC,
            "POINTSMAN_KAFKA_PARTITIONS": "3",
            "POINTSMAN_KAFKA_MESSAGE_TIMEOUT_SECONDS": f"{MESSAGE_TIMEOUT:g}",
            "POINTSMAN_CACHE_LOCAL_TTL_SECONDS": f"{TTL_LOCAL:g}",
            "POINTSMAN_CACHE_TTL_SECONDS": f"{TTL_SHARED:g}",
            "POINTSMAN_CACHE_NEGATIVE_TTL_SECONDS": f"{TTL_SHARED / 2:g}",
            # Three servers, four engines and the load share two cores: a late answer is not a lost Redis.
            "POINTSMAN_REDIS_TIMEOUT_SECONDS": "0.25",
        }

    @property
    def database_url(self) -> str:
        """PostgreSQL."""
        return f"postgresql://pointsman@127.0.0.1:{self.postgres.port}/pointsman"

    def connect(self) -> "psycopg.Connection[tuple[object, ...]]":
        """Open a connection of our own to PostgreSQL."""
        return psycopg.connect(self.database_url, autocommit=True, connect_timeout=5)

    def redis_client(self) -> "redis.Redis":
        """Open a connection of our own to Redis, past the proxies."""
        return redis.Redis(port=self.redis.port, socket_timeout=5)

    def leader(self) -> Server:
        """Return the server whose relay leads, or the first that lives."""
        alive = [server for server in self.servers if server.process]
        return max(alive, key=lambda server: server.metric("pointsman_relay_leader"))

    def close(self) -> None:
        """End every process and remove the data."""
        for server in self.servers:
            server.close()
        for engine in (self.postgres, self.redis):
            if engine.process and engine.process.poll() is None:
                engine.signal_all(signal.SIGCONT)
                engine.stop()
        self.kafka.stop(5)
        self.proxies.close()
        os.close(self._lock)
        self._directory.cleanup()
