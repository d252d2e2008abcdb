"""The HTTP server of operators: uvicorn inside the event loop of this process, with bounds on every connection.

uvicorn bounds the head of a request. How many connections there are, and how long one lasts, is bounded here: a slow or
silent peer must not hold the port that health checks and scrapers need.
"""

import asyncio
import socket
from asyncio import TimerHandle
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

MAX_HEAD_BYTES = 16 << 10
MAX_CONNECTIONS = 256
# From connecting to the last byte of the response: each connection carries one request.
CONNECTION_SECONDS = 20.0
STOP_SECONDS = 1


class HttpServer:
    """Serves one ASGI application by HTTP/1.1 (RFC 9112), one request for each connection."""

    def __init__(self, application: ASGIApp) -> None:
        self._server = _Server(
            uvicorn.Config(
                application,
                http=_Connection,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                headers=[("connection", "close")],
                h11_max_incomplete_event_size=MAX_HEAD_BYTES,
                timeout_graceful_shutdown=STOP_SECONDS,
            )
        )
        self._serving: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int, *, share: bool) -> int:
        """Listen on ``host`` and ``port``; ``share`` lets several processes listen on one port (SO_REUSEPORT).

        Returns the port. Raises OSError.
        """
        listeners = await _listeners(host, port, share=share)
        self._serving = asyncio.create_task(self._server.serve(listeners), name="http server")
        await self._server.listening.wait()
        return int(listeners[0].getsockname()[1])

    async def stop(self) -> None:
        """Stop listening; requests that were received get STOP_SECONDS to be answered."""
        if self._serving is None:
            return
        self._server.should_exit = True
        await self._serving


class _Server(uvicorn.Server):
    """uvicorn's server as a guest: the process handles signals, and waits until connections are accepted."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for connection in list(self.server_state.connections):
            if isinstance(connection, _Connection):
                connection.end_if_idle()
        await super().shutdown(sockets)


class _Connection(H11Protocol):
    """A connection with an end: one too many is closed at once, and any after CONNECTION_SECONDS."""

    _expiry: TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
        else:
            self._expiry = self.loop.call_later(CONNECTION_SECONDS, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        super().connection_lost(exc)

    def end_if_idle(self) -> None:
        """Close a connection whose request is not complete: the server stops, and would wait for it."""
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None:
            self.transport.abort()


async def _listeners(host: str, port: int, *, share: bool) -> list[socket.socket]:
    """Bind every address of ``host``, all to one port. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listeners: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            listener = socket.socket(family, kind, protocol)
            listeners.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if share:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                # Else it takes the port of IPv4 too, which an address of its own binds.
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind((address[0], port or listeners[0].getsockname()[1], *address[2:]))
    except OSError:
        for listener in listeners:
            listener.close()
        raise
    return listeners
