"""Connections for scripts, which are nearly all that servers send to Redis.

For each command redis-py takes a connection out of its pool and puts it back, packs the arguments in Python, and calls
its observers, which takes several times as long as sending and reading. Here connections are kept, and hiredis packs.
redis-py does the rest: addresses, TLS, credentials, reconnecting, errors.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import hiredis
from redis.exceptions import NoScriptError, ResponseError

from pointsman_server.adapters.redis.scripts import name_of
from pointsman_server.telemetry.tracing import spans
from pointsman_server.telemetry.tracing.spans import Kind, Span

Argument = str | bytes | int


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script and its SHA-1, by which Redis keeps it."""

    text: str
    sha: str

    @classmethod
    def of(cls, text: str) -> "Script":
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


class Call(NamedTuple):
    """One run of a script. On Redis Cluster it has keys, all of one slot."""

    script: Script
    args: Sequence[Argument]
    keys: Sequence[str] = ()

    def packed(self) -> bytes:
        """Return what is sent."""
        command = ("EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.args)
        packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub lacks tuples of mixed types
        return packed


# Attributes of spans.
SYSTEM = {"db.system.name": "redis", "db.operation.name": "EVALSHA"}
ASKING = hiredis.pack_command(("ASKING",))


class ScriptConnections:
    """Sends commands to one Redis, each on a connection that no other call uses at the same time.

    A cancelled call leaves no reply behind. Everything raises RedisError and OSError.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool  # untyped in parts
        self._idle: list[Any] = []

    async def run(self, call: Call, *, asking: bool = False) -> Any:
        """Run a script, return its reply. ``asking``: the slot is on its way to this node."""
        packed = call.packed()
        with _span([call]):
            try:
                return await self._request(packed, asking)
            except NoScriptError:
                # Redis was restarted, or is another one than before.
                await self.command("SCRIPT", "LOAD", call.script.text)
                return await self._request(packed, asking)

    async def run_all(self, calls: Sequence[Call]) -> list[Any]:
        """Run scripts in one round trip. Returns their replies; that of one that Redis refuses is the ResponseError."""
        with _span(calls):
            return await self._exchange(b"".join(call.packed() for call in calls), len(calls))

    async def connect(self) -> None:
        """Have a connection for the next call."""
        if not self._idle:
            self._idle.append(await self._pool.get_connection())

    async def command(self, *words: Argument) -> Any:
        """Run a command, return its reply."""
        return await self._request(hiredis.pack_command(words))  # type: ignore[arg-type]

    async def close(self) -> None:
        """Close every connection that is not in use."""
        while self._idle:
            connection = self._idle.pop()
            await connection.disconnect()
            await self._pool.release(connection)

    async def _request(self, command: bytes, asking: bool = False) -> Any:
        replies = await self._exchange(ASKING + command, 2) if asking else await self._exchange(command, 1)
        if isinstance(replies[-1], ResponseError):
            raise replies[-1]
        return replies[-1]

    async def _exchange(self, packed: bytes, count: int) -> list[Any]:
        connection = await self._acquire()
        replies = []
        try:
            await connection.send_packed_command(packed, check_health=False)
            for _ in range(count):
                try:
                    replies.append(await connection.read_response())
                except ResponseError as refusal:
                    # A complete reply: the connection can be used again.
                    replies.append(refusal)
        except BaseException:
            # The reply may still arrive, and must not be taken for the next one.
            await connection.disconnect(nowait=True)
            self._idle.append(connection)
            raise
        self._idle.append(connection)
        return replies

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


def _span(calls: Sequence[Call]) -> Span:
    """Begin the span of scripts that are sent together."""
    span = spans.span("redis EVALSHA", Kind.CLIENT)
    if span.recording:
        names = " ".join(name_of(call.script.text) for call in calls)
        keys = sum(len(call.keys) for call in calls)
        span.set({**SYSTEM, "db.stored_procedure.name": names, "pointsman.keys": keys})
    return span
