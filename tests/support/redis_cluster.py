"""Redis 7 of Debian as it is deployed: Redis Cluster, and a primary with a replica behind Sentinels."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import redis

from tests.support import debian
from tests.support.redis_server import RedisServer
from tests.support.tools import require

SLOTS = 16384
PATIENCE = 30.0
PERIODS = ("info-period", "ping-period", "ask-period", "publish-period", "min-link-reconnect-period")


def debian_redis(directory: Path) -> RedisServer:
    """Make a server of Debian's Redis, not started."""
    package = debian.PACKAGES["redis-server"]
    binary = package.find()
    require("Debian's Redis", binary is not None, "run `make tools`")
    directory.mkdir(parents=True, exist_ok=True)
    return RedisServer(directory, str(binary), package.environment())


class Cluster:
    """Three primaries, each with a third of the slots, and replicas of the first."""

    def __init__(self, directory: Path, *, primaries: int = 3, replicas: int = 0, node_timeout_ms: int = 5000) -> None:
        """A node that does not answer for ``node_timeout_ms`` is taken for lost."""
        self._node_timeout_ms = node_timeout_ms
        self.nodes = [debian_redis(directory / str(number)) for number in range(primaries + replicas)]
        self.primaries, self.replicas = self.nodes[:primaries], self.nodes[primaries:]

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in self.primaries)}"

    def start(self, *options: str) -> None:
        """Start the nodes, and join them."""
        for node in self.nodes:
            self.start_node(node, *options)
        bounds = [SLOTS * number // len(self.primaries) for number in range(len(self.primaries) + 1)]
        for epoch, node in enumerate(self.primaries):
            node.run("CLUSTER", "SET-CONFIG-EPOCH", epoch + 1)
            node.run("CLUSTER", "ADDSLOTSRANGE", bounds[epoch], bounds[epoch + 1] - 1)
        for node in self.nodes[1:]:
            node.run("CLUSTER", "MEET", "127.0.0.1", self.nodes[0].port)
        until(lambda: all(self._knows_all(node) for node in self.nodes))
        for replica in self.replicas:
            until(partial(self._follows, replica, self.primaries[0]))
        until(self.is_up)

    def start_node(self, node: RedisServer, *options: str) -> None:
        """Start a node; it keeps its place in the cluster, and no data."""
        cluster = ("--cluster-enabled", "yes", "--cluster-node-timeout", str(self._node_timeout_ms))
        node.start(*cluster, "--repl-diskless-sync-delay", "0", "--enable-debug-command", "yes", *options)

    def is_up(self) -> bool:
        """Tell whether every node that runs says that all slots are served."""
        return all(b"cluster_state:ok" in _raw(node, "CLUSTER", "INFO") for node in self.nodes if node.is_running)

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()

    def flush(self) -> None:
        """Remove all data."""
        for node in self.nodes:
            if node.is_running and role(node) == "master":
                node.run("FLUSHALL")

    def client(self) -> redis.RedisCluster:
        """Make a client of redis-py."""
        return redis.RedisCluster(host="127.0.0.1", port=self.primaries[0].port)

    def move(self, slot: int, target: RedisServer, *, steps: Callable[[str], None] = lambda _step: None) -> None:
        """Move a slot as redis-cli does; ``steps`` is called before, between and after the keys, and at the end.

        Two moves of one slot with the same epoch would leave it to nobody: all nodes must have heard of the one before.
        """
        until(self._agrees)
        (source,) = [node for node in self.primaries if _owns(node, slot)]
        here, there = _id(source), _id(target)
        target.run("CLUSTER", "SETSLOT", slot, "IMPORTING", here)
        source.run("CLUSTER", "SETSLOT", slot, "MIGRATING", there)
        steps("begun")
        while keys := source.run("CLUSTER", "GETKEYSINSLOT", slot, 1):
            source.run("MIGRATE", "127.0.0.1", target.port, keys[0], 0, 5000)
            steps("moved one")
        for node in (target, source, *(each for each in self.primaries if each not in (target, source))):
            node.run("CLUSTER", "SETSLOT", slot, "NODE", there)
        until(self._agrees)
        steps("done")

    def _agrees(self) -> bool:
        """Tell whether all nodes that run say the same of the epochs and the slots of all primaries."""
        views = [_primaries(node) for node in self.nodes if node.is_running]
        return all(view == views[0] for view in views)

    def _knows_all(self, node: RedisServer) -> bool:
        return len(_raw(node, "CLUSTER", "NODES").splitlines()) == len(self.nodes)

    def _follows(self, replica: RedisServer, primary: RedisServer) -> bool:
        replica.run("CLUSTER", "REPLICATE", _id(primary))
        return b"master_link_status:up" in _raw(replica, "INFO", "replication")


class Watched:
    """A primary, a replica, and Sentinels that watch them."""

    NAME = "pointsman-primary"

    def __init__(self, directory: Path, *, sentinels: int = 3) -> None:
        self.primary, self.replica = debian_redis(directory / "primary"), debian_redis(directory / "replica")
        self.sentinels = [debian_redis(directory / f"sentinel-{number}") for number in range(sentinels)]

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(f'127.0.0.1:{each.port}' for each in self.sentinels)}/{self.NAME}"

    def start(self) -> None:
        self.primary.start("--repl-diskless-sync-delay", "0")
        self.replica.start("--replicaof", f"127.0.0.1 {self.primary.port}")
        until(lambda: b"master_link_status:up" in _raw(self.replica, "INFO", "replication"))
        for sentinel in self.sentinels:
            configuration = sentinel.directory / "sentinel.conf"
            configuration.write_text(
                f"sentinel monitor {self.NAME} 127.0.0.1 {self.primary.port} {len(self.sentinels) // 2 + 1}\n"
                f"sentinel down-after-milliseconds {self.NAME} 500\n"
                f"sentinel failover-timeout {self.NAME} 1000\n"
            )
            sentinel.start(configuration=str(configuration), mode="--sentinel")
            # In milliseconds; by default it looks at the others every ten seconds.
            sentinel.run("SENTINEL", "DEBUG", *(word for name in PERIODS for word in (name, 200)))
        until(
            lambda: all(self._state(each)["num-other-sentinels"] == len(self.sentinels) - 1 for each in self.sentinels)
        )
        until(lambda: all(self._state(each)["num-slaves"] == 1 for each in self.sentinels))

    def stop(self) -> None:
        for server in (*self.sentinels, self.replica, self.primary):
            server.stop()

    def switch(self) -> None:
        """Let the Sentinels make the replica the primary, while both run."""
        until(lambda: b"master_link_status:up" in _raw(self.replica, "INFO", "replication"))
        until(self._begin_switch)
        self.primary, self.replica = self.replica, self.primary
        until(lambda: self._is_primary(self.primary) and role(self.replica) == "slave")

    def return_as_replica(self, lost: RedisServer) -> None:
        """Start a primary that was lost; the Sentinels make it a replica of the one that they have chosen."""
        if lost is self.primary:
            self.primary, self.replica = self.replica, self.primary
        lost.start("--repl-diskless-sync-delay", "0")
        until(lambda: self._is_primary(self.primary))

    def _begin_switch(self) -> bool:
        try:
            self.sentinels[0].run("SENTINEL", "FAILOVER", self.NAME)
        except redis.ResponseError:
            # It does not know yet that the replica is a good one.
            return False
        return True

    def _is_primary(self, server: RedisServer) -> bool:
        """Tell whether all Sentinels name it."""
        return all(self._state(each)["port"] == server.port for each in self.sentinels)

    def _state(self, sentinel: RedisServer) -> dict[str, Any]:
        return cast("dict[str, Any]", sentinel.client.sentinel_master(self.NAME))


