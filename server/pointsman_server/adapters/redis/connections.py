"""A short way to Redis for scripts, which are all that the cache asks of it.

For each command redis-py takes a connection out of its pool and puts it back, packs the arguments in Python, and tells
its observers: several times what sending and reading take. Here connections are kept, and packed for by hiredis.
Everything else is redis-py's: addresses, TLS, credentials, reconnecting, errors.
"""

from collections.abc import Sequence
from typing import Any

import hiredis
from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from redis.exceptions import NoScriptError, ResponseError


class ScriptConnections:
    """Runs scripts, each time on a connection that nobody else uses meanwhile."""

    def __init__(self, redis: Redis) -> None:
        self._pool: Any = redis.connection_pool  # untyped in parts
        self._idle: list[Any] = []

    async def run(self, script: AsyncScript, args: Sequence[str | bytes | int], keys: Sequence[str] = ()) -> Any:
        """Run a script. Raises RedisError and OSError; whoever gives up leaves no reply to others."""
        command = hiredis.pack_command(("EVALSHA", script.sha, len(keys), *keys, *args))  # type: ignore[arg-type]  # its stub lacks tuples of mixed types
        try:
            return await self._ask(command)
        except NoScriptError:
            # Redis was restarted. This tells it the script.
            return await script(keys=keys, args=args)

    async def close(self) -> None:
        """Close every connection that is not in use."""
        while self._idle:
            connection = self._idle.pop()
            await connection.disconnect()
            await self._pool.release(connection)

    async def _ask(self, command: bytes) -> Any:
        connection = await self._take()
        try:
            await connection.send_packed_command(command, check_health=False)
            reply = await connection.read_response()
        except ResponseError:
            # It was read to its end.
            self._idle.append(connection)
            raise
        except BaseException:
            # Its reply may still come, and must not be taken for the next one.
            await connection.disconnect(nowait=True)
            self._idle.append(connection)
            raise
        self._idle.append(connection)
        return reply

    async def _take(self) -> Any:
        """Take the connection that was used last, connected anew if it was lost meanwhile."""
        if not self._idle:
            return await self._pool.get_connection()
        connection = self._idle.pop()
        try:
            # What can be read before anything was asked is its end, or nothing that we want.
            if connection.is_connected and await connection.can_read():
                await connection.disconnect()
            await connection.connect()
        except BaseException:
            await connection.disconnect(nowait=True)
            self._idle.append(connection)
            raise
        return connection
