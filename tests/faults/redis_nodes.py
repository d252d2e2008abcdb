"""Redis Cluster as a subject: three nodes without replicas, one of which a fault strikes.

Each server reaches each node through a proxy of its own. Nodes name each other by their own ports, so servers run with
``SITE`` on their path, which leads connections to those ports to the proxies that WAYS names.
"""

import asyncio
import random
import signal
from contextlib import suppress
from pathlib import Path

import redis

from tests.support.pause import pause, resume
from tests.support.redis_cluster import Cluster, until

WAYS = "REDIS_WAYS"
SITE = Path(__file__).parent / "redis_ways"
# Longer than a fault lasts at most, so that a node which comes back serves at once.
NODE_TIMEOUT_MS = 5000


class RedisNodes:
    """The cluster, with the interface of the rig's single Redis."""

    def __init__(self, directory: Path) -> None:
        self._cluster = Cluster(directory, node_timeout_ms=NODE_TIMEOUT_MS)
        self._struck = self._cluster.primaries[0]
        self._begun = False

    @property
    def ports(self) -> list[int]:
        return [node.port for node in self._cluster.nodes]

    async def started(self) -> None:
        """Start what does not run, and wait until all slots are served."""
        if self._begun:
            await asyncio.to_thread(self._cluster.start_node, self._struck)
        else:
            self._begun = True
            await asyncio.to_thread(self._cluster.start)
        for node in self._cluster.nodes:
            # What other nodes have is served meanwhile.
            node.run("CONFIG", "SET", "cluster-require-full-coverage", "no")
        await asyncio.to_thread(until, self._cluster.is_up)

    async def end(self, _number: signal.Signals) -> None:
        """Kill a node; its data is lost."""
        self._struck = random.choice(self._cluster.nodes)
        await asyncio.to_thread(self._struck.stop)

    def pause(self) -> None:
        """Stop a node."""
        self._struck = random.choice(self._cluster.nodes)
        pause(self._struck.process)

    async def resume(self) -> None:
        """Let the node go on, and wait until it serves."""
        resume(self._struck.process)
        await asyncio.to_thread(until, self._cluster.is_up)

    def clients(self) -> list["redis.Redis"]:
        """Open a connection of ours to each node."""
        return [redis.Redis(port=port, socket_timeout=5) for port in self.ports]

    def stop(self) -> None:
        """End every node."""
        for node in self._cluster.nodes:
            with suppress(AssertionError, ProcessLookupError):
                resume(node.process)
        self._cluster.stop()
