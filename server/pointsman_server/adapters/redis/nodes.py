"""The Redis processes that keys are on: one for all, or those that a cluster or Sentinel names at present."""

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

from redis.exceptions import AskError, MovedError, NoScriptError, RedisError, TryAgainError

from pointsman_server.adapters.redis.breaker import Breaker
from pointsman_server.adapters.redis.client import make_pool
from pointsman_server.adapters.redis.connections import Call, ScriptConnections
from pointsman_server.adapters.redis.deployment import Address, Deployment, Mode
from pointsman_server.adapters.redis.discovery import NotFound, View, find_primary, read_slots

# Between two looks at who serves what, in seconds; and how long one may take.
LOOK_PAUSE, LOOK_SECONDS = 0.2, 3.0
# Connections to a node that is no longer named are closed after so many seconds.
UNNAMED_SECONDS = 30.0
MOST_REDIRECTS = 5


class Node:
    """One Redis process. ``name`` begins the texts for operators."""

    def __init__(self, name: str, connections: ScriptConnections, breaker: Breaker) -> None:
        self.name = name
        self.connections = connections
        self.breaker = breaker
        self.named_at = time.monotonic()


class Nodes(Protocol):
    """Which process serves a key."""

    def node_of(self, keys: Sequence[str]) -> Node:
        """Return the node of keys that are in one slot."""

    @property
    def serving(self) -> str:
        """Which nodes serve at present, in words; empty for a single Redis."""

    def known(self) -> Collection[Node]:
        """Return the nodes that serve."""

    async def run(self, node: Node, call: Call) -> Any:
        """Run a script at a node, or at the one that it refers to. Raises RedisError and OSError."""

    async def run_all(self, node: Node, calls: Sequence[Call]) -> list[Any]:
        """Run scripts at a node; where Redis refuses one, its reply is the error."""

    def failed(self) -> None:
        """Note that a call has failed: another node may serve its keys by now."""

    async def refresh(self) -> None:
        """Look up which nodes serve what, and connect to them. Raises RedisError where nobody says it."""

    async def close(self) -> None:
        """Close the connections."""


class OneNode:
    """A single Redis."""

    def __init__(self, deployment: Deployment, breaker: Callable[[], Breaker]) -> None:
        pool = make_pool(deployment.addresses[0], deployment.options)
        self.node = Node(deployment.where, ScriptConnections(pool), breaker())

    def node_of(self, keys: Sequence[str]) -> Node:  # noqa: ARG002 - it is that of all
        return self.node

    @property
    def serving(self) -> str:
        return ""

    def known(self) -> Collection[Node]:
        return (self.node,)

    async def run(self, node: Node, call: Call) -> Any:
        return await node.connections.run(call)

    async def run_all(self, node: Node, calls: Sequence[Call]) -> list[Any]:
        """Run them one after the other, so that other commands come in between; the first failure ends it."""
        return [await node.connections.run(call) for call in calls]

    def failed(self) -> None:
        """Do nothing: there is no other node."""

    async def refresh(self) -> None:
        await self.node.connections.connect()

    async def close(self) -> None:
        await self.node.connections.close()


