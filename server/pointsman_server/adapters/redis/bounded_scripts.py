"""Runs scripts on Redis, however it is deployed, within a time limit and behind a breaker for each node."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import RedisError, ResponseError

from pointsman_server.adapters.redis.breaker import Breaker
from pointsman_server.adapters.redis.connections import Argument, Call, Script
from pointsman_server.adapters.redis.deployment import Deployment, Mode
from pointsman_server.adapters.redis.diagnostics.refusals import explain
from pointsman_server.adapters.redis.nodes import FollowedNodes, Node, Nodes, OneNode, is_moving

# At least so many seconds for looking up the nodes, which no call of a client waits for.
REFRESH_SECONDS = 2.0


class BoundedScripts:
    """Has connections of its own, so that nothing that others send delays its scripts.

    ``unavailable`` is raised when Redis fails or does not answer in ``timeout`` seconds, and, for what is guarded, at
    once while the breaker of the node is open. ``failed`` is called for each failure.
    """

    def __init__(
        self,
        where: str | Deployment,
        unavailable: type[Exception],
        *,
        timeout: float = 1.0,
        breaker: Callable[[], Breaker] = Breaker,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        deployment = Deployment.parse(where) if isinstance(where, str) else where
        self.clustered = deployment.mode is Mode.CLUSTER
        self.where = deployment.where
        make = OneNode if deployment.mode is Mode.SINGLE else FollowedNodes
        self.nodes: Nodes = make(deployment, breaker)
        self._unavailable = unavailable
        self._timeout = timeout
        self._failed = failed

    async def run(
        self,
        script: Script,
        args: Sequence[Argument] = (),
        keys: Sequence[str] = (),
        *,
        guarded: bool = True,
        counts_refusals: bool = True,
    ) -> Any:
        """Run a script, return its reply. A refusal that does not count leaves the breaker as it is."""
        node = self.nodes.node_of(keys)
        if guarded and not node.breaker.allows():
            raise self._unavailable(f"{node.name} failed a moment ago")
        try:
            async with asyncio.timeout(self._timeout):
                reply = await self.nodes.run(node, Call(script, args, keys))
        except (RedisError, OSError, TimeoutError) as error:
            raise self._failure(node, error, counts_refusals=counts_refusals) from error
        node.breaker.succeeded()
        return reply

    async def run_all(self, calls: Sequence[Call], *, timeouts: float = 1, guarded: bool = False) -> list[Any]:
        """Run scripts, those of each node within so many timeouts. Where one fails its reply is ``unavailable``."""
        by_node: dict[Node, list[int]] = {}
        for position, call in enumerate(calls):
            by_node.setdefault(self.nodes.node_of(call.keys), []).append(position)
        if len(by_node) == 1:
            return await self._run_at(next(iter(by_node)), calls, timeouts, guarded)
        replies: list[Any] = [None] * len(calls)
        at_nodes = [
            self._run_at(node, [calls[position] for position in positions], timeouts, guarded)
            for node, positions in by_node.items()
        ]
        for positions, of_node in zip(by_node.values(), await asyncio.gather(*at_nodes), strict=True):
            for position, reply in zip(positions, of_node, strict=True):
                replies[position] = reply
        return replies

    async def refresh(self) -> None:
        """Look up which nodes serve what, and whether all keys are served."""
        try:
            async with asyncio.timeout(max(self._timeout, REFRESH_SECONDS)):
                await self.nodes.refresh()
        except (RedisError, OSError, TimeoutError) as error:
            raise self._unavailable(f"{self.where} {explain(error)}") from error

    async def close(self) -> None:
        """Close the connections."""
        await self.nodes.close()

    async def _run_at(self, node: Node, calls: Sequence[Call], timeouts: float, guarded: bool) -> list[Any]:
        if guarded and not node.breaker.allows():
            return [self._unavailable(f"{node.name} failed a moment ago")] * len(calls)
        try:
            async with asyncio.timeout(self._timeout * timeouts):
                if len(calls) == 1:
                    replies = [await self.nodes.run(node, calls[0])]
                else:
                    replies = await self.nodes.run_all(node, calls)
        except (RedisError, OSError, TimeoutError) as error:
            return [self._failure(node, error)] * len(calls)
        failures = {
            position: self._failure(node, reply)
            for position, reply in enumerate(replies)
            if isinstance(reply, Exception)
        }
        if not failures:
            node.breaker.succeeded()
        return [failures.get(position, reply) for position, reply in enumerate(replies)]

    def _failure(self, node: Node, error: Exception, *, counts_refusals: bool = True) -> Exception:
        failure = self._unavailable(f"{node.name} {explain(error)}")
        failure.__cause__ = error
        if is_moving(error):
            return failure
        if counts_refusals or not isinstance(error, ResponseError):
            node.breaker.failed()
        self._failed()
        self.nodes.failed()
        return failure
