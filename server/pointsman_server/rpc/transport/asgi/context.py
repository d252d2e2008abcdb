"""The context of a call over ASGI: the part of ``grpc.aio.ServicerContext`` that servicers and interceptors use."""

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NoReturn, TypeVar

import grpc
from grpc import StatusCode
from starlette.types import Scope

from pointsman_server.rpc.transport.asgi import headers as wire
from pointsman_server.rpc.transport.asgi.client_certificate import auth_context_of

T = TypeVar("T")
Read = Callable[[], Awaitable[Any]]
Write = Callable[[Any], Awaitable[None]]
# The timeout of a call before it was looked for; none is negative.
UNREAD = -1.0
# By which a caller is verified again, and a call is named in logs.
NEEDED_LATER = frozenset({b"authorization", wire.CLIENT_CERTIFICATE, b"traceparent", b"tracestate", b"x-request-id"})


class AsgiContext:
    """One call. What is read from headers is read at its first use: most calls need none of it."""

    # Without slots: what no call changes is read from the class.
    initial_metadata: wire.Metadata = ()
    _callbacks: list[Callable[[Any], None]] | None = None
    _metadata: wire.Metadata | None = None
    _timeout: float | None = UNREAD
    _code: Any = None
    _details = ""
    _trailers: tuple[tuple[str, str | bytes], ...] = ()

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._begun = time.monotonic()

    # What the client sent

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The headers of the request."""
        return self._scope["headers"]  # type: ignore[no-any-return]

    def invocation_metadata(self) -> wire.Metadata:
        """Return the metadata. Raises headers.Rejected, once: what logs the refusal gets no metadata."""
        if self._metadata is None:
            self._metadata = ()
            self._metadata = self._checked(wire.metadata_of)
        return self._metadata

    def peer(self) -> str:
        """Return the address of the client, as gRPC writes it."""
        host, port = self._scope.get("client") or ("", 0)
        if ":" in host:
            return f"ipv6:%5B{host}%5D:{port}"
        return f"ipv4:{host}:{port}" if host else "unknown"

    def drop_headers(self) -> None:
        """Drop the headers that nothing asks for once a stream has begun: thousands of them are open at once."""
        headers = [pair for pair in self._scope["headers"] if pair[0] in NEEDED_LATER]
        self._scope = {"headers": headers, "client": self._scope.get("client")}
        self._metadata = None

    def auth_context(self) -> Mapping[str, list[bytes]]:
        """Return what the verified client certificate says, by grpcio's names; empty without one."""
        return auth_context_of(self._scope["headers"])

    def time_remaining(self) -> float | None:
        """Return the seconds until the deadline of the client; None without one. Raises headers.Rejected, once."""
        if self._timeout == UNREAD:
            self._timeout = None
            self._timeout = self._checked(wire.timeout_of)
        return None if self._timeout is None else self._timeout - (time.monotonic() - self._begun)

    def _checked(self, read: Callable[[list[tuple[bytes, bytes]]], T]) -> T:
        try:
            return read(self._scope["headers"])
        except wire.Rejected as error:
            self._code, self._details = error.refusal.code, error.refusal.text
            raise

    def elapsed(self) -> float:
        """Return the seconds since the call began."""
        return time.monotonic() - self._begun

    # What the call ends with

    def code(self) -> Any:
        """Return the status code that was set."""
        return self._code

    def details(self) -> str:
        """Return the status text that was set."""
        return self._details

    def trailing_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """Return the trailers that were set."""
        return self._trailers

    def set_code(self, code: StatusCode) -> None:
        self._code = code

    def set_details(self, details: str) -> None:
        self._details = details

    def set_trailing_metadata(self, trailers: Any) -> None:
        self._trailers = tuple(trailers)

    async def send_initial_metadata(self, metadata: Any) -> None:
        """Set metadata that is sent with the first response."""
        self.initial_metadata = tuple(metadata)

    async def abort(self, code: StatusCode, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        """End the call with a status. Raises grpc.aio.AbortError."""
        self._code, self._details = code, details
        if trailing_metadata:
            self._trailers = tuple(trailing_metadata)
        raise grpc.aio.AbortError(details)

    # Its end

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call ``callback`` when the call is over: the transport has taken its response, or it was cancelled."""
        if self._callbacks is None:
            self._callbacks = []
        self._callbacks.append(callback)

    def end(self) -> None:
        """Call what waits for the end. Once."""
        while self._callbacks:
            self._callbacks.pop()(self)


class AsgiStreamContext(AsgiContext):
    """A call with a stream on either side; ``read`` and ``write`` are those of the call."""

    def __init__(self, scope: Scope, read: Read, write: Write) -> None:
        super().__init__(scope)
        self._read = read
        self._write = write

    async def read(self) -> Any:
        """Return the next request of a stream, or ``grpc.aio.EOF``."""
        return await self._read()

    async def write(self, response: Any) -> None:
        """Send a response of a stream; waits until the transport has taken it."""
        await self._write(response)