class FollowedNodes:
    """Redis Cluster, or the primary that Sentinel names.

    redis-py's clients for these look up nodes within a call, which has milliseconds here, one Sentinel or node after
    the other; they repeat commands, and sleep. Here who serves what is looked up in the background: at first use, after
    each failure, and whenever ``refresh`` is called. A call never waits for it but at first use.
    """

    def __init__(self, deployment: Deployment, breaker: Callable[[], Breaker]) -> None:
        self._deployment = deployment
        self._breaker = breaker
        self._view: View | None = None
        self._nodes: dict[Address, Node] = {}
        self._sentinels = [
            ScriptConnections(make_pool(address, deployment.sentinel_options))
            for address in deployment.addresses
            if deployment.mode is Mode.SENTINEL
        ]
        self._nowhere = Node(deployment.where, ScriptConnections(None), breaker())
        self._looking: asyncio.Task[None] | None = None
        self._looked_at = 0.0

    def node_of(self, keys: Sequence[str]) -> Node:
        address = self._view.address_of(keys[0] if keys else "") if self._view else None
        return self._node_at(address) if address else self._nowhere

    @property
    def serving(self) -> str:
        listed = ", ".join(f"{host}:{port}" for host, port in sorted(self._view.addresses)) if self._view else "unknown"
        if self._deployment.mode is Mode.CLUSTER:
            return f"Redis Cluster, served by {listed}"
        return f"Redis at {listed}, the primary {self._deployment.service} of Sentinel"

    def known(self) -> Collection[Node]:
        return [self._node_at(address) for address in self._view.addresses] if self._view else [self._nowhere]

    async def run(self, node: Node, call: Call) -> Any:
        if node is self._nowhere:
            node = await self._served(call)
        for _ in range(MOST_REDIRECTS):
            try:
                return await node.connections.run(call)
            except MovedError as moved:
                node = self._moved(node, moved)
            except AskError as asked:
                other = self._node_at(self._referred(node, asked))
                return await other.connections.run(call, asking=True)
        raise NotFound("refers from one node to another without end")

    async def run_all(self, node: Node, calls: Sequence[Call]) -> list[Any]:
        """Run them in one round trip, and those that are referred to another node there."""
        if node is self._nowhere:
            return list(await asyncio.gather(*(self.run(node, call) for call in calls), return_exceptions=True))
        replies = await node.connections.run_all(calls)
        for position, reply in enumerate(replies):
            if isinstance(reply, MovedError | AskError | NoScriptError):
                try:
                    replies[position] = await self.run(node, calls[position])
                except (RedisError, OSError) as error:
                    replies[position] = error
        return replies

    def failed(self) -> None:
        self._look()

    async def refresh(self) -> None:
        await asyncio.shield(self._look(at_once=True))
        # One that cannot be reached fails the calls that need it.
        await asyncio.gather(*(node.connections.connect() for node in self.known()), return_exceptions=True)

    async def close(self) -> None:
        if self._looking:
            self._looking.cancel()
            await asyncio.wait([self._looking])
        for connections in (*self._sentinels, *(node.connections for node in self._nodes.values())):
            await connections.close()

    async def _served(self, call: Call) -> Node:
        """Return the node of a call, once it is known which nodes there are."""
        if self._view is None:
            await asyncio.shield(self._look())
        node = self.node_of(call.keys)
        if node is self._nowhere:
            raise NotFound("has no node for some of its slots")
        return node

    def _look(self, *, at_once: bool = False) -> asyncio.Task[None]:
        """Begin to look up the nodes, unless that goes on or was done a moment ago."""
        running = self._looking is not None and not self._looking.done()
        recent = time.monotonic() - self._looked_at < LOOK_PAUSE
        if self._looking is None or not (running or (recent and not at_once)):
            self._looked_at = time.monotonic()
            self._looking = asyncio.create_task(self._look_up())
            self._looking.add_done_callback(_take_note)
        return self._looking

    async def _look_up(self) -> None:
        deployment = self._deployment
        async with asyncio.timeout(LOOK_SECONDS):
            if self._sentinels:
                self._view = await find_primary(self._sentinels, deployment.service)
            else:
                known = {**dict.fromkeys(deployment.addresses), **dict.fromkeys(self._nodes)}
                self._view = await read_slots({address: self._node_at(address).connections for address in known})
        await self._close_unnamed(self._view)

    async def _close_unnamed(self, view: View) -> None:
        now = time.monotonic()
        for address, node in list(self._nodes.items()):
            if address in view.addresses or address in self._deployment.addresses:
                node.named_at = now
            elif now - node.named_at > UNNAMED_SECONDS:
                del self._nodes[address]
                await node.connections.close()

    def _node_at(self, address: Address) -> Node:
        node = self._nodes.get(address)
        if node is None:
            pool = make_pool(address, self._deployment.options)
            name = self._deployment.mode.node_name(address, self._deployment.service)
            node = self._nodes[address] = Node(name, ScriptConnections(pool), self._breaker())
        return node

    def _moved(self, node: Node, moved: MovedError) -> Node:
        """Take note that another node serves the slot, and have the others looked up."""
        address = self._referred(node, moved)
        if self._view:
            self._view.move(moved.slot_id, address)
        self._look()
        return self._node_at(address)

    def _referred(self, node: Node, error: AskError) -> Address:
        """Return the address that a node refers to; without a host it is that of the node."""
        host = error.host or next(address[0] for address, known in self._nodes.items() if known is node)
        return host, error.port


def is_moving(error: BaseException | None) -> bool:
    """Tell whether Redis refused a script because its keys are on their way to another node, one by one."""
    return isinstance(error, TryAgainError) or "non local key" in str(error)


def _take_note(task: asyncio.Task[None]) -> None:
    """Retrieve the error of a look that nobody waits for; the calls that fail say it again."""
    if not task.cancelled():
        task.exception()
