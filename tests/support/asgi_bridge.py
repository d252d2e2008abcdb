"""Lets a real Envoy serve an ASGI application of another process: that of a test, with the test's fakes.

``application`` runs inside of Envoy. For each request it connects to the test's process, which asks it, over a Unix
socket, to receive and to send. ``serve`` is the other side.
"""

import asyncio
import itertools
import os
import pickle
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pointsman_server.rpc.transport.disconnect import disconnect

SOCKET = "POINTSMAN_INTERNAL_BRIDGE"
LENGTH_BYTES = 4
DISCONNECT = "bridge.disconnect"
# As many as calls may begin at once: beyond it, a Unix socket refuses to connect.
BACKLOG = 4096

_calls: set[asyncio.Task[Any]] = set()


class ClientGone(OSError):
    """The client of a call is gone, as pyvoy says it."""


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one request by the application of the other process."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    # Kept: the event loop itself refers to tasks weakly, and so does a stream to its reader.
    task_of_call = asyncio.current_task()
    assert task_of_call
    _calls.add(task_of_call)
    reader, writer = await asyncio.open_unix_connection(os.environ[SOCKET])
    working: set[asyncio.Task[None]] = set()

    async def answer(number: int, event: Message | None) -> None:
        try:
            result: Any = await _perform(receive, send, event)
        except OSError:
            result = ClientGone()
        _write(writer, (number, result))

    try:
        _write(writer, {key: value for key, value in scope.items() if key not in ("state", "extensions")})
        while (asked := await _read(reader)) is not None:
            task = asyncio.create_task(answer(*asked))
            working.add(task)
            task.add_done_callback(working.discard)
    finally:
        _calls.discard(task_of_call)
        for task in working:
            task.cancel()
        writer.close()


async def _perform(receive: Receive, send: Send, event: Message | None) -> Any:
    if event is None:
        return await receive()
    if event["type"] == DISCONNECT:
        return disconnect(event["peer"])
    return await send(event)


@asynccontextmanager
async def serve(served: ASGIApp, socket: Path) -> AsyncIterator[Callable[[str], bool]]:
    """Serve the requests that ``application`` passes on; give ``disconnect`` for Envoy's process."""
    calls: set[asyncio.Task[Any]] = set()
    asking: set[_Asking] = set()
    loop = asyncio.get_running_loop()

    def disconnect_there(peer: str) -> bool:
        # Any call in progress can carry it.
        question = next(iter(asking)).send({"type": DISCONNECT, "peer": peer})
        return bool(asyncio.run_coroutine_threadsafe(question, loop).result())

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        calls.add(task)
        try:
            await _serve_one(served, reader, writer, asking)
        finally:
            calls.discard(task)
            writer.close()

    server = await asyncio.start_unix_server(connected, socket, backlog=BACKLOG)
    try:
        yield disconnect_there
    finally:
        server.close()
        for call in calls:
            call.cancel()


async def _serve_one(
    served: ASGIApp, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, all_asking: "set[_Asking]"
) -> None:
    scope = await _read(reader)
    if scope is None:
        return
    asking = _Asking(reader, writer)
    all_asking.add(asking)
    answers = asyncio.create_task(asking.take_answers())
    try:
        # A task of its own, as in Envoy: what a call cancels is that task alone.
        await asyncio.create_task(served(scope, asking.receive, asking.send))  # type: ignore[arg-type]
    finally:
        all_asking.discard(asking)
        answers.cancel()


class _Asking:
    """Receives and sends by asking the other side."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._over = False

    async def receive(self) -> Any:
        return await self.send(None)

    async def send(self, event: Message | None) -> Any:
        if self._over:
            raise ClientGone
        number = next(self._numbers)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        _write(self._writer, (number, event))
        result = await self._waiting[number]
        if isinstance(result, ClientGone):
            raise result
        return result

    async def take_answers(self) -> None:
        """Pass answers on; at the end of the connection, every question is answered by ClientGone."""
        while (answer := await _read(self._reader)) is not None:
            self._give(*answer)
        self._over = True
        for number in list(self._waiting):
            self._give(number, ClientGone())

    def _give(self, number: int, result: Any) -> None:
        if not (future := self._waiting.pop(number)).done():
            future.set_result(result)


def _write(writer: asyncio.StreamWriter, message: Any) -> None:
    packed = pickle.dumps(message)
    writer.write(len(packed).to_bytes(LENGTH_BYTES) + packed)


async def _read(reader: asyncio.StreamReader) -> Any:
    """Return the next message; None at the end."""
    try:
        length = int.from_bytes(await reader.readexactly(LENGTH_BYTES))
        return pickle.loads(await reader.readexactly(length))  # noqa: S301 - written by ``_write``
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
