"""How the Redis servers are set up, for an operator who asks."""

import asyncio
from dataclasses import dataclass

from redis.exceptions import NoPermissionError, RedisError

from pointsman_server.adapters.redis.breaker import Breaker
from pointsman_server.adapters.redis.deployment import Deployment, Mode
from pointsman_server.adapters.redis.diagnostics.refusals import explain
from pointsman_server.adapters.redis.nodes import FollowedNodes, Node, Nodes, OneNode
from pointsman_server.ports.cache import CacheUnavailable

SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class RedisFacts:
    """``max_memory`` in bytes, 0 without a limit; ``evicted``: keys since the server started."""

    name: str
    version: str
    role: str
    max_memory: int
    policy: str
    evicted: int


async def inspect(deployment: Deployment) -> list[RedisFacts]:
    """Ask every server that serves keys; one whose user may not run INFO is left out. Raises CacheUnavailable."""
    make = OneNode if deployment.mode is Mode.SINGLE else FollowedNodes
    nodes: Nodes = make(deployment, Breaker)
    try:
        async with asyncio.timeout(SECONDS):
            await nodes.refresh()
            return [facts for node in nodes.known() if (facts := await _ask(node))]
    except (RedisError, OSError) as error:
        raise CacheUnavailable(f"{deployment.where} {explain(error)}") from error
    finally:
        await nodes.close()


async def _ask(node: Node) -> RedisFacts | None:
    try:
        reply: bytes = await node.connections.command("INFO")
    except NoPermissionError:
        return None
    lines = (line.partition(":") for line in reply.decode().splitlines())
    info = {name: value for name, _, value in lines}
    return RedisFacts(
        node.name,
        info["redis_version"],
        info["role"],
        int(info["maxmemory"]),
        info["maxmemory_policy"],
        int(info["evicted_keys"]),
    )