def role(node: RedisServer) -> str:
    return str(node.run("ROLE")[0].decode())


def until(condition: Callable[[], object]) -> None:
    """Wait for a condition of processes."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


@contextmanager
def running(*made: Cluster | Watched) -> Iterator[None]:
    """Start them, and stop them in the end."""
    try:
        for each in made:
            each.start()
        yield
    finally:
        for each in made:
            each.stop()


def _raw(node: RedisServer, *command: str | int) -> bytes:
    """Run a command, return its reply as it is sent."""
    connection: Any = cast("Any", redis.Connection)(port=node.port, protocol=2)
    try:
        connection.send_command(*command)
        reply = connection.read_response()
        assert isinstance(reply, bytes)
        return reply
    finally:
        connection.disconnect()


def _id(node: RedisServer) -> str:
    return _raw(node, "CLUSTER", "MYID").decode()


def _primaries(node: RedisServer) -> dict[str, list[str]]:
    """Return what a node says of each primary, by its id: its epoch and its slots, without those that move."""
    lines = [line.split() for line in _raw(node, "CLUSTER", "NODES").decode().splitlines()]
    return {
        line[0]: [line[6], *(word for word in line[8:] if not word.startswith("["))]
        for line in lines
        if "master" in line[2]
    }


def _owns(node: RedisServer, slot: int) -> bool:
    line = next(line for line in _raw(node, "CLUSTER", "NODES").decode().splitlines() if "myself" in line)
    ranges: Sequence[str] = [word for word in line.split()[8:] if not word.startswith("[")]
    return any(int(each.split("-")[0]) <= slot <= int(each.split("-")[-1]) for each in ranges)
