"""Connections for scripts, which are all that the cache sends to Redis.

For each command redis-py takes a connection out of its pool and puts it back, packs the arguments in Python, and calls
its observers, which takes several times as long as sending and reading. Here connections are kept, and hiredis packs.
redis-py does the rest: addresses, TLS, credentials, reconnecting, errors.
"""

from collections.abc import Sequence
from typing import Any

import hiredis
from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from redis.exceptions import NoScriptError, ResponseError


class ScriptConnections:
    """Runs scripts, each on a connection that no other call uses at the same time."""

    def __init__(self, redis: Redis) -> None:
        self._pool: Any = redis.connection_pool  # untyped in parts
        self._idle: list[Any] = []

    async def run(self, script: AsyncScript, args: Sequence[str | bytes | int], keys: Sequence[str] = ()) -> Any:
        """Run a script, return its reply. A cancelled call leaves no reply behind. Raises RedisError and OSError."""
        command = hiredis.pack_command(("EVALSHA", script.sha, len(keys), *keys, *args))  # type: ignore[arg-type]  # its stub lacks tuples of mixed types
        try:
            return await self._request(command)
        except NoScriptError:
            # Redis was restarted: this sends the script itself.
            return await script(keys=keys, args=args)

    async def close(self) -> None:
        """Close every connection that is not in use."""
        while self._idle:
            connection = self._idle.pop()
            await connection.disconnect()
            await self._pool.release(connection)

    async def _request(self, command: bytes) -> Any:
        connection = await self._acquire()
        try:
            await connection.send_packed_command(command, check_health=False)
            reply = await connection.read_response()
        except ResponseError:
            # A complete reply: the connection can be used again.
            self._idle.append(connection)
            raise
        except BaseException:
            # The reply may still arrive, and must not be taken for the next one.
            await connection.disconnect(nowait=True)
            self._idle.append(connection)
            raise
        self._idle.append(connection)
        return reply

    async def _acquire(self) -> Any:
        """Take the connection that was used last, and reconnect it if it was lost meanwhile."""
        if not self._idle:
            return await self._pool.get_connection()
        connection = self._idle.pop()
        try:
            # Readable before a request: the end of the connection, or a reply to a cancelled call.
            if connection.is_connected and await connection.can_read():
                await connection.disconnect()
            await connection.connect()
        except BaseException:
            await connection.disconnect(nowait=True)
            self._idle.append(connection)
            raise
        return connection
