"""Runs scripts for what may wait longer than a read of the cache, within a time limit and behind a breaker."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from redis.exceptions import RedisError

from pointsman_server.adapters.redis.breaker import Breaker
from pointsman_server.adapters.redis.client import connect
from pointsman_server.adapters.redis.connections import ScriptConnections
from pointsman_server.adapters.redis.refusals import explain


class BoundedScripts:
    """Connections of their own, so that nothing here delays a read of the cache.

    ``unavailable`` is raised when Redis fails or does not answer in ``timeout`` seconds, and at once while the breaker
    is open. ``failed`` is called for each failure.
    """

    def __init__(
        self,
        url: str,
        unavailable: type[Exception],
        *,
        timeout: float = 1.0,
        breaker: Breaker | None = None,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        self._redis = connect(url, timeout)
        self._connections = ScriptConnections(self._redis)
        self._unavailable = unavailable
        self._timeout = timeout
        self._breaker = breaker or Breaker()
        self._failed = failed
        self.register = self._redis.register_script

    async def run(self, script: Any, keys: Sequence[str], args: Sequence[str | bytes | int] = ()) -> Any:
        """Run a script that ``register`` has returned, and return its reply."""
        async with self.bounded():
            return await self._connections.run(script, args, keys)

    @asynccontextmanager
    async def bounded(self) -> AsyncIterator[Any]:
        """Bound a block, which gets the client of redis-py."""
        if not self._breaker.allows():
            raise self._unavailable("Redis failed a moment ago")
        try:
            async with asyncio.timeout(self._timeout):
                yield self._redis
        except (RedisError, OSError, TimeoutError) as error:
            self._breaker.failed()
            self._failed()
            raise self._unavailable(f"Redis {explain(error)}") from error
        self._breaker.succeeded()

    async def close(self) -> None:
        """Close the connections."""
        await self._connections.close()
        await self._redis.aclose()
